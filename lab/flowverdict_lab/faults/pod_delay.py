"""A delay of what a pod sends: the same for all, varying, or for what exceeds a rate."""

import sys
from typing import ClassVar

from flowverdict_lab.cluster import Cluster, Node, Pod
from flowverdict_lab.delayer import OUTSIDE
from flowverdict_lab.faults.fault import FaultError, drop_chain
from flowverdict_lab.faults.pod_loss import PodLoss
from flowverdict_lab.network import Network

__all__ = ["BandwidthLimit", "PodDelay", "PodJitter"]

_MILLISECONDS = 100
_KILOBITS_PER_SECOND = 1000


class PodDelay(PodLoss):
    """Delays what a pod sends by a tenth of a second."""

    name = "pod-delay"
    takes_long = True
    options: ClassVar[tuple[str, ...]] = ("--milliseconds", str(_MILLISECONDS))

    def check_targets(self, cluster: Cluster) -> None:
        super().check_targets(cluster)
        if len(self.targets) > 1:
            raise FaultError(f"{self.name} delays one pod")

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
        argv = [sys.executable, "-m", "flowverdict_lab.delayer", port, *self.options]
        self._delayer = network.start_inside(node.name, argv)
        super().inject(network)

    def remove(self, network: Network) -> None:
        """Take it away."""
        super().remove(network)
        self._delayer.kill()
        self._delayer.wait()
        (node,) = self.chains(network)
        network.inside(node.name, ["ip", "link", "delete", OUTSIDE])


class PodJitter(PodDelay):
    """Delays what a pod sends by nothing to a fifth of a second, in order."""

    name = "pod-jitter"
    options: ClassVar[tuple[str, ...]] = ("--up-to-milliseconds", str(2 * _MILLISECONDS))

    @property
    def words(self) -> str:
        return f"up to {2 * _MILLISECONDS} ms delay on {self.where}"


class BandwidthLimit(PodDelay):
    """Lets a pod send so much at most: the rest waits, or is lost."""

    name = "bandwidth-limit"
    options: ClassVar[tuple[str, ...]] = ("--kilobits-per-second", str(_KILOBITS_PER_SECOND))

    @property
    def words(self) -> str:
        return f"{self.where} sends {_KILOBITS_PER_SECOND} kbit/s at most"
