"""A metric as lines of Prometheus' text format.

prometheus.io/docs/instrumenting/exposition_formats. Written by hand, since prometheus_client takes
1.3 s for 100,000 series (`script/bench scrape`). OpenMetrics 1.0 differs in the header lines only:
bounds of buckets are written as floats in both.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowverdict_contracts.signals import Signal
from flowverdict_flows.pairs import PairRows

__all__ = ["Family", "label_text"]

_ESCAPES = str.maketrans({"\\": r"\\", '"': r"\"", "\n": r"\n"})
_UNITS = ("seconds", "bytes")
_LARGEST_COUNT = 2.0**62
_SERIES_OF_A_SUMMARY = 2


def label_text(labels: Mapping[str, str]) -> str:
    """Labels as written between braces, without empty ones, which Prometheus ignores."""
    return ",".join(
        f'{name}="{value.translate(_ESCAPES)}"' for name, value in labels.items() if value
    )


@dataclass(frozen=True, slots=True)
class Family:
    """The signals of one metric: counters that differ in a label, or one that is a reading.

    A summary is kept as a histogram with one bucket, which has all readings.

    Attributes:
        signals: what the metric consists of.
        shows_buckets: whether a histogram is shown as one; if not, as a summary.
        by_sender: whether it is the signal's metric by sender.
    """

    signals: tuple[Signal, ...]
    shows_buckets: bool = False
    by_sender: bool = False

    @property
    def _first(self) -> Signal:
        return self.signals[0]

    @property
    def name(self) -> str:
        """The metric's name, without `_total` or `_bucket`."""
        return self._first.sender_metric if self.by_sender else self._first.metric

    @property
    def sparse(self) -> bool:
        """Whether only pairs that have any are shown."""
        return self._first.sparse

    @property
    def columns(self) -> int:
        """Numbers kept for each pair: sums of counters, or buckets of readings and their sum."""
        return len(self.signals) if self._counts else len(self._first.bounds) + 2

    @property
    def _counts(self) -> bool:
        return self._first.kind == "counter"

    @property
    def series(self) -> int:
        """Series for each pair."""
        if self._counts:
            return self.columns
        return self.columns + 1 if self._is_histogram else _SERIES_OF_A_SUMMARY

    @property
    def _is_histogram(self) -> bool:
        return self._first.kind == "histogram" and self.shows_buckets

    def sums(self, rows: PairRows) -> npt.NDArray[np.float64]:
        """What a batch adds to each of its pairs: one row each, `columns` wide."""
        pairs = len(rows.numbers)
        added = np.empty((pairs, self.columns))
        if self._counts:
            for column, signal in enumerate(self.signals):
                added[:, column] = rows.sums(signal.field)
            return added
        readings = rows.values(self._first.field)
        taken = np.flatnonzero(readings)
        values, pair_of_value = readings[taken] * self._first.scale, rows.pair_of_row[taken]
        buckets = len(self._first.bounds) + 1
        # Upper bounds are inclusive (`le`).
        cells = pair_of_value * buckets + np.searchsorted(self._first.bounds, values, side="left")
        added[:, :-1] = np.bincount(cells, minlength=pairs * buckets).reshape(pairs, buckets)
        added[:, -1] = np.bincount(pair_of_value, values, pairs)
        return added

    def text(
        self, labels: Sequence[str], values: npt.NDArray[np.float64], openmetrics: bool
    ) -> str:
        """The metric's lines: a row of `values` for each of `labels`."""
        if not self._counts:
            kind = "histogram" if self._is_histogram else "summary"
            return self._head(kind, self.name, openmetrics) + self._readings(labels, values)
        named = self.name if openmetrics else f"{self.name}_total"
        lines = [self._head("counter", named, openmetrics)]
        for signal, column in zip(self.signals, values.T, strict=True):
            more = "".join(f',{name}="{value}"' for name, value in signal.labels.items())
            head, tail = f"{self.name}_total{{", f"{more}}} "
            counts: list[float] = column.clip(max=_LARGEST_COUNT).astype(np.int64).tolist()
            if signal.scale != 1:
                counts = (column / round(1 / signal.scale)).tolist()
            lines += [
                f"{head}{label}{tail}{count}\n" for label, count in zip(labels, counts, strict=True)
            ]
        return "".join(lines)

    def _head(self, kind: str, named: str, openmetrics: bool) -> str:
        unit = self.name.rpartition("_")[2]
        meaning = f"{self._first.meaning} By sender." if self.by_sender else self._first.meaning
        head = f"# HELP {named} {meaning}\n# TYPE {named} {kind}\n"
        return head + (f"# UNIT {named} {unit}\n" if openmetrics and unit in _UNITS else "")

    def _readings(self, labels: Sequence[str], values: npt.NDArray[np.float64]) -> str:
        bounds = [*map(str, map(float, self._first.bounds)), "+Inf"] if self._is_histogram else []
        template = "".join(f'{self.name}_bucket{{%s,le="{bound}"}} %d\n' for bound in bounds) + (
            f"{self.name}_count{{%s}} %d\n{self.name}_sum{{%s}} %r\n"
        )
        cumulative = np.cumsum(values[:, :-1], axis=1, dtype=np.int64).tolist()
        lines = []
        for label, counts, total in zip(labels, cumulative, values[:, -1].tolist(), strict=True):
            fields: list[str | float] = []
            for count in counts[: len(bounds)]:
                fields += (label, count)
            lines.append(template % (*fields, label, counts[-1], label, total))
        return "".join(lines)
