"""Poisson likelihood of bad counts, with an added rate for each fault.

The bad counts of row i are Poisson with mean

    m_i = g e_i + n_i sum(b_f s_if)

where n_i is its total, e_i what is expected without a fault, g what changed everywhere, b_f the
rate of fault f, and s_if how much of the row fault f covers. As in Flock (Harsh et al., CoNEXT
2023) the likelihood is per row, since a sum over a component would drown its clean rows in the
noise of a bad one. Rates are fitted by Newton's method; the likelihood is concave in them.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from types import MappingProxyType

import numpy as np
import numpy.typing as npt

from flowverdict_rca.engine.components import Components
from flowverdict_rca.engine.rows import Floats, Numbers

__all__ = ["Counts", "Fit", "fit", "gains"]

_STEPS = 40
_TINY = 1e-12


@dataclass(frozen=True)
class Counts:
    """What was counted, and what is expected.

    Attributes:
        total, bad: of each row.
        expected: bad counts of each row without a fault, up to a common factor.
    """

    total: Floats
    bad: Floats
    expected: Floats

    @cached_property
    def logarithms(self) -> Floats:
        """The term of each row's log-likelihood that has the expected counts, without a fault."""
        found: Floats = self.bad * np.log(self.expected + _TINY)
        return found

    @cached_property
    def sums(self) -> Floats:
        """Of what is expected, of bad counts, and of their logarithms, over all rows."""
        return np.array([self.expected.sum(), self.bad.sum(), self.logarithms.sum()])


@dataclass(frozen=True, slots=True)
class Fit:
    """Fitted rates.

    Attributes:
        factor: what changed everywhere, 1 if nothing.
        rates: of each fault.
        mean: of each row.
        log_likelihood: without terms that depend on the counts alone.
    """

    factor: float
    rates: Floats
    mean: Floats
    log_likelihood: float


def fit(
    counts: Counts,
    components: Components,
    faults: Sequence[int],
    steadiness: float,
    guesses: Mapping[int, float] = MappingProxyType({}),
) -> Fit:
    """The likeliest factor and rates, for these faults.

    Args:
        counts: of all rows.
        components: what could be at fault.
        faults: those of them that are.
        steadiness: shape of the gamma prior of the factor, whose mean is 1: how many bad counts it
            takes to outweigh that the factor usually is 1.
        guesses: at the rates of faults; good ones save steps.
    """
    involved = _rows_of(components, faults)
    place = np.cumsum(involved) - 1
    inside = np.zeros((int(place[-1]) + 1 if len(place) else 0, 1 + len(faults)))
    inside[:, 0] = counts.expected[involved]
    for number, fault in enumerate(faults, 1):
        row, share = components.rows(fault)
        inside[place[row], number] = counts.total[row] * share
    counted = counts.bad[involved]
    # Rows that no fault covers have only the factor in common, and so count as one.
    apart = counts.sums - [
        inside[:, 0].sum(), counted.sum(), counts.logarithms[involved].sum()
    ]  # fmt: skip
    apart[:2] += steadiness
    weights = np.zeros(1 + len(faults))
    expected, bad, _ = counts.sums + steadiness
    if faults:
        covered = inside[:, 1:].sum(axis=0)
        shares = counted @ (inside[:, 1:] > 0) / np.maximum(covered, _TINY) / len(faults)
        rates = [guesses.get(fault, share) for fault, share in zip(faults, shares, strict=True)]
        weights[1:] = np.maximum(rates, _TINY)
        bad = max(bad - covered @ weights[1:], bad / 10)
    weights[0] = bad / expected
    value = _value(weights, inside, counted, apart)
    for _ in range(_STEPS if faults else 3):
        weights, better = _step(weights, inside, counted, apart, value)
        if better - value < 1e-4:
            break
        value = better
    mean = weights[0] * counts.expected
    mean[involved] = inside @ weights
    return Fit(float(weights[0]), weights[1:], np.maximum(mean, _TINY), value)


def _rows_of(components: Components, faults: Sequence[int]) -> npt.NDArray[np.bool_]:
    """Which rows any of the faults covers."""
    covered = np.zeros(components.cover.shape[1], np.bool_)
    for fault in faults:
        covered[components.rows(fault)[0]] = True
    return covered


def _value(weights: Floats, design: Floats, bad: Floats, apart: Floats) -> float:
    mean = design @ weights + _TINY
    expected, counted, constant = apart
    factor = weights[0]
    found = bad @ np.log(mean) - mean.sum() + constant
    found += counted * np.log(factor) - expected * factor
    return float(found)


def _step(
    weights: Floats, design: Floats, bad: Floats, apart: Floats, value: float
) -> tuple[Floats, float]:
    """One step uphill: Newton's, with rates that would become negative held at zero, or else that
    of expectation maximisation, which always is.
    """
    mean = design @ weights + _TINY
    expected, counted, _ = apart
    covered = design.sum(axis=0)
    slope = design.T @ (bad / mean)
    covered[0] += expected
    slope[0] += counted / weights[0]
    curvature = (design * (bad / mean**2)[:, None]).T @ design
    curvature[0, 0] += counted / weights[0] ** 2
    gradient = slope - covered
    free = (weights > 2 * _TINY) | (gradient > 0)
    for _ in range(len(weights)):
        step = np.zeros(len(weights))
        some = curvature[np.ix_(free, free)]
        ridge = 1e-9 * np.diag(np.diag(some) + _TINY)
        step[free] = np.linalg.solve(some + ridge, gradient[free])
        tried = weights + step
        negative = free & (tried < _TINY)
        negative[0] = False
        if not negative.any():
            break
        free &= ~negative
    tried = np.where(free, np.maximum(tried, _TINY), _TINY)
    tried[0] = max(tried[0], weights[0] / 10)
    better = _value(tried, design, bad, apart)
    if better > value:
        return tried, better
    tried = np.maximum(weights * slope / np.maximum(covered, _TINY), _TINY)
    return tried, _value(tried, design, bad, apart)


def _entries(components: Components, some: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """The entries of some components, one after the other, where each begins, and their lengths."""
    start = components.cover.indptr.astype(np.int64)
    lengths = start[some + 1] - start[some]
    begin = np.cumsum(lengths) - lengths
    entry = np.arange(int(lengths.sum())) + np.repeat(start[some] - begin, lengths)
    return entry, begin, lengths


def gains(
    total: Floats, bad: Floats, mean: Floats, components: Components, some: Numbers
) -> tuple[Floats, Floats]:
    """How much likelier the counts become with one more fault, and its rate, for each of `some`.

    The other faults and the factor stay as they are. Newton's method from zero approaches the
    likeliest rate from below, since the slope is convex.
    """
    entry, begin, lengths = _entries(components, some)
    row, share = components.cover.indices[entry], components.cover.data[entry]
    segments = total[row] * share
    relative, counted = segments / mean[row], bad[row]
    covered = np.add.reduceat(segments, begin)
    rate = np.zeros(len(some))
    for _ in range(_STEPS):
        ratio = relative / (1 + np.repeat(rate, lengths) * relative)
        slope = np.add.reduceat(counted * ratio, begin) - covered
        bend = np.add.reduceat(counted * ratio**2, begin)
        step = np.where(bend > 0, slope / np.maximum(bend, _TINY), 0)
        moved = np.maximum(rate + step, 0)
        done = np.abs(moved - rate) <= 1e-2 * moved
        rate = moved
        if done.all():
            break
    grown = np.add.reduceat(counted * np.log1p(np.repeat(rate, lengths) * relative), begin)
    return grown - rate * covered, rate
