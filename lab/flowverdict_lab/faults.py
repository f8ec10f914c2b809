"""Packet loss on a pod's, a node's or a link's interface, with nftables.

`numgen random` in a netdev table drops at the interface itself, as a bad cable or a full ring
would, and works on kernels without netem. The tables stand in the nodes' own namespaces and go
with them.
"""

import itertools
from dataclasses import dataclass

from flowverdict_contracts.verdicts import Component
from flowverdict_lab.cluster import NAMESPACE, Cluster, Node, Pod
from flowverdict_lab.network import Network

__all__ = ["FAULTS", "Fault", "FaultError", "parse_fault"]

FAULTS = ("pod-loss", "node-loss", "link-loss", "none")

_DEFAULT_TARGETS = {
    "pod-loss": "pod-a",
    "node-loss": "worker0",
    "link-loss": "pod-b,pod-c",
    "none": "",
}
_TABLE = "flowverdict_lab"


class FaultError(ValueError):
    """The fault cannot be made in this cluster; the message says what could."""


@dataclass(frozen=True, slots=True)
class Fault:
    """A fault and what it hits.

    Attributes:
        kind: one of `FAULTS`.
        targets: one pod or node, or the two ends of a link; pod-loss may hit several pods.
        loss_percent: of the packets that pass.
    """

    kind: str
    targets: tuple[Pod | Node, ...]
    loss_percent: int

    @property
    def words(self) -> str:
        """What is broken, in words."""
        if self.kind == "none":
            return "no fault"
        names = " and ".join(target.name for target in self.targets)
        where = f"the link between {names}" if self.kind == "link-loss" else names
        return f"{self.loss_percent} % packet loss on {where}"

    def hits(self, one: Pod, other: Pod) -> bool:
        """Whether packets between two pods are dropped."""
        if self.kind == "link-loss" and isinstance(self.targets[0], Pod):
            return {one, other} == set(self.targets)
        if self.kind == "link-loss":
            return {one.node, other.node} == set(self.targets)
        return not {one, other, one.node, other.node}.isdisjoint(self.targets)

    @property
    def expected(self) -> tuple[Component, ...]:
        """What a right verdict may name; empty where a verdict would be wrong."""
        names = [
            f"{NAMESPACE}/{target.name}" if isinstance(target, Pod) else target.name
            for target in self.targets
        ]
        if self.kind == "link-loss":
            kind = "link" if isinstance(self.targets[0], Pod) else "node_link"
            return (Component(kind=kind, name=" <-> ".join(sorted(names))),)  # type: ignore[arg-type]
        kind = "pod" if self.kind == "pod-loss" else "node"
        return tuple(Component(kind=kind, name=name) for name in names)  # type: ignore[arg-type]

    def inject(self, network: Network) -> None:
        """Begin to drop packets."""
        for node, chains in self._chains(network).items():
            rules = "".join(chains)
            network.inside(node.name, ["nft", "-f", "-"], f"table netdev {_TABLE} {{\n{rules}}}\n")

    def remove(self, network: Network) -> None:
        """Drop no more."""
        for node in self._chains(network):
            network.inside(node.name, ["nft", "delete", "table", "netdev", _TABLE])

    def _chains(self, network: Network) -> dict[Node, list[str]]:
        some = "" if self.loss_percent == 100 else f"numgen random mod 100 < {self.loss_percent} "
        drop = f"{some}counter drop"
        chains: dict[Node, list[str]] = {}
        if self.kind == "node-loss":
            # On the way in at each interface: every packet the node forwards passes just one.
            for node in self.targets:
                assert isinstance(node, Node)
                pods = [pod for pod in network.cluster.pods if pod.node is node]
                ports = ["uplink", *map(network.port_of, pods)]
                chains[node] = [_chain("ingress", port, [drop]) for port in ports]
        elif self.kind == "pod-loss":
            for pod in self.targets:
                assert isinstance(pod, Pod)
                port = network.port_of(pod)
                hooks = [_chain(hook, port, [drop]) for hook in ("ingress", "egress")]
                chains.setdefault(pod.node, []).extend(hooks)
        elif self.kind == "link-loss":
            here, there = self.targets
            node = here.node if isinstance(here, Pod) else here
            port = network.port_of(here) if isinstance(here, Pod) else "uplink"
            # A pod's port receives what the pod sends, an uplink what others send.
            sides = ("daddr", "saddr") if isinstance(here, Pod) else ("saddr", "daddr")
            chains[node] = [
                _chain(hook, port, _matching(side, there, drop))
                for hook, side in zip(("ingress", "egress"), sides, strict=True)
            ]
        return chains


def _chain(hook: str, port: str, rules: list[str]) -> str:
    name = f"{hook}_{port}".replace("-", "_")
    body = "".join(f"    {rule}\n" for rule in rules)
    return (
        f"  chain {name} {{\n"
        f'    type filter hook {hook} device "{port}" priority 0; policy accept;\n{body}  }}\n'
    )


def _matching(side: str, there: Pod | Node, drop: str) -> list[str]:
    if isinstance(there, Pod):
        return [f"ip {side} {there.ipv4} {drop}", f"ip6 {side} {there.ipv6} {drop}"]
    return [
        f"ip {side} {there.pods_ipv4}.0/24 {drop}",
        f"ip6 {side} {there.pods_ipv6}:/64 {drop}",
    ]


def parse_fault(kind: str, target: str, loss_percent: int, cluster: Cluster) -> Fault:
    """The fault that the command line asks for; an empty `target` is the kind's default.

    Raises:
        FaultError: where the cluster has no such target, or the kind cannot hit it.
    """
    names = [name for name in (target or _DEFAULT_TARGETS[kind]).split(",") if name]
    if kind == "none":
        if names:
            raise FaultError("--fault none has no --target")
        return Fault(kind, (), 0)
    found = [cluster.pod(name) or cluster.node(name) for name in names]
    targets = tuple(each for each in found if each is not None)
    for name, each in zip(names, found, strict=True):
        if each is None:
            known = ", ".join([p.name for p in cluster.pods] + [n.name for n in cluster.nodes])
            raise FaultError(f"there is no {name} in the lab; there are {known}")
    of_pods = all(isinstance(each, Pod) for each in targets)
    of_nodes = all(isinstance(each, Node) for each in targets)
    if kind == "pod-loss" and not of_pods:
        raise FaultError("pod-loss needs pods as --target, such as pod-a or pod-b,pod-c")
    if kind == "node-loss" and not of_nodes:
        raise FaultError("node-loss needs nodes as --target, such as worker0")
    if kind == "link-loss" and (len(set(names)) != 2 or not (of_pods or of_nodes)):
        raise FaultError("link-loss needs two pods or two nodes as --target, such as pod-b,pod-c")
    fault = Fault(kind, targets, loss_percent)
    _check_can_be_told(fault, cluster)
    return fault


def _check_can_be_told(fault: Fault, cluster: Cluster) -> None:
    """Refuse what no evidence could single out: that would show nothing."""
    pairs = list(itertools.combinations(cluster.pods, 2))
    hit = [pair for pair in pairs if fault.hits(*pair)]
    if not hit:
        raise FaultError("no flow would pass there: use more pods")
    if len(hit) == len(pairs):
        raise FaultError("every flow would fail, and nothing would be left to compare with")
    for node in cluster.nodes:
        on_node = {pod for pod in cluster.pods if pod.node is node}
        alike = len(on_node) > 1 and on_node <= set(fault.targets)
        if fault.kind == "pod-loss" and alike:
            raise FaultError(f"all pods of {node.name} cannot be told from the node itself")
    nodes = [target for target in fault.targets if isinstance(target, Node)]
    pods = [sum(pod.node is node for pod in cluster.pods) for node in nodes]
    if nodes and max(pods) < 2:
        names = " and ".join(node.name for node in nodes)
        raise FaultError(f"{names} with one pod each cannot be told from the pods: use more pods")
