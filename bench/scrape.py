"""CPU of a scrape of 100,000 series beside prometheus_client, and of keeping the totals."""

import statistics
import time
import tracemalloc
from collections.abc import Callable

import numpy as np
import pyarrow as pa
from isal import igzip
from prometheus_client import CollectorRegistry, Counter, generate_latest

from bench.figure import Figure
from flowverdict_contracts.enriched import ARROW_SCHEMA
from flowverdict_contracts.signals import PAIR_LABELS
from flowverdict_exporter.kept import Kept
from flowverdict_exporter.nodes import Nodes
from flowverdict_exporter.series import PairSeries, families_by_pair

__all__ = ["measure", "pair_rows"]

_SERIES = 100_000
_BUDGET = 25_000
"""Series that a metric may have."""
_ROUNDS = 5


def pair_rows(pairs: int) -> pa.RecordBatch:
    """One row for each of `pairs` pairs of pods, with names of typical length."""
    side = int(pairs**0.5) + 1
    pods = [f"checkout-7d9f8b6c5d-{number:05x}" for number in range(side)]
    texts = {
        "ip": [f"10.{number >> 16}.{number >> 8 & 255}.{number & 255}" for number in range(side)],
        "kind": ["pod"],
        "name_confidence": ["certain"],
        "namespace": ["production"],
        "pod": pods,
        "workload": ["checkout"],
        "node": [f"ip-10-0-{number}-17.ec2.internal" for number in range(40)],
    }
    source, target = np.divmod(np.arange(pairs), side)
    columns = []
    for field in ARROW_SCHEMA:
        end, _, name = field.name.partition("_")
        if field.name == "role" or (pa.types.is_dictionary(field.type) and name not in texts):
            values = ["client"] if field.name == "role" else [""]
            indices = np.zeros(pairs)
        elif pa.types.is_dictionary(field.type):
            values = texts[name]
            indices = (source if end == "src" else target) % len(values)
        else:
            columns.append(pa.array(np.arange(pairs) % 5000, field.type))
            continue
        columns.append(
            pa.DictionaryArray.from_arrays(pa.array(indices.astype(np.int32)), pa.array(values))
        )
    return pa.RecordBatch.from_arrays(columns, schema=ARROW_SCHEMA)


def _cpu_ms(work: Callable[[], object]) -> float:
    work()
    rounds = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        work()
        rounds.append(1000 * (time.process_time() - began))
    return statistics.median(rounds)


def measure() -> list[Figure]:
    """CPU time of a scrape, in total and by part, and memory per series."""
    batch = pair_rows(_SERIES // sum(each.series for each in families_by_pair(histograms=True)))
    tracemalloc.start()
    series = PairSeries(_SERIES, 3600, histograms=True)
    series.add(batch)
    series.text(False)
    memory, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    page = series.text(False).encode()
    counter = Counter(
        "tcp", "for comparison", PAIR_LABELS, registry=(registry := CollectorRegistry())
    )
    for number in range(_SERIES):
        counter.labels(*[f"{number}-of-a-usual-length"] * len(PAIR_LABELS)).inc()
    full = PairSeries(_BUDGET, 3600)
    full.add(pair_rows(_BUDGET))
    nodes = Nodes()
    kept = Kept(full.kept(), nodes.kept(), []).encode()
    return [
        Figure(
            "scrape", f"{_SERIES:,} series", _cpu_ms(lambda: series.text(False).encode()), "ms CPU"
        ),
        Figure(
            "scrape", "gzip of it", _cpu_ms(lambda: igzip.compress(page, compresslevel=0)), "ms CPU"
        ),
        Figure("scrape", "prometheus_client", _cpu_ms(lambda: generate_latest(registry)), "ms CPU"),
        Figure("scrape", "page", len(page), "bytes"),
        Figure("scrape", "page, compressed", len(igzip.compress(page, compresslevel=0)), "bytes"),
        Figure("scrape", "memory per series", memory / _SERIES, "bytes"),
        Figure("scrape", f"totals of {_BUDGET:,} pairs, as kept in NATS", len(kept), "bytes"),
        Figure(
            "scrape", "keeping them", _cpu_ms(Kept(full.kept(), nodes.kept(), []).encode), "ms CPU"
        ),
        Figure(
            "scrape",
            "going on from them",
            _cpu_ms(lambda: full.restore(Kept.decode(kept).sums)),
            "ms CPU",
        ),
    ]
