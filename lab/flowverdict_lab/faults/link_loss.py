"""Packet loss between two pods, or between two nodes."""

from flowverdict_contracts.verdicts import Component
from flowverdict_flows.components import link_between, node_link_between
from flowverdict_lab.cluster import Cluster, Node, Pod
from flowverdict_lab.faults.fault import Fault, FaultError, drop_chain, endpoint_of
from flowverdict_lab.network import Network

__all__ = ["LinkLoss"]


class LinkLoss(Fault):
    """Drops what two pods, or the pods of two nodes, send each other."""

    name = "link-loss"
    default_target = "pod-b,pod-c"

    def check_targets(self, cluster: Cluster) -> None:
        kinds = {type(target) for target in self.targets}
        if len(set(self.targets)) != 2 or len(kinds) != 1:
            raise FaultError(
                "link-loss needs two pods or two nodes as --target, such as pod-b,pod-c"
            )
        hit = {pair for pair in cluster.pairs if self._joins(*pair)}
        self.check_comparable(cluster, hit)
        nodes = [target for target in self.targets if isinstance(target, Node)]
        pods = [sum(pod.node is node for pod in cluster.pods) for node in nodes]
        if nodes and max(pods) < 2:
            names = " and ".join(node.name for node in nodes)
            raise FaultError(
                f"{names} with one pod each cannot be distinguished from the pods: use more pods"
            )

    def _joins(self, one: Pod, other: Pod) -> bool:
        return set(self.targets) in ({one, other}, {one.node, other.node})

    @property
    def where(self) -> str:
        return f"the link between {' and '.join(target.name for target in self.targets)}"

    @property
    def expected(self) -> tuple[Component, ...]:
        one, other = self.targets
        if isinstance(one, Pod):
            return (link_between(endpoint_of(one), endpoint_of(other)),)
        return (node_link_between(one.name, other.name),)

    def chains(self, network: Network) -> dict[Node, list[str]]:
        here, there = self.targets
        node = here.node if isinstance(here, Pod) else here
        port = network.port_of(here) if isinstance(here, Pod) else "uplink"
        # A pod's port receives what the pod sends, an uplink what others send.
        sides = ("daddr", "saddr") if isinstance(here, Pod) else ("saddr", "daddr")
        if isinstance(there, Pod):
            matches = (f"ip {{}} {there.ipv4}", f"ip6 {{}} {there.ipv6}")
        else:
            matches = (f"ip {{}} {there.pods_ipv4}.0/24", f"ip6 {{}} {there.pods_ipv6}:/64")
        return {
            node: [
                drop_chain(hook, port, [self.drops(match.format(side)) for match in matches])
                for hook, side in zip(("ingress", "egress"), sides, strict=True)
            ]
        }
