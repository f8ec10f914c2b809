"""Empirical Bayes: how much each of many counts really differs from what was expected of it.

The factors are a mixture of two gamma distributions, fitted to all counts (DuMouchel, The American
Statistician 53, 1999): many alike are pulled together, and a single bad one is left alone.
"""

import numpy as np
from scipy.optimize import minimize
from scipy.special import expit, gammaln

from flowverdict_rca.engine.rows import Floats

__all__ = ["posterior_means"]


def _log_marginal(shape: float, rate: float, bad: Floats, expected: Floats) -> Floats:
    """Log-probability of Poisson counts whose factor is gamma distributed (negative binomial)."""
    found: Floats = (
        gammaln(shape + bad) - gammaln(shape) - gammaln(bad + 1)
        + shape * np.log(rate / (rate + expected)) + bad * np.log(expected / (rate + expected))
    )  # fmt: skip
    return found


def posterior_means(bad: Floats, expected: Floats) -> Floats:
    """The expected factor of each count over what was expected of it."""
    sample = np.random.default_rng(0).permutation(len(bad))[:20_000]
    some_bad, some_expected = bad[sample], expected[sample]

    def parts(parameters: Floats) -> tuple[tuple[float, float], tuple[float, float], float]:
        shapes = np.exp(np.clip(parameters[:2], -7, 9))
        means = np.exp(np.clip(parameters[2:4], -5, 5))
        one, other = ((float(s), float(s / m)) for s, m in zip(shapes, means, strict=True))
        return one, other, float(expit(parameters[4]))

    def loss(parameters: Floats) -> float:
        one, other, weight = parts(parameters)
        first = _log_marginal(*one, some_bad, some_expected) + np.log(weight + 1e-12)
        second = _log_marginal(*other, some_bad, some_expected) + np.log(1 - weight + 1e-12)
        return -float(np.logaddexp(first, second).sum())

    start = np.array([4.0, 0.0, 0.0, 1.0, 3.0])
    best = minimize(loss, start, method="Nelder-Mead", options={"maxiter": 600, "fatol": 1e-2}).x
    one, other, weight = parts(best)
    first = _log_marginal(*one, bad, expected) + np.log(weight + 1e-12)
    second = _log_marginal(*other, bad, expected) + np.log(1 - weight + 1e-12)
    belongs = np.exp(first - np.logaddexp(first, second))
    means = [(shape + bad) / (rate + expected) for shape, rate in (one, other)]
    found: Floats = belongs * means[0] + (1 - belongs) * means[1]
    return found
