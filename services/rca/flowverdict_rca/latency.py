"""Round trips that take longer than they normally do, found over long windows."""

from collections.abc import Iterable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowverdict_contracts.verdicts import Component
from flowverdict_flows.components import component_of
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.decisions import Decisions, PairStatus
from flowverdict_rca.engine.localise import localise
from flowverdict_rca.judgement import Judgement
from flowverdict_rca.ranking import findings
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.suspects import known_causes_of, suspects_of
from flowverdict_rca.window import Window
from flowverdict_rca.window_table import pairs_of, settled, table_of

__all__ = ["Latency"]

_READINGS = ("rtt_us", "rtt_variation_us")
_LEAST_SAMPLES = 3
_LEAST_WINDOWS = 4
_FACTOR = 2.0
_MARGIN_US = 5_000
_FADING = 0.97
_FORGOTTEN_AFTER = 240
_MOST_PAIRS = 200_000

Mask = npt.NDArray[np.bool_]


class Latency:
    """Judges the round trips of long windows, and remembers what is normal for each pair.

    Attributes:
        normal: by pair, indexed by the words for its ends: `rtt_us`, the longest mean of a window,
            and `rtt_variation_us`, the largest, both of which fade; `windows`, how many had one;
            `age`, how many windows ago the last one was.
    """

    def __init__(self, settings: RcaSettings) -> None:
        self.expect({})
        self._settings = settings

    def expect(self, normal: Mapping[str, tuple[int, int]]) -> None:
        """Take these round trips and how they vary as normal, by pair, in microseconds."""
        self.normal = pd.DataFrame.from_dict(
            dict(normal), orient="index", columns=list(_READINGS), dtype=np.float64
        ).assign(windows=float(_LEAST_WINDOWS), age=0.0)

    def normal_us(self) -> dict[str, tuple[int, int]]:
        """The round trips that are normal and how they vary, by pair, those seen last first."""
        known = self.normal[self.normal["windows"] >= _LEAST_WINDOWS].sort_values("age")
        readings = known[list(_READINGS)].astype(int).itertuples(name=None)
        return {str(pair): (rtt_us, variation_us) for pair, rtt_us, variation_us in readings}

    def judge(self, window: Window) -> Judgement:
        """What is behind round trips that take more than twice as long as normal, and 5 ms more."""
        known = self.normal.reindex(_names(window))
        is_known = (known["windows"] >= _LEAST_WINDOWS).to_numpy()
        usual_us = np.where(is_known, known["rtt_us"], np.nan)
        judged = _measured(window) & is_known
        slow = judged & _is_above(window.rtt_us, known["rtt_us"])
        unsteady = slow & _is_above(window.rtt_variation_us, known["rtt_variation_us"])
        status = np.full(len(judged), PairStatus.UNDECIDED, np.int64)
        status[judged & ~slow] = PairStatus.OK
        causes = []
        if slow.any():
            table = table_of(window, judged).assign(
                samples=window.rtt_samples[judged], slow=(window.rtt_samples * slow)[judged]
            )
            found = localise(table, total="samples", bad="slow")
            # A connection has a round trip at either end: one alone is how it is used.
            suspects = [
                each for each in suspects_of(found.causes, window) if (each.covers & slow).sum() > 1
            ]
            for each in suspects:
                status[each.covers & slow] = PairStatus.FAIL
            decided = Decisions(window, status, window.panes.sum(axis=0), ())
            causes = findings(decided, known_causes_of(suspects, status))
        failing = status == PairStatus.FAIL
        usual = float(np.median(usual_us[failing])) if failing.any() else 0.0
        decisions = Decisions(window, status, window.panes.sum(axis=0), ())
        return Judgement(
            decisions,
            tuple(causes),
            np.zeros(0, np.int64),
            self._settings,
            "latency",
            usual,
            np.flatnonzero(unsteady),
        )

    def remember(self, window: Window, blamed: Iterable[Component]) -> None:
        """Remember a window but for the pairs of what is blamed: those are not normal."""
        chosen = _measured(window)
        for each in blamed:
            chosen &= ~pairs_of(each, "both", window)
        names = _names(window)[chosen]
        readings = {name: getattr(window, name)[chosen] for name in _READINGS}
        seen = pd.DataFrame(readings, names, dtype=np.float64).groupby(level=0).max()
        normal = self.normal.reindex(self.normal.index.union(seen.index))
        normal["age"] = normal["age"].fillna(0) + 1
        before = normal.loc[seen.index]
        for name in _READINGS:
            normal.loc[seen.index, name] = np.fmax(seen[name], _FADING * before[name])
        normal.loc[seen.index, "windows"] = before["windows"].fillna(0) + 1
        normal.loc[seen.index, "age"] = 0
        kept = normal[normal["age"] <= _FORGOTTEN_AFTER]
        self.normal = kept.nsmallest(_MOST_PAIRS, "age")


def _is_above(microseconds: Numbers, normal_us: "pd.Series[float]") -> Mask:
    """Whether each is more than twice as long as normal, and 5 ms more."""
    above: Mask = microseconds > _FACTOR * normal_us.fillna(0).to_numpy() + _MARGIN_US
    return above


def _measured(window: Window) -> Mask:
    """Pairs whose round trips were measured, and lead from one known place to another.

    Those of a service's address are those of whichever pod answered, which has its own.
    """
    backends = window.facts.backends
    of_end = np.array([not backends.get(each) for each in window.endpoints], np.bool_)
    measured: Mask = settled(window) & (window.rtt_samples >= _LEAST_SAMPLES)
    if len(of_end):
        measured &= of_end[window.src] & of_end[window.dst]
    return measured


def _names(window: Window) -> npt.NDArray[np.object_]:
    """The two ends of each pair, in words."""
    ends = np.array([str(component_of(each)) for each in window.endpoints], object)
    names: npt.NDArray[np.object_] = ends[window.src] + " " + ends[window.dst]
    return names
