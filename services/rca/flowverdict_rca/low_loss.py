"""Losses too low to make a flow fail, found over long windows against what is normal."""

from collections import deque
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowverdict_contracts.verdicts import Component
from flowverdict_rca.decisions import Decisions, PairStatus
from flowverdict_rca.engine import localise as engine
from flowverdict_rca.engine.baseline import Baseline
from flowverdict_rca.judgement import Judgement
from flowverdict_rca.ranking import findings
from flowverdict_rca.servers_at_fault import as_servers
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.shares import LOST_TO_SHOW
from flowverdict_rca.suspects import known_causes_of, suspects_of
from flowverdict_rca.window import Window, lost_segments, total
from flowverdict_rca.window_table import answered_by, pairs_of, settled, table_of
from flowverdict_rca.withheld import unless_withheld

__all__ = ["LowLoss"]

_LEAST_RATE = 0.0005
"""A loss of less than one segment in 2,000 is nobody's trouble."""

_LEAST_LOST_BY_ONE = 15
"""Segments that a pair must lose to be named alone: a few in 30 s are lost on any busy machine."""

_REMEMBERED = 20
_LEARN_EVERY = 4

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


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
        sent = total(window.panes, "data_segments_sent")
        lost = np.minimum(lost_segments(window.panes), sent)
        suspects = [
            each
            for each in as_servers(suspects_of(found.causes, window), window, chosen, chosen)
            if each.rate >= _LEAST_RATE and _is_evident(lost[:, each.covers])
        ]
        sent, lost = sent.sum(axis=0), lost.sum(axis=0)
        rates = np.zeros(len(sent))
        for each in suspects:
            rates[each.covers] += each.rate
        others = chosen & (rates == 0) & ~answered_by([each.component for each in suspects], window)
        usual = float(lost[others].sum() / max(sent[others].sum(), 1))
        status = np.full(len(sent), PairStatus.UNDECIDED, np.int64)
        if suspects:
            least = np.where(rates > 0, rates, min(each.rate for each in suspects))
            shown = (others | (rates > 0)) & (least * sent >= LOST_TO_SHOW)
            status[shown] = PairStatus.OK
            # Poisson counts: is the higher mean the likelier one?
            gain = lost * np.log1p(rates / max(usual, 1e-6)) - rates * sent
            status[(rates > 0) & (gain > 0)] = PairStatus.FAIL
        decisions = Decisions.of_all_panes(window, status, self._settings)
        causes = unless_withheld(findings(decisions, known_causes_of(suspects, status)), window)
        return Judgement(decisions, causes, np.zeros(0, np.int64), self._settings, "losses", usual)

    def remember(self, window: Window, blamed: Iterable[Component]) -> None:
        """Remember a window but for the pairs of what is blamed: those are not normal."""
        normal = settled(window)
        for each in blamed:
            normal &= ~pairs_of(each, "both", window) & ~answered_by([each], window)
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


def _is_evident(lost: Floats) -> bool:
    """Whether losses, by pane and pair, are more than a machine that halted for a second, or that
    is busy, explains.
    """
    is_alone = np.count_nonzero(lost.any(axis=0)) == 1
    least = _LEAST_LOST_BY_ONE if is_alone else 1
    return bool(lost.any(axis=1).all() and lost.sum() >= least)
