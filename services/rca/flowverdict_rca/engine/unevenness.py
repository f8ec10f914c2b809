"""How much a fault differs between the rows that it covers.

A cable loses alike on all that crosses it. An overloaded node does not, nor does a fault on one of
several paths: with many counts, what chance does not explain would look like more faults within the
first. The counts of a row have the variance

    d m + c a^2

where m is their mean, of which faults add a, d is the dispersion, and c the squared coefficient of
variation of a fault's rate between its rows.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from flowverdict_rca.engine.components import Components
from flowverdict_rca.engine.poisson import Counts, fit
from flowverdict_rca.engine.rows import Floats
from flowverdict_rca.engine.search import Explanation

__all__ = ["allowing_for_unevenness"]

_LEAST_ROWS = 8
"""Fewer do not show how much they differ."""
_TRIMMED = 0.8
_TRIMMED_MEAN_OF_SQUARES = 0.44
"""Of a standard normal variable, without the fifth that is largest."""
_VERY_UNEVEN = 1.0
_AS_IT_IS = 1e12
"""So steady is what is usual: it has been fitted already."""
_MOST_UNEVEN = 4.0
_HALVINGS = 30
_SEVERAL = 3
_SLIGHTLY = 0.05
"""The share by which more variance of a row changes no cause."""


def allowing_for_unevenness(
    found: Explanation,
    explained: Callable[[Floats], Explanation],
    counts: Counts,
    components: Components,
    dispersion: float,
) -> tuple[Explanation, Floats]:
    """The faults behind the bad counts, if a fault may differ between its rows.

    Args:
        found: the faults, if it may not.
        explained: `explain` for these counts, as a function of the dispersion of each row.
        counts, components, dispersion: as `explain` takes them.

    Returns:
        The faults, and the dispersion of each row.
    """
    of_row = np.full(len(counts.total), dispersion)
    if not _may_be_parts(components, found.faults):
        return found, of_row
    usual = found.fit.factor * counts.expected
    # If faults may differ that much, no part of one is worth a fault of its own.
    excess = np.maximum(counts.bad - usual, 0)
    faults = explained(of_row + _VERY_UNEVEN * excess**2 / np.maximum(counts.bad, 1)).faults
    whole = [each for each in faults if len(components.rows(each)[0]) >= _LEAST_ROWS]
    if whole:
        mean = fit(replace(counts, expected=usual), components, whole, _AS_IT_IS).mean
        added = np.maximum(mean - usual, 0)
        uneven = _unevenness(counts.bad, mean, added, dispersion)
        more = uneven * added**2 / mean
        if (more > _SLIGHTLY * of_row).any():
            of_row = of_row + more
            found = explained(of_row)
    return found, of_row


def _may_be_parts(components: Components, faults: Sequence[int]) -> bool:
    """Whether a fault is mostly within another one, or several may be parts of one."""
    rows_of = [components.rows(each)[0] for each in faults]
    within = any(
        len(part) < len(whole) and 2 * np.isin(part, whole).sum() > len(part)
        for part in rows_of
        for whole in rows_of
    )
    return within or sum(len(each) < _LEAST_ROWS for each in rows_of) >= _SEVERAL


def _unevenness(bad: Floats, mean: Floats, added: Floats, dispersion: float) -> float:
    """The squared coefficient of variation at which rows differ as much from their means as normal
    variables do, without the fifth of them that differs most: these may have faults of their own.
    """
    rows = np.flatnonzero(2 * added > mean)
    if len(rows) < _LEAST_ROWS:
        return 0.0
    squares, by_chance, of_fault = (
        (bad[rows] - mean[rows]) ** 2, dispersion * mean[rows], added[rows] ** 2,
    )  # fmt: skip
    least = int(_TRIMMED * len(rows))
    low, high = 0.0, _MOST_UNEVEN
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        ordered = np.sort(squares / (by_chance + middle * of_fault))
        is_more = ordered[:least].mean() > _TRIMMED_MEAN_OF_SQUARES
        low, high = (middle, high) if is_more else (low, middle)
    return low
