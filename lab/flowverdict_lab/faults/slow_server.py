"""A server that takes long to answer, or to read what it is asked, or that closes connections."""

from typing import ClassVar

from flowverdict_lab.cluster import Pod
from flowverdict_lab.faults.pod_loss import PodLoss
from flowverdict_lab.network import Network

__all__ = ["FullReceiver", "ResettingServer", "SlowServer"]

_SECONDS = 0.2
_RESETS = 0.3


class SlowServer(PodLoss):
    """A pod's server waits before it answers, once it has read the request."""

    name = "slow-server"
    takes_long = True
    serves = True
    order: ClassVar[dict[str, object]] = {"answers_after_seconds": _SECONDS}

    @property
    def words(self) -> str:
        return f"{self.where} answers after {_SECONDS:g} s"

    def inject(self, network: Network) -> None:
        """Tell the servers to be slow."""
        self._tell(network, self.order)

    def remove(self, network: Network) -> None:
        """Tell them to be as fast as they can."""
        self._tell(network, {})

    def _tell(self, network: Network, order: dict[str, object]) -> None:
        for pod in self.targets:
            assert isinstance(pod, Pod)
            network.set_server(pod, order)


class FullReceiver(SlowServer):
    """A pod's server waits before it reads, with little room for what it has not read."""

    name = "full-receiver"
    order: ClassVar[dict[str, object]] = {"reads_after_seconds": _SECONDS, "receive_bytes": 2304}

    @property
    def words(self) -> str:
        return f"{self.where} reads after {_SECONDS:g} s, and has room for little meanwhile"


class ResettingServer(SlowServer):
    """A pod's server resets connections instead of answering."""

    name = "resetting-server"
    order: ClassVar[dict[str, object]] = {"resets": _RESETS}

    @property
    def words(self) -> str:
        return f"{self.where} resets the connection at {_RESETS:.0%} of its requests"
