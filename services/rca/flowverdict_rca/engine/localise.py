"""`localise`: which components are behind the bad counts of a table."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from flowverdict_rca.engine.baseline import STEADINESS, Baseline, dispersion_of
from flowverdict_rca.engine.components import Components, Where, components_of
from flowverdict_rca.engine.poisson import Counts
from flowverdict_rca.engine.rows import LABEL, Floats, Numbers, Rows, distinct_names, rows_of
from flowverdict_rca.engine.search import ECHO, Explanation, explain, price_of
from flowverdict_rca.engine.unevenness import allowing_for_unevenness

__all__ = ["Cause", "Verdict", "localise"]

PRICE = 6.5
"""The constant part of a component's price, in log-likelihood: tuned so that at most one clean
window in 200 gets a cause.
"""

_FEW, _MOST = 10, 20
"""The search stops there, and goes on to the second only if that many seem to be faults of their
own, since it takes long.
"""
_SHOWN_LOSS = 0.01
_SLIGHTLY_MORE = 1.05
"""Dispersion up to which no cause hangs on it, so that one search is enough."""
_BY_CHANCE = 1.35
"""Gain in log-likelihood that one rate in twenty reaches without being higher (Wilks 1938)."""

# Of components with the very same rows, the first is named.
_PREFERENCE = (
    ("src_pod", "dst_pod"), ("pod",), ("src_pod",), ("dst_pod",), ("service",),
    ("src_node", "dst_node"), ("node",), ("src_workload", "dst_workload"), ("workload",), (LABEL,),
    ("zone",), ("port",), ("role",),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Cause:
    """A component that is at fault.

    Attributes:
        where: the rows that it covers, as column to value; `pod`, `node`, `workload`, `service`,
            `zone` and `label:KEY` mean either end.
        rate: bad counts per total that it adds.
        bad: bad counts that it explains.
        explained: their share of all bad counts, 0 to 1.
        score: how much likelier it makes the counts: log-likelihood ratio, less its price.
        alternatives: components with the very same rows, which the table cannot tell from it.
        needed_bad: if all that its rows count as bad were this many or fewer, it would not be
            named.
    """

    where: Where
    rate: float
    bad: float
    explained: float
    score: float
    alternatives: tuple[Where, ...]
    needed_bad: float


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is behind the bad counts of a table.

    Attributes:
        causes: best first, at most twenty; empty if none stands out.
        more: whether the search ended at twenty, so that there may be more.
        outcome: "faulty" with causes. Without, "healthy" if a pod that lost one more segment in a
            hundred would have been seen, and all together do not, else "not enough evidence".
        factor: by how much all bad counts differ from what was expected; 1 without a baseline.
    """

    causes: tuple[Cause, ...]
    outcome: Literal["faulty", "healthy", "not enough evidence"]
    factor: float
    more: bool = False


def localise(
    window: Any,
    baseline: Baseline | None = None,
    *,
    dimensions: Sequence[str] | None = None,
    total: str = "segments",
    bad: str = "retransmits",
) -> Verdict:
    """The components behind the bad counts of one window.

    Args:
        window: one row per flow or pair, as a DataFrame or anything that pandas makes one from. A
            column may hold lists of possible values: the pods behind a service address.
        baseline: what is normal, from `learn`; without one, everything is expected to be alike.
        dimensions: columns of any table, to be localised by single values and combinations of up to
            three; without them, `src_pod`, `dst_pod`, `src_node`, `dst_node` and, where there are
            any, workload, service and zone at either end, the labels in `src_label:KEY` and
            `dst_label:KEY`, and the paths from pod to pod, node to node and workload to workload.
        total, bad: columns with the counts: what was sent, and how much of it went wrong.

    Raises:
        ValueError: if a column is missing, or a count is negative or not finite.
    """
    names = distinct_names(dimensions)
    rows = rows_of(window, total, bad, names)
    components = components_of(rows, names)
    if not rows.total.sum() or not len(components):
        return Verdict((), "not enough evidence", 1.0)
    if baseline is not None and not baseline.rate:
        baseline = None
    if baseline is None:
        expected = rows.total * max(rows.bad.sum() / rows.total.sum(), 1e-9)
        dispersion = 1.0
    else:
        # What is expected is itself only known from so many windows.
        dispersion = baseline.dispersion * (1 + 1 / max(baseline.windows, 1))
        expected = baseline.expected(rows, components, names)
    # The more counts differ from what is expected, the less does the latter say about the factor.
    rise = max(1.0, rows.bad.sum() / max(expected.sum(), 1e-12))
    steadiness = STEADINESS / rise if baseline is not None else 1.0
    counts = Counts(rows.total, rows.bad, expected)
    explained = partial(
        explain, counts, components, constant=PRICE, steadiness=steadiness, most=_FEW
    )
    found = explained(dispersion)
    if baseline is None:
        # Once the faults are known, what is left shows how much chance varies.
        rest = _untouched(rows, components, found)
        measured = dispersion_of(rows.bad[rest], found.fit.mean[rest])
        if measured > _SLIGHTLY_MORE:
            dispersion = measured
            found = explained(dispersion)
    found, of_row = allowing_for_unevenness(found, explained, counts, components, dispersion)
    if len(found.faults) == _FEW:
        found = explained(of_row, most=_MOST)
    causes = _causes(rows, components, found, of_row, by_end=names is None)
    outcome: Literal["faulty", "healthy", "not enough evidence"] = "faulty"
    if not causes:
        # If everything got worse alike, that is not health, but nothing stands out either.
        usual = expected.sum() if baseline is not None else 0.0
        risen = found.fit.mean.sum() - usual > _SHOWN_LOSS * rows.total.sum()
        could_see = _could_see(rows, components, found, of_row)
        outcome = "healthy" if could_see and not risen else "not enough evidence"
    factor = found.fit.factor if baseline is not None else 1.0
    return Verdict(causes, outcome, factor, len(found.faults) == _MOST)


def _untouched(rows: Rows, components: Components, found: Explanation) -> npt.NDArray[np.bool_]:
    rest = rows.total > 0
    for fault in found.faults:
        rest[components.rows(fault)[0]] = False
    return rest


def _causes(
    rows: Rows,
    components: Components,
    found: Explanation,
    of_row: Floats,
    *,
    by_end: bool,
) -> tuple[Cause, ...]:
    """The causes, best first; `of_row` is the dispersion of each row."""
    causes = [
        _cause(rows, components, found, each, of_row, by_end=by_end)
        for each in found.faults
        if not _is_echo(rows, components, found, each, of_row)
    ]
    return tuple(sorted(causes, key=lambda each: (-round(each.score, 6), str(each.where))))


def _is_echo(
    rows: Rows, components: Components, found: Explanation, fault: int, of_row: Floats
) -> bool:
    """Whether this may be only the echo of the same fault the other way: less than `ECHO` of its
    rate, or so little more that it can be by chance.
    """
    rate, other = found.rate_of(fault), found.rate_of(components.opposite(fault))
    if rate >= other:
        return False
    row, added, mean = _added(rows, components, found, fault)
    above_an_echo = max(0.0, 1 - ECHO * other / rate) * added
    gained = rows.bad[row] * np.log(mean / (mean - above_an_echo)) - above_an_echo
    return float((gained / of_row[row]).sum()) < _BY_CHANCE


def _added(
    rows: Rows, components: Components, found: Explanation, fault: int
) -> tuple[Numbers, Floats, Floats]:
    """The rows of a fault, the bad counts that it adds to each, and all that are expected there."""
    row, share = components.rows(fault)
    return row, found.rate_of(fault) * rows.total[row] * share, found.fit.mean[row]


def _cause(
    rows: Rows,
    components: Components,
    found: Explanation,
    fault: int,
    of_row: Floats,
    *,
    by_end: bool,
) -> Cause:
    row, added, mean = _added(rows, components, found, fault)
    explained = rows.bad[row] * added / mean
    without = np.maximum(mean - added, 1e-12)
    gained = float(((rows.bad[row] * np.log(mean / without) - added) / of_row[row]).sum())
    price = found.prices[found.faults.index(fault)]
    alike = np.flatnonzero(components.alike == components.alike[fault])
    ordered = _ordered([components.where(each) for each in alike.tolist()], by_end=by_end)
    return Cause(
        where=ordered[0],
        rate=found.rate_of(fault),
        bad=float(explained.sum()),
        explained=float(explained.sum() / max(rows.bad.sum(), 1e-12)),
        score=gained - price,
        alternatives=tuple(ordered[1:]),
        needed_bad=_needed(rows.bad[row], without, added, of_row[row], price),
    )


def _needed(bad: Floats, without: Floats, added: Floats, dispersion: Floats, price: float) -> float:
    """The bad counts at which the gain equals the price, if all of them shrink alike."""
    low, high = 0.0, 1.0
    for _ in range(30):
        part = (low + high) / 2
        scaled = part * added
        counted = without + part * (bad - without)
        worth = np.maximum(counted, 0) * np.log1p(scaled / without) - scaled
        gained = (worth / dispersion).sum()
        low, high = (low, part) if gained > price else (part, high)
    return float(np.maximum(without + high * (bad - without), 0).sum())


def _ordered(alike: list[Where], *, by_end: bool) -> list[Where]:
    """The components with the same rows, the one to name first. If two pods, or two workloads, have
    the same rows, the path between them is as far as the evidence goes; if one has, it is that one.
    """
    last = [
        (f"src_{end}", f"dst_{end}")
        for end in ("pod", "workload")
        if by_end and sum(tuple(each) == (end,) for each in alike) == 1
    ]

    def rank(where: Where) -> tuple[bool, int, str]:
        names = tuple(LABEL if each.startswith(LABEL) else each for each in where)
        is_known = by_end and names in _PREFERENCE
        preference = _PREFERENCE.index(names) if is_known else len(names)
        return names in last, preference, str(where)

    return sorted(alike, key=rank)


def _could_see(rows: Rows, components: Components, found: Explanation, of_row: Floats) -> bool:
    """Whether half of the pods, or of whatever there is, would show a loss of one in a hundred."""
    mean = np.maximum(found.fit.mean, 1e-12)
    first = np.flatnonzero(components.kind == components.kind[0])
    for kind, each in enumerate(components.kinds):
        if each.names in (("pod",), ("node",)):
            first = np.flatnonzero(components.kind == kind)
            break
    added = _SHOWN_LOSS * rows.total
    seen = components.sums(((mean + added) * np.log1p(added / mean) - added) / of_row)
    return bool(np.median((seen - price_of(components, PRICE))[first]) > 0)
