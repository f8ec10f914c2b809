"""Until when each node has reported."""

import asyncio
import time

from flowverdict_contracts.interval_header import TOLERATED_SECONDS, IntervalHeader

__all__ = ["Reports"]

_TOLERATED_NS = TOLERATED_SECONDS * 1_000_000_000
_NOT_AWAITED_SECONDS = 60.0


class Reports:
    """Which intervals have been reported, by each node's own clock."""

    def __init__(self) -> None:
        # For each node, until when it has reported, and when that was heard.
        self._until_ns: dict[str, tuple[int, float]] = {}
        self._not_awaited: dict[str, float] = {}
        self._added = asyncio.Condition()

    async def add(self, header: IntervalHeader) -> None:
        """Note that a node has reported an interval, if this is the last part of it."""
        if header.part < header.parts:
            return
        now = time.monotonic()
        async with self._added:
            self._until_ns[header.node] = header.end_ns, now
            # A node that is silent for as long as this may be gone.
            gone = [n for n, (_, at) in self._until_ns.items() if at < now - TOLERATED_SECONDS]
            for node in gone:
                del self._until_ns[node]
                self._not_awaited.pop(node, None)
            self._added.notify_all()

    async def complete(self, end_ns: int, within_seconds: float) -> None:
        """Wait until all nodes have reported what they counted until `end_ns`, or for so long.

        A node that did not in that time is not waited for again for a minute.
        """
        try:
            async with asyncio.timeout(within_seconds), self._added:
                await self._added.wait_for(lambda: not self._awaited(end_ns))
        except TimeoutError:
            until = time.monotonic() + _NOT_AWAITED_SECONDS
            self._not_awaited |= dict.fromkeys(self._awaited(end_ns), until)

    def _awaited(self, end_ns: int) -> list[str]:
        now = time.monotonic()
        return [
            node
            for node, (until_ns, _) in self._until_ns.items()
            # If they are far apart, one of the two clocks is wrong.
            if end_ns - _TOLERATED_NS < until_ns < end_ns and self._not_awaited.get(node, 0.0) < now
        ]
