"""A window's pairs of endpoints, and whether each is OK or FAIL."""

from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from flowverdict_contracts.verdicts import Component
from flowverdict_rca.settings import RcaSettings

__all__ = ["FIELDS", "Endpoint", "Pair", "PairKey", "Status", "Sums", "status_of"]

FIELDS = (
    "segments_sent",
    "retransmitted_segments",
    "opens",
    "failed_opens",
    "resets_sent",
    "resets_received",
    "drops_netfilter",
    "drops_queue",
    "drops_socket",
    "drops_other",
)
Sums = npt.NDArray[np.int64]
"""Sums of `FIELDS`, in their order."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One end of a pair.

    Attributes:
        kind: as in the contract: pod, service, node, external, unknown.
        name: `namespace/pod`, `namespace/service`, a node's name, or the address.
        node: the node it is on, empty where unknown.
        workload: `namespace/workload` of a pod, empty where it has none.
    """

    kind: str
    name: str
    node: str = ""
    workload: str = ""

    @property
    def component(self) -> Component:
        """The endpoint as something that can be at fault."""
        return Component(kind=self.kind, name=self.name)  # type: ignore[arg-type]


PairKey = tuple[Endpoint, Endpoint]
"""Who sent, and to whom."""


class Status(Enum):
    """What a pair is judged to be."""

    OK = "OK"
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, slots=True)
class Pair:
    """A directed pair of endpoints in one window."""

    src: Endpoint
    dst: Endpoint
    segments_sent: int
    retransmitted_segments: int
    opens: int
    failed_opens: int
    dropped: int
    rtt_us: int

    @property
    def retransmission_ratio(self) -> float:
        """Retransmitted segments among those sent, 0 where none was sent."""
        return self.retransmitted_segments / self.segments_sent if self.segments_sent else 0.0

    def connects_fail(self, settings: RcaSettings) -> bool:
        """Whether most attempts to connect failed."""
        return (
            self.failed_opens >= settings.min_retransmissions and self.failed_opens > self.opens
        )

    def retransmits(self, settings: RcaSettings) -> bool:
        """Whether the retransmission ratio is over the threshold, on more than a few segments."""
        return (
            self.retransmitted_segments >= settings.min_retransmissions
            and self.retransmission_ratio > settings.fail_ratio
        )


def status_of(pair: Pair, settings: RcaSettings) -> Status:
    """FAIL by retransmission ratio or failed connects; OK only where enough was sent to tell."""
    if pair.retransmits(settings) or pair.connects_fail(settings):
        return Status.FAIL
    if pair.segments_sent >= settings.min_segments:
        return Status.OK
    return Status.UNDECIDED
