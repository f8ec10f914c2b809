"""Sums by pair of addresses, and the Prometheus series they become.

One series for each pair of addresses and their names. Ports are left out, since each connection
would be a new series, and loopback, which is no network. Beyond the budget, pairs are summed in
one with `other` in every label.
"""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flowverdict_contracts.addresses import is_loopback
from flowverdict_contracts.enriched import ADDRESSES

__all__ = ["COUNTERS", "LABELS", "PairSeries"]

LABELS = (
    *ADDRESSES,
    "src_namespace",
    "src_pod",
    "src_workload",
    "src_node",
    "dst_namespace",
    "dst_pod",
    "dst_workload",
    "dst_node",
)

COUNTERS = {
    "retransmitted_segments": ("tcp_retransmissions", "TCP segments sent again."),
    "segments_sent": ("tcp_segments_sent", "TCP segments sent, retransmissions and ACKs included."),
    "data_segments_sent": (
        "tcp_data_segments_sent",
        "TCP segments with payload sent, retransmissions included.",
    ),
    "bytes_sent": ("tcp_sent_bytes", "TCP payload sent, retransmissions included."),
    "opens": ("tcp_opens", "TCP connections established."),
    "failed_opens": ("tcp_failed_opens", "TCP connection attempts that failed."),
    "resets_sent": ("tcp_resets_sent", "TCP resets sent."),
    "resets_received": ("tcp_resets_received", "TCP resets received."),
}
"""Field of an enriched row to metric name (Prometheus appends `_total`) and help text."""

OTHER = ("other",) * len(LABELS)
_FIELDS = tuple(COUNTERS)
_LOOK_SECONDS = 10.0
"""How often expired pairs are looked for: it takes a walk through all of them."""


@dataclass(slots=True)
class _Pair:
    sums: npt.NDArray[np.float64]
    touched: float


class PairSeries(Collector):
    """The sums; a collector for a `prometheus_client` registry.

    Args:
        budget: series for each metric; what comes beyond is summed as `other`.
        expire_seconds: a pair without a flow for so long is dropped.
    """

    def __init__(self, budget: int, expire_seconds: float) -> None:
        self._budget = budget
        self._expire = expire_seconds
        self._pairs: dict[tuple[str, ...], _Pair] = {}
        self._overflowed = 0
        self._next_look = 0.0
        self._lock = threading.Lock()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of an enriched batch."""
        if not batch.num_rows:
            return
        keys, sums = _by_pair(batch)
        now = time.monotonic()
        with self._lock:
            for key, row in zip(keys, sums, strict=True):
                if is_loopback(key[0]):
                    continue
                pair = self._pairs.get(key)
                if pair is None:
                    pair = self._make(key, now)
                pair.sums += row
                pair.touched = now

    def _make(self, key: tuple[str, ...], now: float) -> _Pair:
        if len(self._pairs) >= self._budget:
            self._drop_expired(now)
        if len(self._pairs) >= self._budget and key != OTHER:
            self._overflowed += 1
            return self._pairs.get(OTHER) or self._make(OTHER, now)
        pair = self._pairs[key] = _Pair(np.zeros(len(_FIELDS)), now)
        return pair

    def _drop_expired(self, now: float) -> None:
        if now < self._next_look:
            return
        self._next_look = now + _LOOK_SECONDS
        for key, pair in list(self._pairs.items()):
            if now - pair.touched > self._expire:
                del self._pairs[key]

    def collect(self) -> Iterator[Metric]:
        """The metrics, for a scrape."""
        with self._lock:
            self._drop_expired(time.monotonic())
            pairs = [(key, pair.sums.tolist()) for key, pair in self._pairs.items()]
            overflowed = self._overflowed
        for position, (name, meaning) in enumerate(COUNTERS.values()):
            family = CounterMetricFamily(name, meaning, labels=LABELS)
            for key, sums in pairs:
                family.add_metric(key, sums[position])
            yield family
        series = GaugeMetricFamily("flowverdict_exporter_pairs", "Pairs with series now.")
        series.add_metric([], len(pairs))
        yield series
        overflow = CounterMetricFamily(
            "flowverdict_exporter_overflow", "Pair updates summed as other, the budget being spent."
        )
        overflow.add_metric([], overflowed)
        yield overflow


def _by_pair(
    batch: pa.RecordBatch,
) -> tuple[list[tuple[str, ...]], npt.NDArray[np.float64]]:
    """Label values of each distinct pair, and its sums, columns in the order of `COUNTERS`."""
    columns = [
        (batch.column(label).indices.to_numpy(), batch.column(label).dictionary.to_pylist())
        for label in LABELS
    ]
    # The names follow from the addresses: within one message an address has one owner.
    sources, targets = columns[0][0], columns[1][0]
    codes = sources.astype(np.int64) * (len(columns[1][1]) + 1) + targets
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    keys = [tuple(values[indices[row]] for indices, values in columns) for row in first]
    sums = np.empty((len(first), len(_FIELDS)))
    for position, field in enumerate(_FIELDS):
        sums[:, position] = np.bincount(
            inverse, weights=batch.column(field).to_numpy(), minlength=len(first)
        )
    return keys, sums
