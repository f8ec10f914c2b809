"""Judges short and long windows, and knows what is open and what is normal."""

from collections.abc import Sequence

import pandas as pd

from flowverdict_contracts.verdicts import Verdict
from flowverdict_rca.engine.baseline import Baseline
from flowverdict_rca.incidents import Incident, Incidents
from flowverdict_rca.judgement import judge
from flowverdict_rca.low_loss import LowLoss
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import Window

__all__ = ["WindowJudge"]


class WindowJudge:
    """Makes verdicts of windows.

    Args:
        incidents: those known before a restart.
    """

    def __init__(self, settings: RcaSettings, incidents: Sequence[Incident] = ()) -> None:
        self._settings = settings
        self._incidents = Incidents(settings, incidents)
        self._low_loss = LowLoss(settings)

    @property
    def known(self) -> tuple[Incident, ...]:
        """The incidents that a restart must remember."""
        return self._incidents.known

    def judge(self, window: Window) -> list[Verdict]:
        """The verdicts on the latest panes."""
        return list(self._incidents.judge(judge(window, self._settings)))

    def judge_long(self, window: Window) -> list[Verdict]:
        """The verdicts on a long window, which is remembered but for what an incident blames."""
        published = list(self._incidents.judge(self._low_loss.judge(window)))
        blamed = [each.causes[:1] for each in self.known]
        if all(blamed):
            self._low_loss.remember(window, [cause for (cause,) in blamed])
        return published

    def to_learn_from(self) -> list[pd.DataFrame]:
        """The windows to learn from; empty if it is not time to."""
        return self._low_loss.to_learn_from()

    def expect(self, baseline: Baseline | None) -> None:
        """Take this as normal from now on."""
        self._low_loss.baseline = baseline
