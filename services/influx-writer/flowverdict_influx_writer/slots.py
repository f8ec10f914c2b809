"""Sums of ten seconds: few points at regular times, which InfluxDB stores in few bytes."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

import msgspec
import pyarrow as pa

from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.signals import SLOT_SECONDS
from flowverdict_influx_writer.points import FlowPoints, Rows, summed
from flowverdict_influx_writer.progress import Planned, Progress

__all__ = ["Slots"]

_NS = 1_000_000_000
_SUMMED_AT_ONCE = 4
_MOST_PAIRS = 200_000
"""Held in memory, 600 bytes each, counting a pair up to four times in a slot."""
_LATE_STEPS = 9_000
"""The points of late messages lie this many milliseconds after the start of their slot, at most:
some stores that speak this protocol have no finer resolution."""


@dataclass(slots=True)
class _Slot:
    """The messages of one collector in ten seconds of its own clock.

    Attributes:
        opened_ns: when NATS stored the first of them.
        first: its number.
        rows: what they count.
    """

    opened_ns: int
    first: int
    rows: list[Rows] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class _Late:
    """A message that came after its slot was written."""

    sequence: int
    stored_ns: int
    collector: str
    start: int
    rows: Rows


class Slots:
    """What has been read and is not written yet, by collector and slot.

    A slot is ten seconds of the collector's clock, and a message belongs to the one in which its
    interval ends, however long that was.

    Attributes:
        progress: how far everything is written.
    """

    def __init__(self, progress: Progress) -> None:
        self.progress = progress
        self._points = FlowPoints()
        self._open: dict[tuple[str, int], _Slot] = {}
        self._late: list[_Late] = []
        self._seen_until = progress.resume_from - 1
        self._newest_ns = 0
        self._gaps: list[tuple[int, int]] = []

    def add(
        self, sequence: int, stored_ns: int, header: IntervalHeader, batch: pa.RecordBatch
    ) -> None:
        """Add the message with this number, which NATS stored at that time, unless it is written.

        Messages come in order.
        """
        self._seen_until = max(self._seen_until, sequence)
        self._newest_ns = max(self._newest_ns, stored_ns)
        start = (header.end_ns - 1) // (SLOT_SECONDS * _NS) * SLOT_SECONDS
        is_late = start <= self.progress.written.get(header.node, start - 1)
        if is_late and sequence <= self.progress.seen_until:
            return
        rows = self._points.rows(batch)
        if is_late:
            self._late.append(_Late(sequence, stored_ns, header.node, start, rows))
            return
        slot = self._open.setdefault((header.node, start), _Slot(stored_ns, sequence))
        slot.rows.append(rows)
        if len(slot.rows) >= _SUMMED_AT_ONCE:
            slot.rows = [summed(slot.rows)]

    def lose(self, first: int, end: int) -> None:
        """The messages from `first` on, up to but without `end`, are deleted and will not come."""
        self._gaps.append((first, end))

    @property
    def lost(self) -> int:
        """How many messages that is, ever."""
        return self.progress.lost + sum(end - first for first, end in self._gaps)

    def _pairs(self) -> int:
        held = [rows for each in self._open.values() for rows in each.rows]
        held += [each.rows for each in self._late]
        return sum(len(rows.numbers) for rows in held)

    def replayed(self, sequence: int) -> Planned | None:
        """The write that was under way, once everything before message `sequence` was read again.

        None if there was none, or if something of it is still to come.
        """
        planned = self.progress.next
        return planned if planned is not None and sequence > planned.seen_until else None

    def due(self, hold_seconds: float) -> Planned | None:
        """What to write next: what has been held for that long, by the clock of NATS.

        None if there are none yet. Everything is, if too much is held, or for 0 seconds.
        """
        is_full = self._pairs() > _MOST_PAIRS or self._points.is_full
        opened_by = self._newest_ns - (0 if is_full else hold_seconds * _NS)
        closing: dict[str, int] = {}
        for (collector, start), slot in self._open.items():
            if slot.opened_ns <= opened_by:
                closing[collector] = max(start, closing.get(collector, start))
        if not closing and not (self._late and self._late[0].stored_ns <= opened_by):
            return None
        left = [slot.first for key, slot in self._open.items() if not _closes(closing, *key)]
        return Planned(min(left, default=self._seen_until + 1), self._seen_until, closing)

    def lines(self, planned: Planned) -> Iterator[list[str]]:
        """The points that lead to `planned`, as lines, by collector and slot."""
        for (collector, start), slot in self._open.items():
            if _closes(planned.closing, collector, start):
                yield self._points.lines(collector, start * _NS, summed(slot.rows))
        for late in self._late:
            # Each message in its own nanosecond, as it may be one of many of the same pair.
            rest, milliseconds = divmod(late.sequence, _LATE_STEPS)
            time_ns = late.start * _NS + (1 + milliseconds) * 1_000_000 + rest % 1_000_000
            yield self._points.lines(late.collector, time_ns, late.rows)

    def after(self, planned: Planned) -> Progress:
        """What holds once the points that lead to `planned` are stored."""
        lost = sum(end - first for first, end in self._gaps if end <= planned.resume_from)
        return msgspec.structs.replace(self.progress.after(planned), lost=self.progress.lost + lost)

    def wrote(self, planned: Planned) -> None:
        """The points that lead to `planned` are stored."""
        self.progress = self.after(planned)
        self._gaps = [each for each in self._gaps if each[1] > planned.resume_from]
        self._late.clear()
        self._open = {
            key: slot for key, slot in self._open.items() if not _closes(planned.closing, *key)
        }
        if self._points.is_full and not self._open:
            self._points.forget()


def _closes(closing: Mapping[str, int], collector: str, start: int) -> bool:
    return start <= closing.get(collector, start - 1)
