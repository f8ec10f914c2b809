"""What became of the segments that one end sent: the other end's count tells."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

__all__ = ["Passage", "whole"]

_AS_MANY_AS_RESENT = 3


@dataclass(frozen=True, slots=True)
class Passage:
    """The segments that a pair's sender sent.

    Both ends count their segments (`tcp_sock.segs_out`, `tcp_sock.segs_in`; include/linux/tcp.h),
    so what the receiver did not count was lost: dropped by a node's kernel, which counts that, too,
    or on the way between them. But what no socket receives any more is not counted: the last FIN of
    a connection, or a SYN that is refused. And a virtual machine's network card may hand over
    several segments as one. So losses of which the sender knows nothing are not `credible`.

    Attributes:
        sent: how many, retransmissions and pure ACKs included.
        arrived: how many the receiver's sockets got; None if the receiver's end is not seen.
        dropped: how many of the packets were dropped by kernels, by node.
        reasons: and by the kernels' own reasons, also those that dropped them after they arrived.
        resent: how many the sender sent again because they were lost.
    """

    sent: int
    arrived: int | None
    dropped: Mapping[str, int] = field(default_factory=dict)
    reasons: Mapping[str, int] = field(default_factory=dict)
    resent: int = 0

    @property
    def credible(self) -> bool:
        """Whether the sender's retransmissions agree; lost ACKs are not sent again."""
        return self.lost <= _AS_MANY_AS_RESENT * self.resent

    @property
    def lost(self) -> int:
        """How many did not arrive, as far as is known."""
        return max(0, self.sent - self.arrived) if self.arrived is not None else 0

    @property
    def lost_on_the_way(self) -> int:
        """How many did not arrive although no kernel dropped them."""
        return max(0, self.lost - sum(self.dropped.values()))


def whole(passages: Iterable[Passage]) -> Passage:
    """Several as one, without those whose other end is not seen, unless none is."""
    passages = list(passages)
    seen = [each for each in passages if each.arrived is not None]
    dropped: Counter[str] = Counter()
    reasons: Counter[str] = Counter()
    for each in seen or passages:
        dropped.update(each.dropped)
        reasons.update(each.reasons)
    return Passage(
        sent=sum(each.sent for each in seen or passages),
        arrived=sum(each.arrived or 0 for each in seen) if seen else None,
        dropped=dropped,
        reasons=reasons,
        resent=sum(each.resent for each in seen or passages),
    )
