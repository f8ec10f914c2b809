"""Which addresses are behind each service, as flows to it show."""

import threading
import time
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flowverdict_contracts.addresses import ENDS

__all__ = ["MOST_ADDRESSES", "Services"]

MOST_ADDRESSES = 10_000

_Address = tuple[str, str, str]
"""Namespace and name of a service, and an address."""


class Services(Collector):
    """The addresses that flows to each service go to, for a `prometheus_client` registry.

    There is room for 10,000; beyond that, those that no flow went to for longest are dropped.

    Args:
        expire_seconds: what no flow went to for so long is dropped.
    """

    def __init__(self, expire_seconds: float) -> None:
        self._expire = expire_seconds
        self._last_seen: dict[_Address, float] = {}
        self._lock = threading.Lock()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the services in the rows of an enriched batch."""
        now = time.monotonic()
        for end in ENDS:
            with self._lock:
                for address in _addresses(batch, end):
                    # Removed and added, the order is that of when they were last seen.
                    self._last_seen.pop(address, None)
                    self._last_seen[address] = now
                while len(self._last_seen) > MOST_ADDRESSES:
                    del self._last_seen[next(iter(self._last_seen))]

    def collect(self) -> Iterator[Metric]:
        """The metric, for a scrape."""
        family = GaugeMetricFamily(
            "flowverdict_service_address_info",
            "1 for each address that flows to a service go to: those of the pods that answer, and "
            "the service's own for flows of which it is not known which pod was meant.",
            labels=["service_namespace", "service_name", "ip"],
        )
        oldest = time.monotonic() - self._expire
        with self._lock:
            self._last_seen = {a: seen for a, seen in self._last_seen.items() if seen > oldest}
            for address in self._last_seen:
                family.add_metric(address, 1)
        yield family


def _addresses(batch: pa.RecordBatch, end: str) -> Iterator[_Address]:
    """Those that are at this end of the rows, each once."""
    columns = [batch.column(f"{end}_{name}") for name in ("service", "namespace", "ip")]
    services, namespaces, ips = (column.dictionary.to_pylist() for column in columns)
    if not any(services):
        return
    service, namespace, ip = (column.indices.to_numpy() for column in columns)
    of_one = np.unique((service.astype(np.int64) * len(namespaces) + namespace) * len(ips) + ip)
    numbers, ip_numbers = np.divmod(of_one, len(ips))
    each = zip(*np.divmod(numbers, len(namespaces)), ip_numbers, strict=True)
    for service_number, namespace_number, ip_number in each:
        if services[service_number]:
            yield namespaces[namespace_number], services[service_number], ips[ip_number]
