"""Sums by pair of addresses and by sender, and the metrics they become.

A histogram has a series for each bucket, so how readings are distributed is shown by sender; by
pair, only if that is asked for. Pairs with an address that has no name take half of the smallest
budget of a metric that is not rare; beyond that, all of a pod's that are sent one way are one, with
`other` for the address.
"""

import threading
from collections.abc import Sequence
from dataclasses import replace

import pyarrow as pa

from flowverdict_contracts.signals import METRICS, PAIR_LABELS, SENDER_LABELS
from flowverdict_exporter.family import Family
from flowverdict_exporter.sums import KeptSums, Sums
from flowverdict_flows.pairs import LabelledPairs, LabelledSenders

__all__ = ["PairSeries", "families_by_pair"]


def families_by_pair(*, histograms: bool) -> list[Family]:
    """The metrics of pairs.

    Args:
        histograms: whether to show how readings are distributed.
    """
    return [Family(signals, shows_buckets=histograms) for signals in METRICS.values()]


_BY_SENDER = [
    Family(signals, shows_buckets=True, by_sender=True)
    for signals in METRICS.values()
    if signals[0].sender_metric
]


class PairSeries:
    """The sums and their text.

    Args:
        budget: series per metric; pairs and senders beyond it are summed as `other`.
        expire_seconds: a pair without a flow for this long is dropped.
        histograms: whether to show by pair how readings are distributed.
    """

    def __init__(self, budget: int, expire_seconds: float, *, histograms: bool = False) -> None:
        def by_pair(room: int, room_everywhere: int) -> LabelledPairs:
            # The first numbers have a place in every family, so half of those are for names.
            return LabelledPairs(room, room_everywhere // 2)

        families = families_by_pair(histograms=histograms)
        self._by_pair = Sums(families, budget, expire_seconds, by_pair, PAIR_LABELS)
        self._by_sender = Sums(
            _BY_SENDER, budget, expire_seconds, lambda room, _: LabelledSenders(room), SENDER_LABELS
        )
        self._lock = threading.Lock()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of an enriched batch."""
        with self._lock:
            self._by_pair.add(batch)
            self._by_sender.add(batch)

    def kept(self) -> KeptSums:
        """All sums, to go on from."""
        with self._lock:
            return replace(self._by_pair.kept(), by_sender=self._by_sender.kept())

    def restore(self, kept: KeptSums) -> None:
        """Go on from there. A metric that the version which kept it did not have begins at zero, a
        label that it did not have is empty.

        Raises:
            ValueError: if another version kept it, whose labels or columns were others; then
                nothing has changed.
        """
        with self._lock:
            restoring = [self._by_pair.checked(kept)]
            if kept.by_sender is not None:
                restoring.append(self._by_sender.checked(kept.by_sender))
            for go_on in restoring:
                go_on()

    def text(self, openmetrics: bool) -> str:
        """The metrics in Prometheus' text format, or in OpenMetrics without its last line."""
        with self._lock:
            shown = [*self._by_pair.shown(), *self._by_sender.shown()]
            pairs = len(self._by_pair)
            overflows = [*self._by_pair.overflows, *self._by_sender.overflows]
        pages = [family.text(texts, values, openmetrics) for family, texts, values in shown]
        return "".join([*pages, _own_metrics(pairs, overflows, openmetrics)])


def _own_metrics(pairs: int, overflows: Sequence[tuple[str, int]], openmetrics: bool) -> str:
    counter = "flowverdict_exporter_series_overflow"
    named = counter if openmetrics else f"{counter}_total"
    lines = [
        "# HELP flowverdict_exporter_pairs Address pairs that currently have series.",
        "# TYPE flowverdict_exporter_pairs gauge",
        f"flowverdict_exporter_pairs {pairs}",
        f"# HELP {named} Pairs and senders summed as other because the budget was used up.",
        f"# TYPE {named} counter",
        *(f'{counter}_total{{metric="{metric}"}} {count}' for metric, count in overflows),
    ]
    return "\n".join(lines) + "\n"
