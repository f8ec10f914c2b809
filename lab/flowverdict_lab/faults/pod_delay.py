"""A delay of what a pod sends."""

import sys

from flowverdict_lab.cluster import Cluster, Node, Pod
from flowverdict_lab.delayer import OUTSIDE
from flowverdict_lab.faults.fault import FaultError, drop_chain
from flowverdict_lab.faults.pod_loss import PodLoss
from flowverdict_lab.network import Network

__all__ = ["PodDelay"]

_MILLISECONDS = 100


class PodDelay(PodLoss):
    """Delays what a pod sends by a tenth of a second."""

    name = "pod-delay"
    takes_long = True

    def check_targets(self, cluster: Cluster) -> None:
        super().check_targets(cluster)
        if len(self.targets) > 1:
            raise FaultError("pod-delay delays one pod")

    @property
    def words(self) -> str:
        return f"{_MILLISECONDS} ms delay on {self.where}"

    def chains(self, network: Network) -> dict[Node, list[str]]:
        """What the pod sends goes to the process that delays it, and nowhere else."""
        (pod,) = self.targets
        assert isinstance(pod, Pod)
        return {pod.node: [drop_chain("ingress", network.port_of(pod), ["drop"])]}

    def inject(self, network: Network) -> None:
        """Put a process on the pod's wire."""
        (node,) = self.chains(network)
        port = self.targets[0].name
        argv = [sys.executable, "-m", "flowverdict_lab.delayer", port, str(_MILLISECONDS)]
        self._delayer = network.start_inside(node.name, argv)
        super().inject(network)

    def remove(self, network: Network) -> None:
        """Take it away."""
        super().remove(network)
        self._delayer.kill()
        self._delayer.wait()
        (node,) = self.chains(network)
        network.inside(node.name, ["ip", "link", "delete", OUTSIDE])
