"""Losses too low to make a flow fail, found over long windows against what is normal."""

from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowverdict_contracts.verdicts import Component, Direction
from flowverdict_flows.components import both_ways, component_of
from flowverdict_rca.decisions import Decisions, PairStatus
from flowverdict_rca.engine import localise as engine
from flowverdict_rca.engine.baseline import Baseline
from flowverdict_rca.judgement import Judgement
from flowverdict_rca.known import KnownCause
from flowverdict_rca.ranking import findings
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import Window, total
from flowverdict_rca.window_table import component_at, named_in, pairs_of, settled, table_of

__all__ = ["LowLoss"]

_LEAST_RATE = 0.0005
"""A loss of less than one segment in 2,000 is nobody's trouble."""

_SHOWN = 3.0
"""Segments that had to be lost on average, for a pair that lost none to be OK (e^-3 = 5%)."""

_REMEMBERED = 20
_LEARN_EVERY = 4

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Suspect:
    """A component, the pairs that it covers, and the share of their segments lost because of it."""

    component: Component
    direction: Direction
    covers: Mask
    rate: float
    alternatives: tuple[Component, ...]


class LowLoss:
    """Judges long windows, and remembers them so that it can be learnt what is normal.

    Attributes:
        baseline: what is normal; None as long as that is unknown.
    """

    def __init__(self, settings: RcaSettings) -> None:
        self.baseline: Baseline | None = None
        self._settings = settings
        self._past: deque[pd.DataFrame] = deque(maxlen=_REMEMBERED)
        self._unlearnt = 0

    def judge(self, window: Window) -> Judgement:
        """What loses more than it normally does, or without a baseline, more than the rest."""
        chosen = settled(window)
        found = engine.localise(table_of(window, chosen), self.baseline)
        suspects = list(_suspects(found.causes, window))
        sent = total(window.panes[0], "data_segments_sent")
        lost = np.minimum(total(window.panes[0], "retransmitted_data_segments"), sent)
        rates = np.zeros(len(sent))
        for each in suspects:
            rates[each.covers] += each.rate
        others = chosen & (rates == 0) & ~_in_doubt(suspects, window)
        usual = float(lost[others].sum() / max(sent[others].sum(), 1))
        status = np.full(len(sent), PairStatus.UNDECIDED, np.int64)
        if suspects:
            least = np.where(rates > 0, rates, min(each.rate for each in suspects))
            shown = (others | (rates > 0)) & (least * sent >= _SHOWN)
            status[shown] = PairStatus.OK
            # Poisson counts: is the higher mean the likelier one?
            gain = lost * np.log1p(rates / max(usual, 1e-6)) - rates * sent
            status[(rates > 0) & (gain > 0)] = PairStatus.FAIL
        decisions = Decisions(window, status, window.panes[0], ())
        causes = tuple(findings(decisions, _known(suspects, status)))
        return Judgement(decisions, causes, np.zeros(0, np.int64), self._settings, usual)

    def remember(self, window: Window, blamed: Iterable[Component]) -> None:
        """Remember a window but for the pairs of what is blamed: those are not normal."""
        normal = settled(window)
        for each in blamed:
            normal &= ~pairs_of(each, "both", window)
        if normal.any():
            self._past.append(table_of(window, normal))
            self._unlearnt += 1

    def to_learn_from(self) -> list[pd.DataFrame]:
        """The tables remembered, if enough have been added and they tell more than the baseline;
        else none.
        """
        known_from = self.baseline.windows if self.baseline else 0
        if self._unlearnt < _LEARN_EVERY or len(self._past) < min(known_from, _REMEMBERED):
            return []
        self._unlearnt = 0
        return list(self._past)


def _suspects(causes: Iterable[engine.Cause], window: Window) -> Iterator[_Suspect]:
    """What the causes are in the window; what suffers both ways is one."""
    named = named_in(window)
    found: dict[Component, list[engine.Cause]] = {}
    for cause in causes:
        if cause.rate >= _LEAST_RATE:
            found.setdefault(both_ways(component_at(cause.where, named)[0]), []).append(cause)
    for whole, parts in found.items():
        component, direction = component_at(parts[0].where, named)
        alternatives = {component_at(each, named)[0] for each in parts[0].alternatives}
        if len(parts) > 1:
            component, direction, alternatives = whole, "both", set()
        yield _Suspect(
            component,
            direction,
            pairs_of(component, direction, window),
            max(each.rate for each in parts),
            tuple(sorted(alternatives - {component}, key=str)),
        )


def _in_doubt(suspects: Iterable[_Suspect], window: Window) -> Mask:
    """The pairs of services with a pod that is a suspect: it may have been the one to answer."""
    names = {str(each.component) for each in suspects}
    of_end = np.array(
        [
            any(str(component_of(pod)) in names for pod in window.facts.backends.get(each, ()))
            for each in window.endpoints
        ],
        np.bool_,
    )
    found: Mask = of_end[window.src] | of_end[window.dst] if len(of_end) else np.zeros(0, np.bool_)
    return found


def _known(suspects: Iterable[_Suspect], status: npt.NDArray[np.int64]) -> Iterator[KnownCause]:
    remaining = status == PairStatus.FAIL
    for each in suspects:
        explained = np.flatnonzero(remaining & each.covers)
        if explained.size:
            remaining[explained] = False
            ok = np.flatnonzero((status == PairStatus.OK) & each.covers)
            yield KnownCause(each.component, "", each.direction, explained, ok, each.alternatives)
