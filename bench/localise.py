"""Seconds for a whole verdict of `localise`, on one core."""

import resource
import time

import numpy as np
import pandas as pd

from bench.figure import Figure
from flowverdict_rca import localise

__all__ = ["measure"]

_SIZES = ((200, 100_000), (10_000, 1_000_000))
_BACKGROUND = 5e-4
_POD_LOSS, _NODE_LOSS = 0.02, 0.005


def measure() -> list[Figure]:
    """Milliseconds for two sizes of table with two faults each, and the peak of memory."""
    figures = []
    for pods, rows in _SIZES:
        table = _table(pods, rows)
        began = time.perf_counter()
        found = localise(table)
        spent = time.perf_counter() - began
        named = {str(cause.where) for cause in found.causes}
        if named != {"{'pod': 'pod-7'}", "{'node': 'node-3'}"}:
            raise RuntimeError(f"it named {named}")
        what = f"{pods:,} pods, {rows:,} rows"
        figures.append(Figure("localise", what, 1000 * spent, "ms"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [*figures, Figure("localise", "peak memory of the process", peak, "MiB")]


def _table(pods: int, size: int) -> pd.DataFrame:
    """Pairs drawn at random; pod 7 and node 3 lose more than the others."""
    random = np.random.default_rng(0)
    src = random.integers(pods, size=size)
    dst = (src + 1 + random.integers(pods - 1, size=size)) % pods
    nodes = max(2, pods // 20)
    segments = random.poisson(300 * random.lognormal(0, 1, size))
    rate = np.full(size, _BACKGROUND)
    rate[(src == 7) | (dst == 7)] += _POD_LOSS
    rate[(src % nodes == 3) | (dst % nodes == 3)] += _NODE_LOSS
    columns = {}
    for end, pod in (("src", src), ("dst", dst)):
        columns[f"{end}_pod"] = np.array([f"pod-{each}" for each in range(pods)])[pod]
        columns[f"{end}_node"] = np.array([f"node-{each % nodes}" for each in range(pods)])[pod]
        columns[f"{end}_workload"] = np.array([f"w-{each // 5}" for each in range(pods)])[pod]
    return pd.DataFrame(
        columns | {"segments": segments, "retransmits": random.poisson(segments * rate)}
    )
