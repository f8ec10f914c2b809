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
import numpy.typing as npt

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
"""The share by which more variance of most rows changes no cause."""


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
    parts = _possible_parts(components, found.faults)
    if not parts:
        return found, of_row
    usual = found.fit.factor * counts.expected
    rest = np.ones(len(of_row), np.bool_)
    for each in parts:
        rest[components.rows(each)[0]] = False
    more = _more_variance(counts, found.fit.mean, usual, dispersion, rest)
    if more is not None and not more.any():
        return found, of_row  # What the parts leave of the others does not differ.
    # If faults may differ that much, no part of one is worth a fault of its own.
    excess = np.maximum(counts.bad - usual, 0)
    faults = explained(of_row + _VERY_UNEVEN * excess**2 / np.maximum(counts.bad, 1)).faults
    whole = [each for each in faults if len(components.rows(each)[0]) >= _LEAST_ROWS]
    if whole:
        mean = fit(replace(counts, expected=usual), components, whole, _AS_IT_IS).mean
        more = _more_variance(counts, mean, usual, dispersion)
        if more is not None and more.any():
            of_row = of_row + more
            found = explained(of_row)
    return found, of_row


def _possible_parts(components: Components, faults: Sequence[int]) -> list[int]:
    """The faults that are mostly within another one, and those of few rows if there are several."""
    rows_of = {each: components.rows(each)[0] for each in faults}
    parts = [
        fault
        for fault, part in rows_of.items()
        if any(
            len(part) < len(whole) and 2 * np.isin(part, whole).sum() > len(part)
            for whole in rows_of.values()
        )
    ]
    few = [fault for fault, rows in rows_of.items() if len(rows) < _LEAST_ROWS]
    return list({*parts, *few}) if parts or len(few) >= _SEVERAL else []


def _more_variance(
    counts: Counts,
    mean: Floats,
    usual: Floats,
    dispersion: float,
    among: npt.NDArray[np.bool_] | bool = True,
) -> Floats | None:
    """The variance of each row over its mean that comes from faults that differ, in what is `among`
    those that are looked at: 0 if it is slight, None if there are too few rows to tell.
    """
    added = np.maximum(mean - usual, 0)
    rows = np.flatnonzero((2 * added > mean) & among)
    if len(rows) < _LEAST_ROWS:
        return None
    more = _unevenness(counts.bad[rows], mean[rows], added[rows], dispersion) * added**2 / mean
    return more if np.median(more[rows]) > _SLIGHTLY * dispersion else np.zeros_like(more)


def _unevenness(bad: Floats, mean: Floats, added: Floats, dispersion: float) -> float:
    """The squared coefficient of variation at which rows differ as much from their means as normal
    variables do, without the fifth of them that differs most: these may have faults of their own.
    """
    squares, by_chance, of_fault = (bad - mean) ** 2, dispersion * mean, added**2
    least = int(_TRIMMED * len(bad))
    low, high = 0.0, _MOST_UNEVEN
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        ordered = np.sort(squares / (by_chance + middle * of_fault))
        is_more = ordered[:least].mean() > _TRIMMED_MEAN_OF_SQUARES
        low, high = (middle, high) if is_more else (low, middle)
    return low
