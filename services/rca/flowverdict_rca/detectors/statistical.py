"""Which retransmission ratio is too high for a pair, by what its ratios were before.

Each detector takes past ratios, shape (windows, pairs), the newest last, NaN where a pair sent too
little to have one, and returns the highest ratio of each pair that is not an anomaly.
"""

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

__all__ = [
    "DETECTORS",
    "Detector",
    "moving_average",
    "percentile",
    "probability",
    "usual",
    "z_score",
]

Floats = npt.NDArray[np.float64]
Detector = Callable[[Floats], Floats]

_DEVIATIONS = 3.0
_RECENT = 12
_PERCENT = 95
_ALPHA = 0.001
_LEAST_DEVIATION = 0.003
"""A pair that has never lost anything has no deviation, and would fail at its first loss."""


def z_score(past: Floats) -> Floats:
    """R with Z = (R - mean) / deviation > 3, over all that is remembered."""
    mean, deviation = _moments(past)
    return mean + _DEVIATIONS * deviation


def moving_average(past: Floats) -> Floats:
    """R > mean + 3 deviations, over the last twelve windows (Shewhart's control chart, 1931)."""
    mean, deviation = _moments(past[-_RECENT:])
    return mean + _DEVIATIONS * deviation


def percentile(past: Floats) -> Floats:
    """R > P95, the 95th percentile of all that is remembered."""
    with _nothing_known():
        found: Floats = np.nanpercentile(past, _PERCENT, axis=0)
    return found


def probability(past: Floats) -> Floats:
    """R with P(X >= R) < 0.001 for X normal, with the mean and deviation of all remembered."""
    mean, deviation = _moments(past)
    return mean - float(ndtri(_ALPHA)) * deviation


DETECTORS: dict[str, Detector] = {
    "z-score": z_score,
    "moving-average": moving_average,
    "percentile": percentile,
    "probability": probability,
}
"""By name, those that need nothing but what is installed anyway."""


def usual(past: Floats) -> Floats:
    """Each pair's mean, NaN for one without any past."""
    with _nothing_known():
        found: Floats = np.nanmean(past, axis=0)
    return found


def _moments(past: Floats) -> tuple[Floats, Floats]:
    with _nothing_known():
        deviation = np.nanstd(past, axis=0)
    return usual(past), np.maximum(deviation, _LEAST_DEVIATION)


def _nothing_known() -> warnings.catch_warnings:
    """Pairs without any past have NaN, which numpy warns of."""
    return warnings.catch_warnings(action="ignore", category=RuntimeWarning)
