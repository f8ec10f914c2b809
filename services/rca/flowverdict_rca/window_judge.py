"""Judges short and long windows, and knows what is open and what is normal."""

from collections.abc import Sequence

import pandas as pd
from prometheus_client import Counter

from flowverdict_contracts.verdicts import Basis, Cause, Verdict
from flowverdict_rca.above_normal import MEASURED, AboveNormal
from flowverdict_rca.detectors.history import RatioHistory
from flowverdict_rca.engine.baseline import learn
from flowverdict_rca.incident import Incident
from flowverdict_rca.incidents import Incidents
from flowverdict_rca.judgement import judge
from flowverdict_rca.low_loss import LowLoss
from flowverdict_rca.normal import Normal
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import Window

__all__ = ["WindowJudge"]

_FAILING = Counter(
    "flowverdict_rca_failing_windows_total", "Windows in which any flow failed, verdict or not."
)


class WindowJudge:
    """Makes verdicts of windows.

    Args:
        incidents: those known before a restart.
    """

    def __init__(self, settings: RcaSettings, incidents: Sequence[Incident] = ()) -> None:
        self._settings = settings
        self._incidents = Incidents(settings, incidents)
        self._ratios = RatioHistory(settings)
        self._low_loss = LowLoss(settings)
        self._measured: dict[Basis, AboveNormal] = {}
        for basis in MEASURED:
            way = self._measured.get("latency") if basis == "answers" else None
            self._measured[basis] = AboveNormal(settings, basis, way)
        self._blamed: dict[str, Cause | None] = {}

    @property
    def known(self) -> tuple[Incident, ...]:
        """The incidents that a restart must remember."""
        return self._incidents.known

    def judge(self, window: Window) -> list[Verdict]:
        """The verdicts on the latest panes."""
        judgement = judge(window, self._settings, self._ratios.limits(window))
        self._ratios.remember(judgement.decisions)
        if judgement.failing.size:
            _FAILING.inc()
        published = list(self._incidents.judge(judgement))
        self._note()
        return published

    def judge_long(self, window: Window) -> list[Verdict]:
        """The verdicts on a long window, which is remembered but for what was blamed in it."""
        published: list[Verdict] = []
        for each in self._long:
            published += self._incidents.judge(each.judge(window))
        self._note()
        if "" not in self._blamed:
            blamed = list(filter(None, self._blamed.values()))
            for judging in self._long:
                judging.remember(window, blamed)
        self._blamed.clear()
        return published

    @property
    def _long(self) -> tuple[LowLoss | AboveNormal, ...]:
        return self._low_loss, *self._measured.values()

    def _note(self) -> None:
        """Note what is blamed now, by name, until the next long window ends."""
        for each in self.known:
            if each.state == "over":
                continue
            for cause in each.causes[:1]:
                self._blamed[str(cause)] = cause
            if not each.causes and each.is_open:
                self._blamed[""] = None

    def expect(self, normal: Normal) -> None:
        """Take this as normal."""
        self._low_loss.baseline = normal.losses
        for basis, each in self._measured.items():
            known = normal.measured.items()
            each.usual.expect({pair: of_pair[basis] for pair, of_pair in known if basis in of_pair})

    def to_learn_from(self) -> list[pd.DataFrame]:
        """The windows to learn from; empty if it is not time to."""
        return self._low_loss.to_learn_from()

    def learn(self, windows: Sequence[pd.DataFrame]) -> Normal:
        """Learn what is normal; takes long, and may run beside the rest."""
        baseline = self._low_loss.baseline = learn(windows)
        measured: dict[str, dict[str, tuple[int, int]]] = {}
        for basis, each in self._measured.items():
            for pair, readings in each.usual.expected().items():
                measured.setdefault(pair, {})[basis] = readings
        return Normal(baseline, measured)
