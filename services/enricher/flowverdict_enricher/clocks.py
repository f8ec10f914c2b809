"""Nodes whose clock differs from that of NATS: their intervals are dated by the clock of NATS.

Otherwise what they count would be judged too late or not at all.
"""

import logging
from collections import OrderedDict, deque

from nats.aio.msg import Msg

from flowverdict_contracts.interval_header import TOLERATED_SECONDS, IntervalHeader, sent_ns
from flowverdict_runtime.logs import Throttle
from flowverdict_runtime.stored_messages import stored_ns

__all__ = ["Clocks"]

log = logging.getLogger(__name__)

_TOLERATED_NS = TOLERATED_SECONDS * 1_000_000_000
_MESSAGES = 5
_MOST_NODES = 10_000


class Clocks:
    """Dates intervals, and logs which nodes need that."""

    def __init__(self) -> None:
        self._behind_ns: OrderedDict[str, deque[int]] = OrderedDict()
        self._throttle = Throttle()

    def dated(self, header: IntervalHeader, message: Msg) -> IntervalHeader:
        """The header of a raw message, by the clock of NATS if the node's own is wrong."""
        sent = sent_ns(message.headers)
        if sent is None:
            return header
        behind_ns = self._seen(header.node, stored_ns(message) - sent)
        if abs(behind_ns) <= _TOLERATED_NS:
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

    def _seen(self, node: str, behind_ns: int) -> int:
        """How far the node's clock is behind, by its last messages; 0 until there are five,
        unless it is ahead.

        Some messages take long, which looks as if the clock were behind, but not all of them do.
        """
        last = self._behind_ns.setdefault(node, deque(maxlen=_MESSAGES))
        self._behind_ns.move_to_end(node)
        if len(self._behind_ns) > _MOST_NODES:
            self._behind_ns.popitem(last=False)
        last.append(behind_ns)
        least = min(last)
        return least if least < 0 or len(last) == _MESSAGES else 0
