"""Runs the trials of a cell, and compares what was named with what was broken.

A fault counts as found if a cause names it, or names another component with the very same rows. Two
faults of one pod are one thing to whoever mends it: that pod both ways is as right as one cause for
each way. A fault that loses too few segments cannot be seen: one that would be worth the price of
its kind in fewer than 95 of 100 windows, if all else were known. It is counted apart, and naming it
anyway is neither right nor wrong.
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd

from bench.accuracy.cells import Cell
from bench.accuracy.clusters import Fault, GeneratedCluster
from bench.accuracy.rivals import RIVALS
from flowverdict_rca import Baseline, learn, localise
from flowverdict_rca.engine.components import components_of
from flowverdict_rca.engine.localise import PRICE
from flowverdict_rca.engine.rows import rows_of

__all__ = ["CLEAN_WINDOWS", "OURS", "Result", "run_trial"]

OURS = "localise"
_ONE_IN_TWENTY = 1.645
_WAYS = {"pod", "src_pod", "dst_pod"}
CLEAN_WINDOWS = 10
"""Windows without a fault in each trial."""


@dataclass(slots=True)
class Result:
    """What came out of one trial.

    Attributes:
        found, missed, wrong: by method, faults named, not named, and causes that are none.
        unseen: faults that lose too little to be seen.
        alarms: clean windows of the trial in which `localise` named a cause.
    """

    found: dict[str, int] = field(default_factory=dict)
    missed: dict[str, int] = field(default_factory=dict)
    wrong: dict[str, int] = field(default_factory=dict)
    unseen: int = 0
    alarms: int = 0


def run_trial(cell: Cell, seed: int, number: int) -> Result:
    """One cluster, its history, its faults, and its clean windows."""
    random = np.random.default_rng([seed, number])
    cluster = GeneratedCluster(cell.traffic, random)
    baseline = _learnt(cell, cluster)
    if cell.renamed:
        cluster.rename()
    unheard = _unheard(cell, cluster)
    faults = [_fault(cell, cluster) for _ in range(cell.faults)]
    table = _heard(cluster.window(faults, factor=cell.factor, echo=cell.echo), unheard)
    seen, unseen = _seen(table, faults, cluster, cell.uneven)
    result = Result(unseen=len(unseen))
    rows = rows_of(table, "segments", "retransmits")
    same_rows = _SameRows(rows)
    twice = _pods_twice([fault.where for fault in faults])
    for name, causes in (
        (OURS, [cause.where for cause in localise(table, baseline).causes]),
        *((name, rival(table)) for name, rival in RIVALS.items()),
    ):
        named, wanted, ignored = (
            {same_rows.of(where) for where in _each_way(places, twice)}
            for places in (causes, [each.where for each in seen], [each.where for each in unseen])
        )
        result.found[name] = len(named & wanted)
        result.missed[name] = len(wanted - named)
        result.wrong[name] = len(named - wanted - ignored)
    for _ in range(CLEAN_WINDOWS):
        clean = _heard(cluster.window(factor=cell.factor), unheard)
        result.alarms += bool(localise(clean, baseline).causes)
    return result


def _pods_twice(places: list[dict[str, str]]) -> set[str]:
    """The pods that are there more than once: one way and the other, or one way and both."""
    pods = Counter(pod for where in places for pod in _as_a_pod(where))
    return {pod for pod, times in pods.items() if times > 1}


def _each_way(places: list[dict[str, str]], pods: set[str]) -> list[dict[str, str]]:
    """The same places, but each way instead of both for these pods."""
    return [
        each
        for where in places
        for each in (
            [{way: where["pod"]} for way in ("src_pod", "dst_pod")]
            if where.get("pod") in pods
            else [where]
        )
    ]


def _as_a_pod(where: dict[str, str]) -> list[str]:
    """The pod that is at fault, one way or both, if it is one."""
    return [pod for way, pod in where.items() if way in _WAYS and len(where) == 1]


def _learnt(cell: Cell, cluster: GeneratedCluster) -> Baseline | None:
    past = [cluster.window() for _ in range(cell.history)]
    if cell.faulty_history:
        past[len(past) // 2] = cluster.window([_fault(cell, cluster)])
    return learn(past) if past else None


def _fault(cell: Cell, cluster: GeneratedCluster) -> Fault:
    kind = cell.kinds[int(cluster.random.integers(len(cell.kinds)))]
    low, high = np.log(cell.loss)
    return cluster.fault(kind, float(np.exp(cluster.random.uniform(low, high))), cell.uneven)


def _unheard(cell: Cell, cluster: GeneratedCluster) -> set[str]:
    nodes = sorted({cluster.node(pod) for pod in range(cell.traffic.pods)})
    return set(cluster.random.permutation(nodes)[: round(cell.unheard * len(nodes))].tolist())


def _heard(table: pd.DataFrame, unheard: Iterable[str]) -> pd.DataFrame:
    """What the collectors count that are there: each counts what its own node sends."""
    return table[~table["src_node"].isin(list(unheard))]


def _seen(
    table: pd.DataFrame, faults: list[Fault], cluster: GeneratedCluster, uneven: float
) -> tuple[list[Fault], list[Fault]]:
    """The faults that can be seen, and those that cannot, though all others were known."""
    segments = table["segments"].to_numpy(np.float64)
    background = cluster.background[table.index] * segments
    added_by = [fault.loss * fault.covers[table.index] * segments for fault in faults]
    mean = background + sum(added_by)
    burst = cluster.traffic.burst
    dispersion = burst + uneven**2 * sum(added**2 for added in added_by) / np.maximum(mean, 1e-12)
    seen: list[Fault] = []
    unseen: list[Fault] = []
    for fault, added in zip(faults, added_by, strict=True):
        others = mean - added
        ratio = np.log1p(added / others)
        gain = ((mean * ratio - added) / dispersion).sum()
        varies = np.sqrt((mean * ratio**2 / dispersion).sum())
        price = np.log(max(2, _how_many(fault.where, cluster))) + PRICE
        repeated = any(fault.where == other.where for other in seen)
        (seen if gain - _ONE_IN_TWENTY * varies > price and not repeated else unseen).append(fault)
    return seen, unseen


def _how_many(where: dict[str, str], cluster: GeneratedCluster) -> int:
    pods, pairs = cluster.traffic.pods, len(cluster.src)
    nodes = len({cluster.node(pod) for pod in range(pods)})
    if len(where) == 2:
        return pairs if "src_pod" in where else nodes * nodes
    return pods if "pod" in next(iter(where)) else nodes


class _SameRows:
    """Tells components apart by the rows that they cover."""

    def __init__(self, rows: Any) -> None:
        self._components = components_of(rows)

    def of(self, where: dict[str, str]) -> object:
        """Equal for two conditions that cover the very same rows."""
        found = self._components.find(where)
        return str(where) if found is None else int(self._components.alike[found])
