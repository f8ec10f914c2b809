"""Packet loss on one of a pod's two ways."""

from flowverdict_lab.cluster import Node, Pod
from flowverdict_lab.faults.fault import drop_chain
from flowverdict_lab.faults.pod_loss import PodLoss
from flowverdict_lab.network import Network

__all__ = ["ReceiveLoss", "SendLoss"]


class SendLoss(PodLoss):
    """Drops some of what a pod sends."""

    name = "send-loss"
    hook = "ingress"  # of the node's interface, which receives what the pod sends

    @property
    def words(self) -> str:
        return f"{self.loss_percent:g}% loss of what {self.where} sends"

    def chains(self, network: Network) -> dict[Node, list[str]]:
        chains: dict[Node, list[str]] = {}
        for pod in self.targets:
            assert isinstance(pod, Pod)
            chain = drop_chain(self.hook, network.port_of(pod), [self.drops()])
            chains.setdefault(pod.node, []).append(chain)
        return chains


class ReceiveLoss(SendLoss):
    """Drops some of what is sent to a pod."""

    name = "receive-loss"
    hook = "egress"

    @property
    def words(self) -> str:
        return f"{self.loss_percent:g}% loss of what is sent to {self.where}"
