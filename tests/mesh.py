"""Pods that talk to each other, and what is said about them: for tests of long windows."""

from collections.abc import Callable, Mapping
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa

from conftest import SECOND, enriched_batch, flow_row, restarted
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.verdicts import Verdict, decode, encode
from flowverdict_rca.panes import Panes
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import Window
from flowverdict_rca.window_judge import WindowJudge
from flowverdict_rca.window_table import settled, table_of
from flowverdict_runtime.settings import load

SETTINGS = load(RcaSettings, {})
PODS = {f"pod-{letter}": f"worker{index // 3}" for index, letter in enumerate("abcdefghi")}
SEGMENTS = 150
T = 1_000_020
Loss = Callable[[str, str], float]


def nothing(src: str, dst: str) -> float:
    return 0.0002


def at(pod: str, rate: float, usual: Loss = nothing) -> Loss:
    """What a pod sends or receives is lost at this rate."""
    return lambda src, dst: rate if pod in (src, dst) else usual(src, dst)


class Mesh:
    """Pods that all talk to each other, second by second, and the verdicts on them."""

    def __init__(self) -> None:
        self.judge = WindowJudge(SETTINGS)
        self.panes = Panes(SETTINGS)
        self.second = T
        self.verdicts: list[Verdict] = []
        self.long_windows: list[Window] = []
        self.others: list[dict[str, Any]] = []
        self.conditions: dict[str, str] = {}
        self.rtt_us: Callable[[str, str], float] = lambda src, dst: 400
        self.rtt_variation_us: Callable[[str, str], int] = lambda src, dst: 100
        self.spurious = False
        self._messages: list[tuple[int, IntervalHeader, pa.RecordBatch]] = []
        self._random = np.random.default_rng(1)

    def passes(self, seconds: int, loss: Loss = nothing) -> None:
        pairs = list(permutations(PODS, 2))
        self.passes_rows(seconds, lambda: [self.row(*each, loss(*each)) for each in pairs])

    def passes_rows(self, seconds: int, rows: Callable[[], list[dict[str, Any]]]) -> None:
        for _ in range(seconds):
            number, start = self.second - T + 1, self.second * SECOND
            header = IntervalHeader("n1", "run", number, start, start + SECOND)
            self._messages.append((number, header, enriched_batch(*rows(), *self.others)))
            self.panes.add(header, self._messages[-1][-1], number)
            self.second += 1
            for window in self.panes.windows():
                self._hear(self.judge.judge(window))
                if self.panes.long_window:
                    self._judge_long(self.panes.long_window)

    def _judge_long(self, window: Window) -> None:
        self.long_windows.append(window)
        self._hear(self.judge.judge_long(window))
        tables = self.judge.to_learn_from()
        if tables:
            self.judge.learn(tables)

    def _hear(self, published: list[Verdict]) -> None:
        """As whoever subscribes to them does."""
        self.verdicts += [decode(encode(each)) for each in published]

    def tables(self) -> list[pd.DataFrame]:
        """The long windows so far, as they are learnt from."""
        return [table_of(each, settled(each)) for each in self.long_windows]

    def restart(self) -> None:
        """The worker is killed, and the next one reads again what it must."""
        self.judge = WindowJudge(SETTINGS, self.judge.known)
        self.panes = restarted(self.panes, SETTINGS, self._messages)

    def row(self, src: str, dst: str, rate: float) -> dict[str, Any]:
        lost = int(self._random.binomial(SEGMENTS, rate))
        ends = (f"{each}@{PODS[each]}" for each in (src, dst))
        rtt_us = int(self.rtt_us(src, dst) * self._random.uniform(0.8, 1.5))
        row = flow_row(
            *ends,
            data_segments_sent=SEGMENTS,
            retransmitted_segments=lost,
            spurious_retransmissions=lost if self.spurious else 0,
            rtt_us=rtt_us,
            rtt_variation_us=self.rtt_variation_us(src, dst),
        )
        of_src, of_dst = (self.conditions.get(each, "") for each in (src, dst))
        return row | {"src_condition": of_src, "dst_condition": of_dst}

    def said(self) -> list[tuple[str, str]]:
        """Status and cause of each verdict but the ongoing ones."""
        told = [each for each in self.verdicts if each.status != "ongoing"]
        return [(each.status, str(each.causes[0])) for each in told]


class Shop(Mesh):
    """Callers that ask servers, which ask a database; how long each takes to answer, how many
    answers a second the kernel sees of each pair, and how often a server asks for each of its own.
    """

    CALLERS: tuple[str, ...] = ("pod-a", "pod-d", "pod-g")
    SERVERS: tuple[str, ...] = ("pod-b", "pod-e", "pod-h")
    DATABASE = "pod-f"

    def __init__(self) -> None:
        super().__init__()
        self.answer_us: dict[str, float] = {}
        self.answers = 10.0
        self.asks = 1
        self.full = ""
        self.way_us: Callable[[str, str], float] = lambda src, dst: 0
        self.also: Callable[[str, str], Mapping[str, Any]] = lambda src, dst: {}

    def serves(self, seconds: int, loss: Loss = nothing) -> None:
        calls = [(src, dst) for src in self.CALLERS for dst in self.SERVERS]
        calls += [(server, self.DATABASE) for server in self.SERVERS]
        self.rtt_us = lambda src, dst: 400 + self.way_us(src, dst)

        def rows() -> list[dict[str, Any]]:
            asking = [self.row(*each, loss(*each)) | self._answers(*each) for each in calls]
            answering = [self.row(*each[::-1], loss(*each[::-1])) for each in calls]
            both = [*asking, *({**each, "role": "server"} for each in answering)]
            ends = [*calls, *(each[::-1] for each in calls)]
            return [{**row, **self.also(*pair)} for row, pair in zip(both, ends, strict=True)]

        self.passes_rows(seconds, rows)

    def _answers(self, src: str, dst: str) -> dict[str, int]:
        us = self.answer_us.get(dst, 2_000) + self.rtt_us(src, dst)
        often = self.answers
        if dst in self.SERVERS:  # each answer waits for the database
            way_us = self.way_us(dst, self.DATABASE)
            us += self.asks * (self.answer_us.get(self.DATABASE, 2_000) + way_us)
        else:
            often *= len(self.CALLERS) * self.asks
        count = int(self._random.poisson(often))
        total = int(us * count * self._random.uniform(0.9, 1.2))
        full = 5 * int(dst == self.full)
        return {"answers": count, "answers_us": total, "zero_windows_received": full}
