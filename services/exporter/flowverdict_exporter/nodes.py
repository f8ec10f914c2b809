"""What came from each node: when last, and how much its kernel had no room for."""

import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flowverdict_contracts.header import IntervalHeader

__all__ = ["Nodes"]


@dataclass(slots=True)
class _Node:
    last_interval_seconds: float = 0.0
    rows_lost: int = 0
    heard: float = 0.0


_EXPIRE_SECONDS = 86400.0
"""A node of which nothing came for a day was removed; until then its silence is to be seen."""

_MOST = 10_000


class Nodes(Collector):
    """The nodes heard of, ten thousand at most; a collector for a `prometheus_client` registry."""

    def __init__(self) -> None:
        self._nodes: dict[str, _Node] = {}
        self._lock = threading.Lock()

    def add(self, header: IntervalHeader) -> None:
        """A message of a node was handled."""
        with self._lock:
            if header.node not in self._nodes and len(self._nodes) >= _MOST:
                return
            node = self._nodes.setdefault(header.node, _Node())
            ended = min(header.end_ns / 1e9, time.time())
            node.last_interval_seconds = max(node.last_interval_seconds, ended)
            node.rows_lost += header.rows_lost
            node.heard = time.monotonic()

    def collect(self) -> Iterator[Metric]:
        """The metrics, for a scrape."""
        last = GaugeMetricFamily(
            "flowverdict_node_last_interval_timestamp_seconds",
            "End of the last interval that came from a node's collector, as a Unix time.",
            labels=["node"],
        )
        lost = CounterMetricFamily(
            "flowverdict_rows_lost", "Flow updates that a node's kernel lost.", labels=["node"]
        )
        oldest = time.monotonic() - _EXPIRE_SECONDS
        with self._lock:
            self._nodes = {n: each for n, each in self._nodes.items() if each.heard > oldest}
            for name, node in self._nodes.items():
                last.add_metric([name], node.last_interval_seconds)
                lost.add_metric([name], node.rows_lost)
        yield last
        yield lost
