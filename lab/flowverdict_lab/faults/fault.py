"""The base class of the lab's faults; most drop packets with nftables.

`numgen random` in a netdev table drops at the interface itself, as a bad cable or a full ring
would, and works on kernels without netem. The tables are in the nodes' own network namespaces and
disappear with them.
"""

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from flowverdict_contracts.verdicts import Component
from flowverdict_flows.components import component_of
from flowverdict_flows.endpoint import Endpoint
from flowverdict_lab.cluster import NAMESPACE, Cluster, Node, Pod
from flowverdict_lab.network import Network

__all__ = ["Fault", "FaultError", "drop_chain", "endpoint_of"]


class FaultError(ValueError):
    """The fault cannot be injected in this cluster; the message says why."""


class Fault(ABC):
    """A fault and its targets.

    Attributes:
        name: what the command line calls this kind of fault.
        default_target: its target unless the command line names another.
        takes_long: whether only windows of thirty seconds show it.
        table: the nftables table with what drops packets.
        targets: the pods or nodes that it affects.
        loss_percent: how many of the passing packets it drops.
    """

    name: ClassVar[str]
    default_target: ClassVar[str]
    takes_long: ClassVar[bool] = False
    table: ClassVar[str] = "flowverdict_lab"

    def __init__(
        self, targets: Sequence[Pod | Node], loss_percent: float, cluster: Cluster
    ) -> None:
        self.targets = tuple(targets)
        self.loss_percent = loss_percent
        self.check_targets(cluster)

    @abstractmethod
    def check_targets(self, cluster: Cluster) -> None:
        """Raises FaultError for targets that this fault cannot affect or that show nothing."""

    @property
    def where(self) -> str:
        """What the fault affects, in words."""
        return " and ".join(target.name for target in self.targets)

    @property
    def expected(self) -> tuple[Component, ...]:
        """What a right verdict may name; empty if any verdict would be wrong."""
        return tuple(component_of(endpoint_of(target)) for target in self.targets)

    @abstractmethod
    def chains(self, network: Network) -> dict[Node, list[str]]:
        """The nftables chains that drop packets, by the node whose namespace they belong in."""

    @property
    def words(self) -> str:
        """The fault in words, as the phases show it."""
        return f"{self.loss_percent:g}% packet loss on {self.where}"

    def inject(self, network: Network) -> None:
        """Start dropping packets."""
        for node, chains in self.chains(network).items():
            rules = "".join(chains)
            network.inside(
                node.name, ["nft", "-f", "-"], f"table netdev {self.table} {{\n{rules}}}\n"
            )

    def remove(self, network: Network) -> None:
        """Stop dropping packets."""
        for node in self.chains(network):
            network.inside(node.name, ["nft", "delete", "table", "netdev", self.table])

    def drops(self, match: str = "") -> str:
        """An nftables rule that drops `loss_percent` of the packets that match `match`."""
        per_mille = round(10 * self.loss_percent)
        sample = f"numgen random mod 1000 < {per_mille} " if per_mille < 1000 else ""
        return f"{match} {sample}counter drop".lstrip()

    def check_comparable(self, cluster: Cluster, hit: set[frozenset[Pod]]) -> None:
        """Raises FaultError unless some pairs of pods are affected and others are not."""
        if not hit:
            raise FaultError("no flow would be affected: use more pods, or others that talk")
        if hit == cluster.pairs:
            raise FaultError(
                "every flow would fail, and nothing would be left to compare with: "
                "take three pods at least"
            )


def endpoint_of(target: Pod | Node) -> Endpoint:
    """The target as a verdict names it."""
    if isinstance(target, Pod):
        return Endpoint("pod", NAMESPACE, target.name, node=target.node.name)
    return Endpoint("node", "", target.name, node=target.name)


def drop_chain(hook: str, port: str, rules: Sequence[str]) -> str:
    """A chain of a netdev table at the `hook` (ingress, egress) of an interface."""
    name = f"{hook}_{port}".replace("-", "_")
    body = "".join(f"    {rule}\n" for rule in rules)
    return (
        f"  chain {name} {{\n"
        f'    type filter hook {hook} device "{port}" priority 0; policy accept;\n{body}  }}\n'
    )
