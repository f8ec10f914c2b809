"""DNS lookups by the pod that asked and the name."""

import threading
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute
from prometheus_client.core import CounterMetricFamily, Metric, SummaryMetricFamily
from prometheus_client.registry import Collector

from flowverdict_contracts.signals import OVER_BUDGET

__all__ = ["Asked", "Lookups", "NameSums"]

_MOST_NAMES, _MOST_OF_POD = 5000, 50
_LABELS = ("src_namespace", "src_pod", "dns_name")
_OTHER = (OVER_BUDGET, OVER_BUDGET, OVER_BUDGET)
_COUNTS = ("dns_answers", "dns_name_errors", "dns_failures", "dns_unanswered")

Asked = tuple[str, str, str]
"""The values of `_LABELS`."""


@dataclass(slots=True)
class NameSums:
    """What came of the lookups of a name by a pod.

    Attributes:
        answered, name_error, failed, unanswered: how many lookups ended so.
        answer_us: of the times that answers took, the sum.
        answer_samples: and how many there were.
        last_seen: when the name was last looked up, on the monotonic clock.
    """

    answered: int = 0
    name_error: int = 0
    failed: int = 0
    unanswered: int = 0
    answer_us: int = 0
    answer_samples: int = 0
    last_seen: float = 0.0


class Lookups(Collector):
    """Sums by pod and name, for a `prometheus_client` registry.

    There is room for 5,000, and for 50 names of a pod; what is beyond that is summed as the name
    `other`, of the pod if it has room for that.

    Args:
        expire_seconds: what was not looked up for so long is dropped.

    Attributes:
        is_shown: whether there is anything to collect now.
    """

    def __init__(self, expire_seconds: float) -> None:
        self.is_shown: Callable[[], bool] = lambda: True
        self._expire = expire_seconds
        self._lock = threading.Lock()
        self._hold({})

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of an enriched batch that are about lookups of a name."""
        names = batch.column("dns_name")
        if not any(names.dictionary.to_pylist()):
            return
        lookups = batch.filter(pa.compute.not_equal(names, ""))
        labels = zip(*(lookups.column(name).to_pylist() for name in _LABELS), strict=True)
        counts = np.column_stack([lookups.column(name).to_numpy() for name in _COUNTS])
        times_us = lookups.column("dns_answer_us").to_pylist()
        now = time.monotonic()
        with self._lock:
            for asked, row, took_us in zip(labels, counts.tolist(), times_us, strict=True):
                self._add(asked, row, took_us, now)

    def _add(self, asked: Asked, counts: list[int], took_us: int, now: float) -> None:
        if asked not in self._sums:
            asked = self._place(asked)
        sums = self._sums.get(asked)
        if sums is None:
            sums = self._sums[asked] = NameSums()
            self._names_of[asked[:2]] += 1
        answers, name_errors, failures, unanswered = counts
        sums.answered += answers - name_errors - failures
        sums.name_error += name_errors
        sums.failed += failures
        sums.unanswered += unanswered
        sums.answer_us += took_us
        sums.answer_samples += took_us > 0
        sums.last_seen = now

    def _place(self, asked: Asked) -> Asked:
        """Where a name is counted that is not known yet."""
        if self._names_of[asked[:2]] >= _MOST_OF_POD:
            asked = (*asked[:2], OVER_BUDGET)
        return asked if asked in self._sums or len(self._sums) < _MOST_NAMES else _OTHER

    def kept(self) -> list[tuple[Asked, NameSums]]:
        """All sums, to go on from."""
        with self._lock:
            return [(asked, replace(sums)) for asked, sums in self._sums.items()]

    def restore(self, kept: Iterable[tuple[Asked, NameSums]]) -> None:
        """Go on from there."""
        now = time.monotonic()
        with self._lock:
            self._hold({asked: replace(sums, last_seen=now) for asked, sums in kept})

    def _hold(self, sums: dict[Asked, NameSums]) -> None:
        self._sums = sums
        self._names_of = Counter(asked[:2] for asked in sums)

    def collect(self) -> Iterator[Metric]:
        """The metrics, for a scrape."""
        if not self.is_shown():
            return
        lookups = CounterMetricFamily(
            "dns_lookups_by_name",
            "DNS lookups over UDP by the pod that asked, the name, and how they ended: answered, "
            "name_error (NXDOMAIN), failed (any other error) or unanswered. The collector's "
            "FLOWVERDICT_DNS turns them on.",
            labels=[*_LABELS, "result"],
        )
        seconds = SummaryMetricFamily(
            "dns_answer_by_name_seconds",
            "Time from a DNS lookup to its answer, one reading per pod, name and interval.",
            labels=_LABELS,
        )
        oldest = time.monotonic() - self._expire
        with self._lock:
            self._hold({asked: s for asked, s in self._sums.items() if s.last_seen > oldest})
            for asked, sums in self._sums.items():
                for result in ("answered", "name_error", "failed", "unanswered"):
                    lookups.add_metric([*asked, result], getattr(sums, result))
                seconds.add_metric(asked, sums.answer_samples, sums.answer_us / 1e6)
        yield from (lookups, seconds)
