"""Large packets that are lost without a word."""

from flowverdict_lab.faults.pod_loss import PodLoss

__all__ = ["MtuBlackhole"]

_BYTES = 1000


class MtuBlackhole(PodLoss):
    """Drops a pod's large packets, as a tunnel does whose ICMP messages are filtered."""

    name = "mtu-blackhole"

    @property
    def words(self) -> str:
        return f"packets of {self.where} above {_BYTES} bytes are lost"

    @property
    def rule(self) -> str:
        return f"meta length > {_BYTES} counter drop"
