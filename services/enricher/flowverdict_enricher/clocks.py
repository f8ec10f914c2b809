"""Nodes whose clock differs from that of NATS: their intervals are dated by the clock of NATS.

Otherwise what they count would be judged too late or not at all.
"""

import logging
from collections import OrderedDict, deque
from dataclasses import dataclass, field

from nats.aio.msg import Msg

from flowverdict_contracts.interval_header import TOLERATED_SECONDS, IntervalHeader, sent_ns
from flowverdict_runtime.logs import Throttle
from flowverdict_runtime.stored_messages import stored_ns

__all__ = ["Clocks"]

log = logging.getLogger(__name__)

_TOLERATED_NS = TOLERATED_SECONDS * 1_000_000_000
_PACE_NS = 2_000_000_000
_MESSAGES = 5
_MOST_NODES = 10_000


@dataclass(slots=True)
class _Seen:
    """A node's last messages: when it sent them by its own clock, when NATS stored them.

    Attributes:
        was_set: whether the clock was set back since: all of them are by the new time.
    """

    times: deque[tuple[int, int]] = field(default_factory=lambda: deque(maxlen=_MESSAGES))
    was_set: bool = False

    def add(self, sent_ns: int, stored_ns: int) -> None:
        if self.times:
            last_sent_ns, last_stored_ns = self.times[-1]
            if sent_ns < last_sent_ns - _TOLERATED_NS and stored_ns >= last_stored_ns:
                self.times.clear()
                self.was_set = True
        self.times.append((sent_ns, stored_ns))

    def behind_ns(self) -> int:
        """How far the clock is behind, by the fastest of the messages; 0 until there are five,
        unless it is ahead or was set back.

        Some messages take long, which looks as if the clock were behind, but not all of them do.
        """
        least = min(stored - sent for sent, stored in self.times)
        return least if least < 0 or self.was_set or len(self.times) == _MESSAGES else 0

    def keeps_pace(self) -> bool:
        """Whether the messages were sent as they came, rather than all at once."""
        (sent, stored), (last_sent, last_stored) = self.times[0], self.times[-1]
        took = last_stored - stored
        return took >= _PACE_NS and abs(took - (last_sent - sent)) <= _PACE_NS


class Clocks:
    """Dates intervals, and logs which nodes need that."""

    def __init__(self) -> None:
        self._seen: OrderedDict[str, _Seen] = OrderedDict()
        self._throttle = Throttle()

    def dated(self, header: IntervalHeader, message: Msg) -> IntervalHeader:
        """The header of a raw message, by the clock of NATS if the node's own is wrong.

        A sender that does not say when it sends is taken to do so when the interval ends.
        """
        sent, stored = sent_ns(message.headers), stored_ns(message)
        seen = self._seen_of(header.node)
        seen.add(header.end_ns if sent is None else sent, stored)
        behind_ns = seen.behind_ns()
        if abs(behind_ns) <= _TOLERATED_NS:
            return header
        if sent is None and (behind_ns < 0 or not seen.keeps_pace()):
            return header
        self._throttle.warn(
            log,
            header.node,
            "the clock of node %s is %.0f s %s that of NATS, which dates its intervals",
            header.node,
            abs(behind_ns) / 1e9,
            "behind" if behind_ns > 0 else "ahead of",
            node=header.node,
        )
        return header.dated_by_nats(behind_ns)

    def _seen_of(self, node: str) -> _Seen:
        seen = self._seen.setdefault(node, _Seen())
        self._seen.move_to_end(node)
        if len(self._seen) > _MOST_NODES:
            self._seen.popitem(last=False)
        return seen
