"""Enriched rows to sums by pair and pane, by event time.

A pane is a stretch of time of fixed length; a window is the last few panes. A pane is judged when
every node that reports has passed its end, or when a slow node has been waited for long enough.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from flowverdict_contracts.header import IntervalHeader
from flowverdict_contracts.verdicts import Coverage
from flowverdict_rca.batches import pairs_of
from flowverdict_rca.pairs import FIELDS, Endpoint, Pair, PairKey, Sums
from flowverdict_rca.settings import RcaSettings

__all__ = ["Panes", "WindowData"]

_SECOND = 1_000_000_000
_SLACK_NS = _SECOND // 2
_ACTIVE_NS = 30 * _SECOND
_KNOWN_NS = 600 * _SECOND


@dataclass(slots=True)
class _PairSums:
    sums: Sums = field(default_factory=lambda: np.zeros(len(FIELDS), np.int64))
    rtt_us: int = 0


@dataclass(slots=True)
class _Pane:
    first_sequence: int
    pairs: dict[PairKey, _PairSums] = field(default_factory=lambda: defaultdict(_PairSums))
    addresses: dict[Endpoint, set[str]] = field(default_factory=lambda: defaultdict(set))
    nodes: set[str] = field(default_factory=set)
    rows_lost: int = 0


@dataclass(frozen=True, slots=True)
class WindowData:
    """What is known of one window.

    Attributes:
        start_ns, end_ns: its time, UTC nanoseconds.
        pairs: every pair that sent something in it, as its panes, newest first.
        addresses: the addresses seen of each endpoint.
        coverage: how complete it is.
    """

    start_ns: int
    end_ns: int
    pairs: tuple[tuple[Pair, ...], ...]
    addresses: dict[Endpoint, frozenset[str]]
    coverage: Coverage


class Panes:
    """Takes enriched batches, gives windows.

    Args:
        judged_until_ns: panes up to here were judged before a restart; their rows are known.
        seen_until: stream sequence up to which messages were read before.
        too_late: those of them that came after their window was judged.
    """

    def __init__(
        self,
        settings: RcaSettings,
        judged_until_ns: int = 0,
        seen_until: int = 0,
        too_late: Iterable[int] = (),
    ) -> None:
        self._length = int(settings.pane_seconds * _SECOND)
        self._per_window = settings.window_panes
        self._lateness = int(settings.lateness_seconds * _SECOND)
        self._panes: dict[int, _Pane] = {}
        self._next = judged_until_ns // self._length if judged_until_ns else None
        self._seen_until = seen_until
        self._reached: dict[str, int] = {}
        self._rows_late = 0
        self._too_late = set(too_late)
        self._last_sequence = seen_until

    def add(self, header: IntervalHeader, batch: pa.RecordBatch, sequence: int) -> None:
        """Take the rows of one enriched message, the `sequence`-th of its stream."""
        self._last_sequence = max(self._last_sequence, sequence)
        self._reached[header.node] = max(self._reached.get(header.node, 0), header.end_ns)
        index = self._pane_of(header)
        if self._next is None:
            self._next = index
        if index < self._next and sequence > self._seen_until:
            self._rows_late += batch.num_rows
            self._too_late.add(sequence)
        if index <= self._next - self._per_window or sequence in self._too_late:
            return
        pane = self._panes.get(index)
        if pane is None:
            pane = self._panes[index] = _Pane(sequence)
        pane.first_sequence = min(pane.first_sequence, sequence)
        pane.nodes.add(header.node)
        pane.rows_lost += header.rows_lost
        _add_rows(pane, batch)

    def windows(self) -> Iterator[WindowData]:
        """The windows that are complete now, oldest first."""
        while self._next is not None and self._is_whole(self._next):
            window = self._window(self._next)
            self._next += 1
            self._rows_late = 0
            for index in [each for each in self._panes if each <= self._next - self._per_window]:
                del self._panes[index]
            self._too_late = set(self.too_late)
            yield window
            self._skip_empty()

    @property
    def judged_until_ns(self) -> int:
        """End of the last window given."""
        return (self._next or 0) * self._length

    @property
    def resume_from(self) -> int:
        """First stream sequence that a restart must read again."""
        held = [pane.first_sequence for pane in self._panes.values()]
        return min(held, default=self._last_sequence + 1)

    @property
    def too_late(self) -> tuple[int, ...]:
        """Sequences that a restart would read again and must not take."""
        return tuple(sorted(each for each in self._too_late if each >= self.resume_from))

    @property
    def last_sequence(self) -> int:
        """Last stream sequence taken."""
        return self._last_sequence

    def _pane_of(self, header: IntervalHeader) -> int:
        # A short interval belongs where most of it lies. A long one, merged while NATS was away,
        # belongs to its end: what came before is judged already.
        if header.end_ns - header.start_ns <= self._length:
            return (header.start_ns + header.end_ns) // 2 // self._length
        return (header.end_ns - 1) // self._length

    def _is_whole(self, index: int) -> bool:
        end = (index + 1) * self._length
        latest = max(self._reached.values(), default=0)
        if latest >= end + self._lateness + _SLACK_NS:
            return True
        active = [at for at in self._reached.values() if at > latest - _ACTIVE_NS]
        return bool(active) and min(active) >= end + _SLACK_NS

    def _skip_empty(self) -> None:
        """After a pause of hours, do not judge every empty pane of it."""
        assert self._next is not None
        if self._panes and min(self._panes) > self._next + 10 * self._per_window:
            self._next = min(self._panes) - self._per_window

    def _window(self, last: int) -> WindowData:
        indices = range(last, last - self._per_window, -1)
        panes = [self._panes.get(index) or _Pane(0) for index in indices]
        keys = {key for pane in panes for key in pane.pairs}
        addresses: dict[Endpoint, set[str]] = defaultdict(set)
        for pane in panes:
            for endpoint, seen in pane.addresses.items():
                addresses[endpoint] |= seen
        end = (last + 1) * self._length
        reporting = set().union(*(pane.nodes for pane in panes))
        known = {node for node, at in self._reached.items() if at > end - _KNOWN_NS}
        return WindowData(
            start_ns=end - self._per_window * self._length,
            end_ns=end,
            pairs=tuple(tuple(_pair(key, pane.pairs.get(key)) for pane in panes) for key in keys),
            addresses={endpoint: frozenset(seen) for endpoint, seen in addresses.items()},
            coverage=Coverage(
                nodes_reporting=tuple(sorted(reporting)),
                nodes_silent=tuple(sorted(known - reporting)),
                rows_lost=sum(pane.rows_lost for pane in panes),
                rows_late=self._rows_late,
            ),
        )


def _pair(key: PairKey, part: _PairSums | None) -> Pair:
    if part is None:
        return Pair(*key)
    named = dict(zip(FIELDS, part.sums.tolist(), strict=True))
    return Pair(
        src=key[0],
        dst=key[1],
        segments=sum(
            named[name]
            for name in ("data_segments_sent", "opens", "failed_opens", "syn_retransmits")
        ),
        retransmitted_segments=named["retransmitted_segments"],
        opens=named["opens"],
        failed_opens=named["failed_opens"],
        dropped=sum(count for name, count in named.items() if name.startswith("drops_")),
        rtt_us=part.rtt_us,
    )


def _add_rows(pane: _Pane, batch: pa.RecordBatch) -> None:
    for row in pairs_of(batch):
        part = pane.pairs[row.src, row.dst]
        part.sums += row.sums
        part.rtt_us = row.rtt_us or part.rtt_us
        pane.addresses[row.src].add(row.src_ip)
        pane.addresses[row.dst].add(row.dst_ip)
