"""The retransmission ratio above which each pair fails: one threshold, or by what it had before."""

from collections import deque
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowverdict_flows.pairs import ratios_of
from flowverdict_flows.ratios import RETRANSMISSION_RATIO
from flowverdict_rca.decisions import Decisions, PairStatus
from flowverdict_rca.detectors.statistical import DETECTORS, Detector
from flowverdict_rca.settings import LEARNED_DETECTORS, RcaSettings
from flowverdict_rca.window import COUNTS, Window, total
from flowverdict_runtime.context import CannotRun

__all__ = ["RatioHistory", "detector_of"]

_LEAST_WINDOWS = 10
_REMEMBERED = 60
_MOST_PAIRS = 100_000
_LEAST_RATIO = 0.01
"""Lower losses are judged in long windows, where they can be told from chance."""

Floats = npt.NDArray[np.float64]


def detector_of(settings: RcaSettings) -> Detector | None:
    """The detector that the settings choose; None for the threshold.

    Raises:
        CannotRun: if it needs what is not installed, or what it learns from cannot be read.
    """
    name = settings.detector
    if name not in LEARNED_DETECTORS:
        return DETECTORS.get(name)
    try:
        from flowverdict_rca.detectors import learned  # noqa: PLC0415 # an extra
    except ImportError as error:
        raise CannotRun(
            f"FLOWVERDICT_DETECTOR={name} needs scikit-learn and statsmodels, "
            f"pip install 'flowverdict-rca[detectors]': {error}"
        ) from None
    if name != "classifier":
        return {"dbscan": learned.dbscan, "forecast": learned.forecast}[name]
    if not settings.labelled_ratios:
        raise CannotRun("FLOWVERDICT_DETECTOR=classifier needs FLOWVERDICT_LABELLED_RATIOS")
    try:
        return learned.classifier(Path(settings.labelled_ratios))
    except (OSError, ValueError) as error:
        raise CannotRun(f"FLOWVERDICT_LABELLED_RATIOS: {error}") from None


class RatioHistory:
    """Remembers the ratios of windows that do not overlap, for ten minutes by default.

    Raises:
        CannotRun: as `detector_of`.
    """

    def __init__(self, settings: RcaSettings) -> None:
        self._settings = settings
        self._detector = detector_of(settings)
        self._past: deque[pd.Series[float]] = deque(maxlen=_REMEMBERED)
        self._limits: pd.Series[float] = pd.Series(dtype=np.float64)
        self._windows = 0

    def limits(self, window: Window) -> Floats:
        """The ratio above which each pair fails: the threshold if too little is known of it."""
        if self._detector is None:
            return np.full(len(window.src), self._settings.fail_ratio)
        known = self._limits.reindex(window.names_of_pairs).to_numpy(np.float64)
        found: Floats = np.where(np.isnan(known), self._settings.fail_ratio, known)
        return found

    def remember(self, decisions: Decisions) -> None:
        """Remember a window, if it begins where the last one that was remembered ended.

        What fails is not normal, and what sends too little has no ratio.
        """
        self._windows += 1
        if self._detector is None or self._windows % self._settings.window_panes:
            return
        window = decisions.window
        counts = window.counts
        sent = total(counts, "data_segments_sent")
        chosen = (sent >= self._settings.min_segments) & (decisions.status != PairStatus.FAIL)
        most = np.flatnonzero(chosen)[np.argsort(-sent[chosen])[:_MOST_PAIRS]]
        ratios = ratios_of(RETRANSMISSION_RATIO, counts[most], COUNTS)
        names = window.names_of_pairs[most]
        self._past.append(pd.Series(ratios, names, dtype=np.float64).groupby(level=0).max())
        past = pd.concat(list(self._past), axis=1).dropna(thresh=_LEAST_WINDOWS)
        if len(past):
            limits = np.maximum(self._detector(past.to_numpy().T), _LEAST_RATIO)
            self._limits = pd.Series(limits, past.index)
