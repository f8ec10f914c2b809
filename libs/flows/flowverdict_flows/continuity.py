"""Which messages of a node never came."""

import math
import time
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass, field

from flowverdict_contracts.interval_header import IntervalHeader

__all__ = ["Continuity", "KnownRun"]

_PATIENCE_SECONDS = 60.0
"""A message may be late: NATS delivers it again half a minute after its reader was killed."""
_LOOK_SECONDS = 1.0
_RUNS_KEPT = 20_000
_GAPS_KEPT = 1000


@dataclass(slots=True)
class _Gap:
    """Messages that are missing: from `first` on, up to but without `end`."""

    first: int
    end: int
    noticed: float


@dataclass(slots=True)
class _Run:
    newest: int
    gaps: list[_Gap] = field(default_factory=list)

    def take(self, sequence: int, now: float) -> None:
        """Note that this message has come."""
        if sequence > self.newest:
            if sequence > self.newest + 1:
                self.gaps.append(_Gap(self.newest + 1, sequence, now))
            self.newest = sequence
            return
        for at, gap in enumerate(self.gaps):
            if gap.first <= sequence < gap.end:
                parts = (
                    _Gap(gap.first, sequence, gap.noticed),
                    _Gap(sequence + 1, gap.end, gap.noticed),
                )
                self.gaps[at : at + 1] = [each for each in parts if each.first < each.end]
                return

    def give_up(self, now: float) -> int:
        """Forget what has been missing for too long; returns how many messages that is."""
        lost = 0
        while self.gaps and (
            now - self.gaps[0].noticed >= _PATIENCE_SECONDS or len(self.gaps) > _GAPS_KEPT
        ):
            gap = self.gaps.pop(0)
            lost += gap.end - gap.first
        return lost


@dataclass(frozen=True, slots=True)
class KnownRun:
    """What has come of a collector's run.

    Attributes:
        node: the collector's.
        run_id: the run's.
        newest: highest sequence number that has come.
        gaps: which are missing below it: the first of them, the next one that has come, and for
            how many seconds that has been known.
    """

    node: str
    run_id: str
    newest: int
    gaps: tuple[tuple[int, int, float], ...]


class Continuity:
    """Follows the sequence numbers of each node's messages.

    A message is lost if it has not come a minute after a later one of its run did: a stream has
    evicted it, a store was lost, or a service could not read it. Of a node that is new here nothing
    is missed before its first message; a run that begins later begins at one. What is overdue is
    looked for once a second at most, and only while messages come, of whichever node: if none do,
    those that are missing may still be on their way.
    """

    def __init__(self, runs: Iterable[KnownRun] = ()) -> None:
        """Go on from what `runs` returned, or follow every node anew."""
        now = time.monotonic()
        self._runs = OrderedDict(
            (
                (each.node, each.run_id),
                _Run(each.newest, [_Gap(first, end, now - age) for first, end, age in each.gaps]),
            )
            for each in runs
        )
        # Since when each node is heard, by its own clock.
        self._nodes: OrderedDict[str, int] = OrderedDict((node, 0) for node, _ in self._runs)
        self._with_gaps: dict[str, set[str]] = {}
        self._looked = -math.inf
        for (node, run_id), run in self._runs.items():
            if run.gaps:
                self._with_gaps.setdefault(node, set()).add(run_id)

    def runs(self) -> list[KnownRun]:
        """What is known of each run, the longest silent first."""
        now = time.monotonic()
        return [
            KnownRun(
                node,
                run_id,
                run.newest,
                tuple((gap.first, gap.end, now - gap.noticed) for gap in run.gaps),
            )
            for (node, run_id), run in self._runs.items()
        ]

    def add(self, header: IntervalHeader, now: float | None = None) -> dict[str, int]:
        """Take note of a message; returns by node how many others are now known to be lost.

        Args:
            header: the message's.
            now: on a monotonic clock, in seconds.
        """
        now = time.monotonic() if now is None else now
        node, key = header.node, (header.node, header.run_id)
        run = self._runs.get(key)
        heard_since = self._nodes.setdefault(node, header.start_ns)
        if run is None:
            length = header.end_ns - header.start_ns
            began_before = header.start_ns - (header.sequence - 1) * length < heard_since
            run = self._runs[key] = _Run(header.sequence - 1 if began_before else 0)
        self._runs.move_to_end(key)
        self._nodes.move_to_end(node)
        run.take(header.sequence, now)
        if run.gaps:
            self._with_gaps.setdefault(node, set()).add(header.run_id)
        self._forget()
        if now - self._looked < _LOOK_SECONDS:
            return {}
        self._looked = now
        lost = {each: self._give_up(each, now) for each in tuple(self._with_gaps)}
        return {each: messages for each, messages in lost.items() if messages}

    def _give_up(self, node: str, now: float) -> int:
        """How many messages have been missing too long in any run of a node."""
        lost = 0
        for run_id in tuple(self._with_gaps[node]):
            run = self._runs.get((node, run_id))
            lost += run.give_up(now) if run else 0
            if run is None or not run.gaps:
                self._with_gaps[node].discard(run_id)
        if not self._with_gaps[node]:
            del self._with_gaps[node]
        return lost

    def _forget(self) -> None:
        while len(self._runs) > _RUNS_KEPT:
            (node, run_id), _ = self._runs.popitem(last=False)
            self._with_gaps.get(node, set()).discard(run_id)
        while len(self._nodes) > _RUNS_KEPT:
            node, _ = self._nodes.popitem(last=False)
            self._with_gaps.pop(node, None)
