"""Nodes whose clock differs from that of NATS: their intervals are dated by the clock of NATS.

Otherwise what they count would be judged too late or not at all.
"""

import logging

from nats.aio.msg import Msg

from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_runtime.logs import Throttle

__all__ = ["Clocks"]

log = logging.getLogger(__name__)


class Clocks:
    """Dates intervals, and logs which nodes need that."""

    def __init__(self) -> None:
        self._throttle = Throttle()

    def dated(self, header: IntervalHeader, message: Msg) -> IntervalHeader:
        """The header of a raw message, by the clock of NATS if the node's own is wrong."""
        stored_ns = int(message.metadata.timestamp.timestamp() * 1e9)
        found = header.dated_by(message.headers, stored_ns)
        if found.clock_behind_ns:
            seconds = found.clock_behind_ns / 1e9
            self._throttle.warn(
                log,
                header.node,
                "the clock of node %s is %.0f s %s that of NATS, which dates its intervals",
                header.node,
                abs(seconds),
                "behind" if seconds > 0 else "ahead of",
                node=header.node,
            )
        return found
