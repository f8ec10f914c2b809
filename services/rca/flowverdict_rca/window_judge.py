"""Judges short and long windows, and knows what is open and what is normal."""

from collections.abc import Sequence

import pandas as pd

from flowverdict_contracts.verdicts import Verdict
from flowverdict_rca.engine.baseline import learn
from flowverdict_rca.incident import Incident
from flowverdict_rca.incidents import Incidents
from flowverdict_rca.judgement import judge
from flowverdict_rca.latency import Latency
from flowverdict_rca.low_loss import LowLoss
from flowverdict_rca.normal import Normal
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
        self._latency = Latency(settings)

    @property
    def known(self) -> tuple[Incident, ...]:
        """The incidents that a restart must remember."""
        return self._incidents.known

    def judge(self, window: Window) -> list[Verdict]:
        """The verdicts on the latest panes."""
        return list(self._incidents.judge(judge(window, self._settings)))

    def judge_long(self, window: Window) -> list[Verdict]:
        """The verdicts on a long window, which is remembered but for what an incident blames."""
        published: list[Verdict] = []
        for each in (self._low_loss, self._latency):
            published += self._incidents.judge(each.judge(window))
        causes = [each.causes[:1] for each in self.known]
        if all(causes):
            blamed = [cause for (cause,) in causes]
            self._low_loss.remember(window, blamed)
            self._latency.remember(window, blamed)
        return published

    def expect(self, normal: Normal) -> None:
        """Take this as normal."""
        self._low_loss.baseline = normal.losses
        self._latency.expect(normal.rtt_us)

    def to_learn_from(self) -> list[pd.DataFrame]:
        """The windows to learn from; empty if it is not time to."""
        return self._low_loss.to_learn_from()

    def learn(self, windows: Sequence[pd.DataFrame]) -> Normal:
        """Learn what is normal; takes long, and may run beside the rest."""
        baseline = self._low_loss.baseline = learn(windows)
        return Normal(losses=baseline, rtt_us=self._latency.normal_rtt_us())
