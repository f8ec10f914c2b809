"""Sums by pair of addresses, and the metrics they become.

Each metric has a budget of series. Pairs are numbered as they come, the smallest free number first,
and those beyond a metric's budget are summed in one with `other` in every label.
"""

import threading
import time
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.pairs import NO_PAIR, Pairs
from flowverdict_contracts.signals import METRICS, PAIR_LABELS
from flowverdict_exporter.text import Family, label_text

__all__ = ["FAMILIES", "PairSeries"]

_OTHER = label_text(dict.fromkeys(PAIR_LABELS, "other"))
_LOOK_SECONDS = 10.0
"""How often expired pairs are looked for: it takes a walk through all of them."""

_Floats = npt.NDArray[np.float64]


FAMILIES = tuple(Family(signals) for signals in METRICS.values())
"""The metrics of pairs."""


@dataclass(slots=True)
class _Sums:
    """A metric's sums: a row for each pair's number, a column for each of its values."""

    family: Family
    pairs: int
    values: _Floats
    overflows: int = 0

    def add(self, numbers: npt.NDArray[np.int64], added: _Floats) -> None:
        inside = (numbers != NO_PAIR) & (numbers <= self.pairs)
        own = numbers[inside]
        if own.size:
            most = int(own.max())
            if most >= len(self.values):
                room = min(self.pairs + 1, 2 * most + 1)
                grown = np.zeros((room, self.values.shape[1]))
                grown[: len(self.values)] = self.values
                self.values = grown
            self.values[own] += added[inside]
        if own.size < numbers.size:
            self.values[NO_PAIR] += added[~inside].sum(axis=0)
            self.overflows += numbers.size - own.size


class PairSeries:
    """The sums and their text.

    Args:
        budget: series of each metric; pairs beyond it are summed as `other`.
        expire_seconds: a pair without a flow for so long is dropped.
    """

    def __init__(self, budget: int, expire_seconds: float) -> None:
        self._expire = expire_seconds
        self._sums = [
            _Sums(family, max(1, budget // family.series), np.zeros((1, family.columns)))
            for family in FAMILIES
        ]
        room = max(each.pairs for each in self._sums)
        self._pairs = Pairs(room)
        self._touched = np.zeros(room + 1)
        self._labels: dict[int, str] = {NO_PAIR: _OTHER}
        self._next_look = 0.0
        self._lock = threading.Lock()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of an enriched batch."""
        now = time.monotonic()
        with self._lock:
            self._drop_expired(now)
            numbers, rows, inverse = self._pairs.of(batch)
            self._touched[numbers] = now
            for sums in self._sums:
                sums.add(numbers, sums.family.sums(batch, rows, inverse, len(numbers)))

    def _drop_expired(self, now: float) -> None:
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        numbers = self._pairs.numbers()
        gone = numbers[now - self._touched[numbers] > self._expire]
        if not gone.size:
            return
        for sums in self._sums:
            sums.values[gone[gone < len(sums.values)]] = 0
        for number in gone.tolist():
            self._labels.pop(number, None)
        self._pairs.forget(gone)

    def text(self, openmetrics: bool) -> str:
        """The metrics in Prometheus' text format, or in OpenMetrics without its last line."""
        with self._lock:
            self._drop_expired(time.monotonic())
            numbers = self._pairs.numbers()
            labels = [self._label(number) for number in numbers.tolist()]
            parts = []
            for sums in self._sums:
                shown = int(np.searchsorted(numbers, sums.pairs, side="right"))
                values = sums.values[numbers[:shown]]
                texts = labels[:shown]
                if sums.overflows:
                    values = np.vstack([values, sums.values[NO_PAIR]])
                    texts = [*texts, _OTHER]
                parts.append((sums.family, texts, values))
            overflows = [(sums.family.name, sums.overflows) for sums in self._sums]
        pages = [family.text(texts, values, openmetrics) for family, texts, values in parts]
        return "".join([*pages, _own_metrics(len(numbers), overflows, openmetrics)])

    def _label(self, number: int) -> str:
        text = self._labels.get(number)
        if text is None:
            pairs = dict(zip(PAIR_LABELS, self._pairs.labels(number), strict=True))
            text = self._labels[number] = label_text(pairs)
        return text


def _own_metrics(pairs: int, overflows: list[tuple[str, int]], openmetrics: bool) -> str:
    counter = "flowverdict_exporter_series_overflow"
    named = counter if openmetrics else f"{counter}_total"
    lines = [
        "# HELP flowverdict_exporter_pairs Pairs of addresses that have series now.",
        "# TYPE flowverdict_exporter_pairs gauge",
        f"flowverdict_exporter_pairs {pairs}",
        f"# HELP {named} Pairs of a message that were summed as other, the budget being spent.",
        f"# TYPE {named} counter",
        *(f'{counter}_total{{metric="{metric}"}} {count}' for metric, count in overflows),
    ]
    return "\n".join(lines) + "\n"
