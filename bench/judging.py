"""How long the RCA worker takes to judge a window, on one core: its panes last two seconds, and a
window that takes longer is late for the next.

Pods talk to others drawn at random, each pair both ways; nothing fails at first, then one pod loses
a fifth of what it sends and receives.
"""

import time
from collections.abc import Callable
from functools import partial
from itertools import count
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.batches import batch_of
from bench.figure import Figure
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.verdicts import Verdict
from flowverdict_rca.panes import Panes
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window_judge import WindowJudge
from flowverdict_runtime.settings import load

__all__ = ["measure"]

_SIZES = ((200, 10_000), (1_000, 50_000), (2_000, 200_000))
_ON_A_NODE, _IN_A_WORKLOAD = 20, 5
_SEGMENTS, _BACKGROUND, _LOSS = 100, 5e-4, 0.2
_HEALTHY_SECONDS, _FAULTY_SECONDS = 300, 60
_LOSSY = 7
_BEGIN = 1_000_020  # seconds; where a long window begins

T = TypeVar("T")

Numbers = npt.NDArray[np.int64]


class _Cluster:
    """Pods that talk, and what a node says about them in two seconds."""

    def __init__(self, pods: int, rows: int) -> None:
        self._random = np.random.default_rng(1)
        one, other = self._random.integers(pods, size=(2, rows // 2))
        one, other = np.unique(np.stack([one, other])[:, one < other], axis=1)
        self._src, self._dst = np.concatenate([one, other]), np.concatenate([other, one])
        self._is_client = np.arange(len(self._src)) < len(one)
        self._names = _named("src", self._src) | _named("dst", self._dst)
        self._names["role"] = _texts(["server", "client"], self._is_client.astype(np.int64))
        self.pairs = len(self._src)

    def interval(self, lossy: int | None) -> pa.RecordBatch:
        """The rows of two seconds of all nodes."""
        sent = self._random.poisson(_SEGMENTS, self.pairs)
        rate = np.full(self.pairs, _BACKGROUND)
        if lossy is not None:
            rate[(self._src == lossy) | (self._dst == lossy)] = _LOSS
        lost = self._random.binomial(sent, rate)
        answers = np.where(self._is_client, self._random.poisson(5, self.pairs), 0)
        counts = {
            "segments_sent": sent + lost,
            "segments_received": sent,
            "data_segments_sent": sent + lost,
            "retransmitted_segments": lost,
            "retransmitted_data_segments": lost,
            "bytes_sent": 500 * sent,
            "bytes_acked": 500 * sent,
            "rtt_us": self._random.integers(200, 400, self.pairs),
            "rtt_variation_us": self._random.integers(50, 100, self.pairs),
            "answers": answers,
            "answers_us": answers * self._random.gamma(20, 250, self.pairs),
        }
        return batch_of(self._names, counts)


def _named(end: str, pods: Numbers) -> dict[str, pa.Array]:
    every = range(int(pods.max()) + 1)
    one = np.zeros_like(pods)
    return {
        f"{end}_ip": _texts([f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in every], pods),
        f"{end}_pod": _texts([*map(_name, every)], pods),
        f"{end}_workload": _texts([f"web-{n}" for n in every], pods // _IN_A_WORKLOAD),
        f"{end}_node": _texts([f"node-{n}" for n in every], pods // _ON_A_NODE),
        f"{end}_zone": _texts(["zone-a", "zone-b", "zone-c"], pods // _ON_A_NODE % 3),
        f"{end}_kind": _texts(["pod"], one),
        f"{end}_namespace": _texts(["default"], one),
        f"{end}_name_confidence": _texts(["certain"], one),
    }


def _name(pod: int) -> str:
    return f"web-{pod // _IN_A_WORKLOAD}-{pod:08x}"


def _texts(texts: list[str], codes: Numbers) -> pa.DictionaryArray:
    return pa.DictionaryArray.from_arrays(pa.array(codes.astype(np.int32)), pa.array(texts))


class _Worker:
    """An RCA worker without NATS, and how long its steps took."""

    def __init__(self, cluster: _Cluster) -> None:
        settings = load(RcaSettings, {})
        self._cluster, self._panes, self._judge = cluster, Panes(settings), WindowJudge(settings)
        self._numbers = count(1)
        self.seconds: dict[str, list[float]] = {}
        self.verdicts: list[Verdict] = []

    def passes(self, seconds: int, lossy: int | None = None) -> None:
        """Let seconds pass in which a pod is lossy, or none."""
        for _ in range(seconds // 2):
            number = next(self._numbers)
            end_ns = (_BEGIN + 2 * number) * 10**9
            header = IntervalHeader("node-0", "run", number, end_ns - 2 * 10**9, end_ns)
            self._panes.add(header, self._cluster.interval(lossy), number)
            windows = self._panes.windows()
            while window := self._timed("made", partial(next, windows, None)):
                self.verdicts += self._timed("judged", partial(self._judge.judge, window))
                if long := self._panes.long_window:
                    judge = partial(self._judge.judge_long, long)
                    self.verdicts += self._timed("judged, a long one", judge)
                if tables := self._judge.to_learn_from():
                    self._timed("learnt from", partial(self._judge.learn, tables))

    def _timed(self, step: str, work: Callable[[], T]) -> T:
        began = time.process_time()
        done = work()
        self.seconds.setdefault(step, []).append(time.process_time() - began)
        return done


def measure() -> list[Figure]:
    """The most that each step took, in milliseconds: making a window of its panes, which is done
    between two messages, judging it and every third time a long one, and learning what is normal,
    which is done beside the rest.
    """
    figures = []
    for pods, rows in _SIZES:
        cluster = _Cluster(pods, rows)
        worker = _Worker(cluster)
        worker.passes(_HEALTHY_SECONDS)
        if worker.verdicts:
            raise RuntimeError(f"without a fault, it said {worker.verdicts[0].summary}")
        worker.passes(_FAULTY_SECONDS, lossy=_LOSSY)
        named = {cause.name for verdict in worker.verdicts for cause in verdict.causes[:1]}
        if named != {f"default/{_name(_LOSSY)}"}:
            raise RuntimeError(f"it named {named}")
        for step, seconds in worker.seconds.items():
            what = f"{cluster.pairs:,} pairs of {pods:,} pods, {step}"
            figures.append(Figure("judging", what, 1000 * max(seconds), "ms"))
    return figures
