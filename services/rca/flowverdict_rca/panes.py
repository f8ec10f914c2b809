"""Groups enriched rows into windows by event time.

A pane is a fixed length of time; a window is the last few panes. A pane is judged once every node
that reports has passed its end, or a slow node has been waited for long enough. A long window is
three windows that follow on each other; long windows do not overlap.
"""

import logging
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.verdicts import MOST_NAMED, Coverage, NodeLosses
from flowverdict_flows.continuity import Continuity, KnownRun
from flowverdict_flows.endpoint import Endpoint
from flowverdict_flows.pairs import EndpointPairs, Numbers
from flowverdict_rca.answered import add_answered_attempts
from flowverdict_rca.drop_reasons import drop_reasons
from flowverdict_rca.facts import NO_READY_ENDPOINTS, Facts
from flowverdict_rca.failed_names import failed_names
from flowverdict_rca.kernel_logs import KernelLogs
from flowverdict_rca.late import count_late
from flowverdict_rca.nodes import KNOWN_NS, Nodes
from flowverdict_rca.pane import Pane
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.unready import UnreadyServices
from flowverdict_rca.window import COUNTS, Window

__all__ = ["Panes"]

log = logging.getLogger(__name__)

_SECOND = 1_000_000_000
_LONG_BEFORE_NS = 60 * _SECOND
_FOR_LONG_NS = 30 * _SECOND
_SPARE_PAIRS = 1000
_THIRDS = 3
_MOST = 1 << 53
_MOST_RUNS = 2000


class Panes:
    """Collects enriched batches into windows.

    Args:
        watermark_ns: panes up to here were judged before a restart; if their rows are read
            again, they are not late.
        seen_until: stream sequence up to which messages were read before.
        too_late: those of them that arrived after their window was judged.
        heard, gaps: as they were before a restart, so that a silent node stays one.
    """

    def __init__(
        self,
        settings: RcaSettings,
        watermark_ns: int = 0,
        seen_until: int = 0,
        too_late: Iterable[int] = (),
        *,
        heard: Mapping[str, int] | None = None,
        gaps: Mapping[str, tuple[int, int]] | None = None,
    ) -> None:
        self._settings = settings
        self._length = int(settings.pane_seconds * _SECOND)
        self._per_window = settings.window_panes
        self._pairs = EndpointPairs()
        self._panes: dict[int, Pane] = {}
        self._thirds: dict[int, Pane] = {}  # of long windows, each as long as a window
        self._long_window: Window | None = None
        self._next = watermark_ns // self._length if watermark_ns else None
        self._seen_until = seen_until
        self._nodes = Nodes(settings, heard, gaps)
        self._unready = UnreadyServices(self._per_window * self._length)
        # For each service its pods by name, as they were last seen, and when: labels can change.
        self._backends: dict[Endpoint, dict[str, tuple[Endpoint, int]]] = {}
        self._kernel_logs = KernelLogs()
        self._rows_late = 0
        self._continuity = Continuity()
        self._lost_messages: Counter[str] = Counter()
        self._only_late_since_ns: int | None = None
        self._too_late = set(too_late)
        self._last_sequence = seen_until

    def follow(self, runs: Iterable[KnownRun]) -> None:
        """Go on from what had come of each collector's run before a restart."""
        self._continuity = Continuity(runs)

    def add(
        self, header: IntervalHeader, batch: pa.RecordBatch, sequence: int, stored_ns: int = 0
    ) -> None:
        """Add the rows of one enriched message.

        Args:
            header, batch: what it says.
            sequence: its position in the stream.
            stored_ns: when the stream stored it; as the interval ended, if it is not given.
        """
        self._last_sequence = max(self._last_sequence, sequence)
        if sequence > self._seen_until and self._is_past(header, stored_ns or header.end_ns):
            self._begin_anew(self._pane_of(header))
        is_gap = self._nodes.add(header, stored_ns)
        self._lost_messages.update(self._continuity.add(header))
        self._kernel_logs.add(header)
        panes = self._panes_for(header, batch.num_rows, sequence)
        if not panes:
            return
        rows = self._pairs.group(batch)
        rtt_us = rows.largest("rtt_us")
        variation_us = rows.largest("rtt_variation_us")
        interval_us = (header.end_ns - header.start_ns) // 1000
        answering_us = rows.samples("answers") * interval_us
        calls = rows.having("role", "client") - rows.having("role", "server")
        readings = [rtt_us, variation_us, rtt_us > 0, answering_us, calls]
        counts = np.column_stack([rows.table(COUNTS), *readings])
        names, reasons = failed_names(rows), drop_reasons(rows)
        lost_messages, self._lost_messages = self._lost_messages, Counter()
        for pane in panes:
            pane.first_sequence = min(pane.first_sequence, sequence)
            pane.add(header, rows.numbers, counts, self._pairs.seen)
            pane.lose(lost_messages)
            pane.explain(names, reasons)
            if is_gap:
                pane.caught_up[header.node] = header.start_ns
        for each in self._pairs.seen:
            if each.service:
                service = Endpoint("service", each.endpoint.namespace, each.service)
                pods = self._backends.setdefault(service, {})
                pods[str(each.endpoint)] = each.endpoint, header.end_ns

    def _is_past(self, header: IntervalHeader, stored_ns: int) -> bool:
        """Whether nothing but what is long before the windows judged has come for half a minute."""
        if header.end_ns > self.watermark_ns - _LONG_BEFORE_NS:
            self._only_late_since_ns = None
            return False
        if self._only_late_since_ns is None:
            self._only_late_since_ns = stored_ns
        return stored_ns - self._only_late_since_ns >= _FOR_LONG_NS

    def _begin_anew(self, index: int) -> None:
        """Judge from this pane on: the clocks were ahead before, and are right now."""
        seconds = self.watermark_ns // _SECOND - index * self._length // _SECOND
        log.warning(
            "all rows are %d s before what was judged, as after clocks were set back: "
            "judging begins anew",
            seconds,
        )
        self._next = index
        self._panes.clear()
        self._thirds.clear()
        self._backends.clear()
        self._too_late.clear()
        self._only_late_since_ns = None
        self._nodes = Nodes(self._settings)
        self._unready = UnreadyServices(self._per_window * self._length)

    def _panes_for(self, header: IntervalHeader, rows: int, sequence: int) -> list[Pane]:
        """The panes that an interval's rows belong to; none if all were judged without them."""
        index = self._pane_of(header)
        if self._next is None:
            self._next = index
        is_late = index < self._next and sequence > self._seen_until
        count_late(header, rows if is_late else 0, self.watermark_ns)
        if is_late:
            self._rows_late += rows
            self._too_late.add(sequence)
        third = index // self._per_window
        panes = []
        if index > self._next - self._per_window and sequence not in self._too_late:
            panes.append(_at(self._panes, index, sequence))
        if third >= self._first_third:
            panes.append(_at(self._thirds, third, sequence))
        return panes

    def windows(self) -> Iterator[Window]:
        """The windows that are complete now, oldest first."""
        while self._next is not None and self._nodes.have_passed((self._next + 1) * self._length):
            window = self._window(self._next)
            self._next += 1
            self._rows_late = 0
            self._long_window = self._complete_long_window()
            for index in [each for each in self._panes if each <= self._next - self._per_window]:
                del self._panes[index]
            for index in [each for each in self._thirds if each < self._first_third]:
                del self._thirds[index]
            self._too_late = set(self.too_late)
            self._forget_pairs()
            yield window
            self._skip_empty()

    @property
    def long_window(self) -> Window | None:
        """The long window that ends where the last window yielded does, if one does.

        Its `panes` are its thirds, the newest first. Its conditions are those that were reported at
        any time in it; nodes that could not be heard for a part of it count as recovering.
        """
        return self._long_window

    @property
    def watermark_ns(self) -> int:
        """End of the last window yielded."""
        return (self._next or 0) * self._length

    @property
    def resume_from(self) -> int:
        """First stream sequence that a restart must read again."""
        held = [pane.first_sequence for pane in (*self._panes.values(), *self._thirds.values())]
        return min(held, default=self._last_sequence + 1)

    @property
    def judged_until(self) -> int:
        """First sequence that the next windows need; long ones may need earlier ones."""
        held = [pane.first_sequence for pane in self._panes.values()]
        return min(held, default=self._last_sequence + 1)

    @property
    def too_late(self) -> tuple[int, ...]:
        """Sequences that a restart would read again and must skip."""
        return tuple(sorted(each for each in self._too_late if each >= self.resume_from))

    @property
    def heard(self) -> dict[str, int]:
        """To be given to the next worker."""
        return self._nodes.heard(self.watermark_ns)

    @property
    def gaps(self) -> dict[str, tuple[int, int]]:
        """To be given to the next worker."""
        return self._nodes.gaps(self.watermark_ns)

    @property
    def runs(self) -> tuple[KnownRun, ...]:
        """To be given to the next worker: those heard last."""
        return tuple(self._continuity.runs()[-_MOST_RUNS:])

    @property
    def last_sequence(self) -> int:
        """Last stream sequence read."""
        return self._last_sequence

    def _pane_of(self, header: IntervalHeader) -> int:
        # A short interval belongs to the pane that contains most of it. A long one, merged while
        # NATS was unavailable, belongs to the pane it ends in: earlier panes are already judged.
        if header.end_ns - header.start_ns <= self._length:
            return (header.start_ns + header.end_ns) // 2 // self._length
        return (header.end_ns - 1) // self._length

    def _skip_empty(self) -> None:
        """After a gap of hours, do not judge every empty pane in it."""
        assert self._next is not None
        if self._panes and min(self._panes) > self._next + 10 * self._per_window:
            self._next = min(self._panes) - self._per_window

    def _forget_pairs(self) -> None:
        """Free the numbers of pairs that are in no pane any more, once there are many."""
        none, panes = np.empty(0, np.int64), (*self._panes.values(), *self._thirds.values())
        held = np.unique(np.concatenate([none, *(each.numbers for each in panes)]))
        if len(self._pairs) > 2 * len(held) + _SPARE_PAIRS:
            self._pairs.forget(np.setdiff1d(self._pairs.numbers(), held))

    def _window(self, last: int) -> Window:
        indices = range(last, last - self._per_window, -1)
        panes = [self._panes.get(index) or Pane(0) for index in indices]
        end = (last + 1) * self._length
        start = end - self._per_window * self._length
        return self._window_of(panes, start, end, self._facts(panes, end))

    @property
    def _first_third(self) -> int:
        """The first third of the long window that the next pane belongs to."""
        assert self._next is not None
        return self._next // (_THIRDS * self._per_window) * _THIRDS

    def _complete_long_window(self) -> Window | None:
        assert self._next is not None
        if self._next % (_THIRDS * self._per_window):
            return None
        last = self._next // self._per_window - 1
        panes = [self._thirds.get(last - number) or Pane(0) for number in range(_THIRDS)]
        end = self._next * self._length
        gaps = {node for pane in panes for node in pane.caught_up}
        facts = Facts(
            conditions={end: text for pane in panes for end, text in pane.unsettled().items()},
            backends=self._known_backends(end),
            candidates=_candidates(panes),
            kernel_log=self._kernel_logs.lately(end),
            recovering=frozenset(gaps | set(self._nodes.recovering(end))),
        )
        start = end - _THIRDS * self._per_window * self._length
        return self._window_of(panes, start, end, facts)

    def _window_of(self, panes: Sequence[Pane], start_ns: int, end_ns: int, facts: Facts) -> Window:
        numbers = np.unique(np.concatenate([pane.numbers for pane in panes]))
        counts = np.stack([pane.counts(numbers) for pane in panes])
        readings = counts[:, :, len(COUNTS) :].sum(axis=0).T
        rtt_us, variation_us, samples, answering_us, calls = readings
        endpoints, src, dst = self._pairs.ends(numbers)
        add_answered_attempts(counts, endpoints, src, dst, facts.backends)
        reporting = set().union(*(pane.nodes for pane in panes))
        late = set().union(*(pane.nodes_late for pane in panes)) | self._nodes.late(start_ns)
        silent = set(self._nodes.heard(end_ns)) - reporting - late
        addresses = [pane.addresses() for pane in panes]
        return Window(
            start_ns=start_ns,
            end_ns=end_ns,
            endpoints=endpoints,
            src=src,
            dst=dst,
            panes=counts[:, :, : len(COUNTS)],
            rtt_us=rtt_us // np.maximum(samples, 1),
            rtt_variation_us=variation_us // np.maximum(samples, 1),
            rtt_samples=samples,
            answering_us=answering_us,
            calls=calls,
            addresses={
                each: frozenset().union(*(of_pane.get(each, ()) for of_pane in addresses))
                for each in endpoints
            },
            coverage=Coverage(
                nodes_reporting=tuple(sorted(reporting)),
                nodes_silent=tuple(sorted(silent)),
                nodes_late=tuple(sorted(late)),
                rows_late=self._rows_late,
                **_losses(panes),
            ),
            facts=facts,
            dropped=_by_position(numbers, [pane.dropped for pane in panes]),
            drop_reasons=_by_position(numbers, [pane.drop_reasons for pane in panes]),
            failed_names=_by_position(numbers, [pane.failed_names for pane in panes]),
        )

    def _facts(self, panes: Sequence[Pane], end_ns: int) -> Facts:
        """What the cluster knows about the window of these panes, the newest first."""
        self._unready.add(panes[0].conditions(), end_ns - self._length, end_ns)
        conditions = dict.fromkeys(self._unready.lately(), NO_READY_ENDPOINTS)
        caught_up: dict[str, int] = {}
        for pane in reversed(panes):
            # A flow may have failed because of a condition that has ended since.
            conditions |= {each: text for each, text in pane.conditions().items() if text}
            caught_up |= pane.caught_up
        return Facts(
            conditions=conditions,
            briefly_unready=self._unready.brief(),
            backends=self._known_backends(end_ns),
            candidates=_candidates(panes),
            kernel_log=self._kernel_logs.lately(end_ns),
            silent=self._nodes.silent(end_ns, caught_up),
            recovering=frozenset(self._nodes.recovering(end_ns)),
        )

    def _known_backends(self, end_ns: int) -> dict[Endpoint, frozenset[Endpoint]]:
        """The pods of each service that have been seen lately; the others are forgotten."""
        for service, pods in list(self._backends.items()):
            kept = {name: seen for name, seen in pods.items() if seen[1] > end_ns - KNOWN_NS}
            if kept:
                self._backends[service] = kept
            else:
                del self._backends[service]
        return {
            service: frozenset(pod for pod, _ in pods.values())
            for service, pods in self._backends.items()
        }


def _losses(panes: Sequence[Pane]) -> dict[str, Any]:
    """The coverage's losses, of all nodes and by node."""
    by_node: dict[str, Counter[str]] = {}
    for pane in panes:
        for node, lost in pane.losses.items():
            by_node.setdefault(node, Counter()).update(lost)
    names = [name for name in NodeLosses.__struct_fields__ if name != "node"]
    worst = sorted(by_node.items(), key=lambda each: (-each[1].total(), each[0]))
    return {
        **{name: min(sum(lost[name] for lost in by_node.values()), _MOST) for name in names},
        "by_node": tuple(
            NodeLosses(node=node, **{name: min(lost[name], _MOST) for name in names})
            for node, lost in worst[:MOST_NAMED]
        ),
    }


def _candidates(panes: Sequence[Pane]) -> dict[Endpoint, tuple[str, ...]]:
    return {node: pods for pane in reversed(panes) for node, pods in pane.candidates().items()}


def _at(panes: dict[int, Pane], index: int, sequence: int) -> Pane:
    """The pane with this index, begun with this message if there is none yet."""
    if index not in panes:
        panes[index] = Pane(sequence)
    return panes[index]


def _by_position(
    numbers: Numbers, of_panes: Iterable[Mapping[int, Counter[str]]]
) -> dict[int, Counter[str]]:
    """What panes have by pair number, added up by the pairs' positions in `numbers`."""
    found: dict[int, Counter[str]] = {}
    for of_pane in of_panes:
        for number, counts in of_pane.items():
            found.setdefault(int(np.searchsorted(numbers, number)), Counter()).update(counts)
    return found
