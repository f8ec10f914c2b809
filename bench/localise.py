"""Seconds for a whole verdict of `localise`, on one core."""

import resource
import time
from itertools import product

import numpy as np
import pandas as pd

from bench.figure import Figure
from flowverdict_rca import localise

__all__ = ["measure"]

_SIZES = ((200, 100_000), (10_000, 1_000_000))
_BACKGROUND = 5e-4
_POD_LOSS, _NODE_LOSS = 0.02, 0.005


def measure() -> list[Figure]:
    """Milliseconds for two sizes of table with two faults each, a pod and a node, and the peak of
    memory. If the pod is on the node, one fault may be a part of the other, which takes longer.
    """
    figures = []
    for (pods, rows), pod in product(_SIZES, (7, 3)):
        table = _table(pods, rows, pod)
        began = time.perf_counter()
        found = localise(table)
        spent = time.perf_counter() - began
        named = {str(cause.where) for cause in found.causes}
        if named != {f"{{'pod': 'pod-{pod}'}}", "{'node': 'node-3'}"}:
            raise RuntimeError(f"it named {named}")
        where = ", the pod on the node" if pod == 3 else ""
        figures.append(
            Figure("localise", f"{pods:,} pods, {rows:,} rows{where}", 1000 * spent, "ms")
        )
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return [*figures, Figure("localise", "peak memory of the process", peak, "MiB")]


def _table(pods: int, size: int, bad: int) -> pd.DataFrame:
    """Pairs drawn at random; a pod and node 3 lose more than the others."""
    random = np.random.default_rng(0)
    src = random.integers(pods, size=size)
    dst = (src + 1 + random.integers(pods - 1, size=size)) % pods
    nodes = max(2, pods // 20)
    segments = random.poisson(300 * random.lognormal(0, 1, size))
    rate = np.full(size, _BACKGROUND)
    rate[(src == bad) | (dst == bad)] += _POD_LOSS
    rate[(src % nodes == 3) | (dst % nodes == 3)] += _NODE_LOSS
    columns = {}
    for end, pod in (("src", src), ("dst", dst)):
        columns[f"{end}_pod"] = np.array([f"pod-{each}" for each in range(pods)])[pod]
        columns[f"{end}_node"] = np.array([f"node-{each % nodes}" for each in range(pods)])[pod]
        columns[f"{end}_workload"] = np.array([f"w-{each // 5}" for each in range(pods)])[pod]
    return pd.DataFrame(
        columns | {"segments": segments, "retransmits": random.poisson(segments * rate)}
    )
