"""Packet loss on a pod's interface."""

from typing import ClassVar

from flowverdict_lab.cluster import Cluster, Node, Pod
from flowverdict_lab.faults.fault import Fault, FaultError, drop_chain
from flowverdict_lab.network import Network

__all__ = ["PodLoss"]


class PodLoss(Fault):
    """Drops what one or more pods send and receive."""

    name = "pod-loss"
    default_target = "pod-a"
    hooks: ClassVar[tuple[str, ...]] = ("ingress", "egress")
    """Of the node's interface, which receives what the pod sends."""
    serves: ClassVar[bool] = False
    """Whether only a pod that somebody calls shows it."""

    @property
    def rule(self) -> str:
        """What drops packets, in nftables' language."""
        return self.drops()

    def check_targets(self, cluster: Cluster) -> None:
        if not all(isinstance(target, Pod) for target in self.targets):
            raise FaultError("pod-loss needs pods as --target, such as pod-a or pod-b,pod-c")
        hit = {pair for pair in cluster.pairs if not set(self.targets).isdisjoint(pair)}
        self.check_comparable(cluster, hit)
        called = {callee for _, callee in cluster.calls}
        for target in self.targets:
            if self.serves and target not in called:
                names = ", ".join(pod.name for pod in cluster.pods if pod in called)
                raise FaultError(f"nobody calls {target.name}; choose from {names}")
        for node in cluster.nodes:
            on_node = {pod for pod in cluster.pods if pod.node is node}
            if len(on_node) > 1 and on_node <= set(self.targets):
                raise FaultError(f"all pods of {node.name} cannot be distinguished from the node")

    def chains(self, network: Network) -> dict[Node, list[str]]:
        chains: dict[Node, list[str]] = {}
        for pod in self.targets:
            assert isinstance(pod, Pod)
            port = network.port_of(pod)
            hooks = [drop_chain(hook, port, [self.rule]) for hook in self.hooks]
            chains.setdefault(pod.node, []).extend(hooks)
        return chains
