"""Delays in call graphs: how often the pod that is slow, and nothing else, is named.

What one pod does late, whoever waits for it does late, too. A trial is a call graph that is first
healthy and then has one slow pod, or a slow way to it, and the worker's verdicts on it. A delay of
less than the pod takes to answer at all is counted apart: it is not twice what is normal.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from bench.accuracy.call_graphs import NO_DELAY, CallGraph, Delay
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.verdicts import Verdict
from flowverdict_rca.panes import Panes
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window_judge import WindowJudge
from flowverdict_runtime.settings import load

__all__ = ["DELAYS", "HEALTHY_WINDOWS", "DelayCell", "DelayResult", "run_delay_trial"]

HEALTHY_WINDOWS = 10
_FAULTY_WINDOWS = 4
_SECONDS_OF_A_WINDOW = 30
_LEAST_US, _MOST_US = 50_000, 500_000
_SECOND = 1_000_000_000
_BEGIN = 1_000_020
_SETTINGS = load(RcaSettings, {"FLOWVERDICT_PANE_SECONDS": "10", "FLOWVERDICT_WINDOW_PANES": "1"})
"""Long windows are as long as usual, short ones are not what this is about."""


@dataclass(frozen=True, slots=True)
class DelayCell:
    """One kind of trial.

    Attributes:
        name: for people.
        slow: what is slow: how a pod answers, or the way to it.
        most_replicas: pods of a workload; from one on.
        least: what the lower bound of the share of right trials is to reach.
    """

    name: str
    slow: Literal["answers", "way"]
    most_replicas: int
    least: float = 0.95


DELAYS = (
    DelayCell("a slow pod", "answers", 3),
    DelayCell("a slow way to a pod", "way", 3),
    DelayCell("a slow pod, one pod a workload", "answers", 1),
    DelayCell("a slow way to a pod, one pod a workload", "way", 1),
)
"""Every cell."""


@dataclass(frozen=True, slots=True)
class DelayResult:
    """What came out of one trial.

    Attributes:
        right: whether incidents were opened, and all of them named that pod.
        unseen: whether the delay was too short to be seen.
        alarms: incidents of the healthy time.
    """

    right: bool
    unseen: bool
    alarms: int


def run_delay_trial(cell: DelayCell, seed: int, number: int) -> DelayResult:
    """One call graph, its healthy time, and its delay."""
    random = np.random.default_rng([seed, number])
    graph = CallGraph(random, int(random.integers(5, 13)), cell.most_replicas)
    watched = _Watched(graph)
    before = watched.opened(HEALTHY_WINDOWS)
    pod = str(random.choice(graph.servers))
    us = float(np.exp(random.uniform(np.log(_LEAST_US), np.log(_MOST_US))))
    delay = Delay(pod, **{f"{cell.slow}_us": us})
    named = [str(cause) for each in watched.opened(_FAULTY_WINDOWS, delay) for cause in each.causes]
    return DelayResult(
        right=set(named) == {f"pod default/{pod}"},
        unseen=cell.slow == "answers" and us < graph.takes_us()[pod],
        alarms=len(before),
    )


class _Watched:
    """A call graph whose flows the worker judges."""

    def __init__(self, graph: CallGraph) -> None:
        self._graph = graph
        self._judge, self._panes = WindowJudge(_SETTINGS), Panes(_SETTINGS)
        self._number = 0

    def opened(self, windows: int, delay: Delay = NO_DELAY) -> list[Verdict]:
        """The verdicts that open an incident in the next long windows."""
        published: list[Verdict] = []
        for _ in range(_SECONDS_OF_A_WINDOW * windows):
            self._number += 1
            start = (_BEGIN + self._number) * _SECOND
            header = IntervalHeader("node", "run", self._number, start, start + _SECOND)
            self._panes.add(header, self._graph.second(delay), self._number)
            for window in self._panes.windows():
                published += self._judge.judge(window)
                if self._panes.long_window:
                    published += self._judge.judge_long(self._panes.long_window)
        return [each for each in published if each.status == "opened"]
