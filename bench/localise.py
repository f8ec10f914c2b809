"""Seconds for a whole verdict of `localise`, on one core, and for `learn`."""

import resource
import time
from collections.abc import Mapping

import numpy as np
import pandas as pd

from bench.figure import Figure
from flowverdict_rca import Baseline, learn, localise

__all__ = ["measure"]

_SIZES = ((200, 100_000), (10_000, 1_000_000))
_BACKGROUND = 5e-4
_POD_LOSS, _NODE_LOSS = 0.02, 0.005
_NODE, _POD, _POD_ON_THE_NODE = 3, 7, 3
_ALWAYS_POOR = {11: 0.003}
_PAST = 4


def measure() -> list[Figure]:
    """Milliseconds for two sizes of table with two faults each, a pod and a node, and the peak of
    memory. If the pod is on the node, one fault may be a part of the other, which takes longer. And
    the same with a baseline, in which a third pod has always lost more.
    """
    figures = []
    for size in _SIZES:
        what = f"{size[0]:,} pods, {size[1]:,} rows"
        figures.append(_localised(what, size, _POD))
        figures.append(_localised(f"{what}, the pod on the node", size, _POD_ON_THE_NODE))
    figures.append(_peak("without a baseline"))
    for size in _SIZES:
        what = f"{size[0]:,} pods, {size[1]:,} rows"
        past = [_table(size, _ALWAYS_POOR, seed=seed) for seed in range(1, _PAST + 1)]
        began = time.perf_counter()
        baseline = learn(past)
        learning = time.perf_counter() - began
        del past
        figures.append(_localised(f"{what}, with a baseline", size, _POD, baseline))
        figures.append(Figure("localise", f"{what}, learnt from {_PAST}", 1000 * learning, "ms"))
    return [*figures, _peak("with learning")]


def _localised(
    what: str, size: tuple[int, int], pod: int, baseline: Baseline | None = None
) -> Figure:
    poor = {pod: _POD_LOSS} | (_ALWAYS_POOR if baseline is not None else {})
    table = _table(size, poor, _NODE)
    began = time.perf_counter()
    found = localise(table, baseline)
    spent = time.perf_counter() - began
    named = {str(cause.where) for cause in found.causes}
    if named != {f"{{'pod': 'pod-{pod}'}}", f"{{'node': 'node-{_NODE}'}}"}:
        raise RuntimeError(f"it named {named}")
    return Figure("localise", what, 1000 * spent, "ms")


def _peak(what: str) -> Figure:
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return Figure("localise", f"peak memory of the process, {what}", peak, "MiB")


def _table(
    size: tuple[int, int], poor: Mapping[int, float], bad_node: int | None = None, seed: int = 0
) -> pd.DataFrame:
    """Pairs drawn at random, the same for each seed; some pods and a node lose more than others."""
    pods, rows = size
    random = np.random.default_rng(0)
    src = random.integers(pods, size=rows)
    dst = (src + 1 + random.integers(pods - 1, size=rows)) % pods
    nodes = max(2, pods // 20)
    usual = 300 * random.lognormal(0, 1, rows)
    rate = np.full(rows, _BACKGROUND)
    for pod, more in poor.items():
        rate[(src == pod) | (dst == pod)] += more
    if bad_node is not None:
        rate[(src % nodes == bad_node) | (dst % nodes == bad_node)] += _NODE_LOSS
    columns = {}
    for end, pod_of in (("src", src), ("dst", dst)):
        columns[f"{end}_pod"] = np.array([f"pod-{each}" for each in range(pods)])[pod_of]
        columns[f"{end}_node"] = np.array([f"node-{each % nodes}" for each in range(pods)])[pod_of]
        columns[f"{end}_workload"] = np.array([f"w-{each // 5}" for each in range(pods)])[pod_of]
    counts = np.random.default_rng([1, seed])
    segments = counts.poisson(usual)
    return pd.DataFrame(
        columns | {"segments": segments, "retransmits": counts.poisson(segments * rate)}
    )
