"""A window's pairs of endpoints, and whether each is OK or FAIL."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
import numpy.typing as npt

from flowverdict_contracts.verdicts import Component
from flowverdict_rca.settings import RcaSettings

__all__ = ["FIELDS", "Endpoint", "Pair", "PairKey", "Status", "Sums", "decide"]

FIELDS = (
    "data_segments_sent",
    "syn_retransmits",
    "retransmitted_segments",
    "opens",
    "failed_opens",
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


_QUIET = 4
"""Less than a quarter of its mean rate is silence."""

PairKey = tuple[Endpoint, Endpoint]
"""Who sent, and to whom."""


class Status(Enum):
    """What a pair is judged to be."""

    OK = "OK"
    FAIL = "FAIL"
    UNDECIDED = "UNDECIDED"


@dataclass(frozen=True, slots=True)
class Pair:
    """A directed pair of endpoints and what it did, over some stretch of time.

    Attributes:
        segments: segments sent that have to arrive: with payload or SYN, retransmissions included.
            Pure ACKs are left out, since TCP never sends them again: with them 10 % packet loss
            shows as a ratio of 6 %, without them of 11 % (measured in the lab).
        dropped: its packets that a node's kernel discarded.
        rtt_us: smoothed RTT, as last sampled; 0 where unknown.
    """

    src: Endpoint
    dst: Endpoint
    segments: int = 0
    retransmitted_segments: int = 0
    opens: int = 0
    failed_opens: int = 0
    dropped: int = 0
    rtt_us: int = 0

    def __add__(self, older: "Pair") -> "Pair":
        """Both stretches of time together."""
        return Pair(
            self.src,
            self.dst,
            self.segments + older.segments,
            self.retransmitted_segments + older.retransmitted_segments,
            self.opens + older.opens,
            self.failed_opens + older.failed_opens,
            self.dropped + older.dropped,
            self.rtt_us or older.rtt_us,
        )

    @property
    def retransmission_ratio(self) -> float:
        """Retransmitted segments among `segments`, 0 to 1; 0 where none was sent.

        A retransmitted FIN is counted and its first sending is not, hence the limit.
        """
        return min(1.0, self.retransmitted_segments / self.segments) if self.segments else 0.0

    def connects_fail(self, settings: RcaSettings) -> bool:
        """Whether most attempts to connect failed."""
        return self.failed_opens >= settings.min_retransmissions and self.failed_opens > self.opens

    def retransmits(self, settings: RcaSettings) -> bool:
        """Whether the retransmission ratio is over the threshold, on more than a few segments."""
        return (
            self.retransmitted_segments >= settings.min_retransmissions
            and self.retransmission_ratio > settings.fail_ratio
        )


def decide(panes: Sequence[Pair], settings: RcaSettings) -> tuple[Status, Pair]:
    """What a pair is, and the evidence for it, from its panes, newest first.

    No more of the past is taken than is needed: a flow that fails sends less, so that a healthy
    past would outweigh it. A pair fails as soon as the newest panes say so. It is OK where the
    newest pane alone has enough segments, or the whole window has and the pair did not just fall
    silent.
    """
    newest = panes[0]
    evidence = Pair(newest.src, newest.dst)
    for number, pane in enumerate(panes):
        evidence = evidence + pane
        if evidence.retransmits(settings) or evidence.connects_fail(settings):
            return Status.FAIL, evidence
        if number == 0 and evidence.segments >= settings.min_segments:
            return Status.OK, evidence
    went_quiet = newest.segments * len(panes) < evidence.segments / _QUIET
    if evidence.segments >= settings.min_segments and not went_quiet:
        return Status.OK, evidence
    return Status.UNDECIDED, evidence
