"""Generated call graphs: who asks whom, and how long answers and the way take."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from bench.batches import batch_of
from flowverdict_contracts.enriched import ARROW_SCHEMA

__all__ = ["NO_DELAY", "CallGraph", "Delay"]

_CLIENTS = 3
_PODS_OF_A_NODE = 4
_ASKED = (1, 1, 1, 2, 3)
"""How often for each answer; one of these."""
_BUSY = 0.3
"""A connection waits for answers for this share of the time, at most."""
_SEGMENTS = 200
_NEAR_US, _FAR_US = 80, 400

Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Delay:
    """What makes a pod slow: its own work, or the way to it and back."""

    pod: str
    answers_us: float = 0.0
    way_us: float = 0.0


NO_DELAY = Delay("")


@dataclass(slots=True)
class CallGraph:
    """Workloads that ask others before they answer.

    Clients ask the first workload; each other one is asked by one or two of those before it, once
    or a few times for each answer of theirs. Any pod of a workload may answer.

    Attributes:
        pods: of each workload, in the order of calls; the clients come first.
    """

    random: np.random.Generator
    workloads: int
    most_replicas: int
    pods: list[list[str]] = field(init=False)
    _asks: dict[tuple[int, int], int] = field(init=False)
    _work_us: list[float] = field(init=False)
    _node: dict[str, str] = field(init=False)
    _way_us: dict[tuple[str, str], float] = field(init=False)
    _calls: list[tuple[str, str]] = field(init=False)
    _each_second: Floats = field(init=False)
    _columns: dict[str, Any] = field(init=False)

    def __post_init__(self) -> None:
        random = self.random
        self.pods = [[f"clients-{number}" for number in range(_CLIENTS)]]
        self._asks = {}
        for called in range(1, self.workloads):
            replicas = int(random.integers(1, self.most_replicas + 1))
            self.pods.append([f"app{called}-{number}" for number in range(replicas)])
            callers = np.arange(1, called) if called > 1 else np.zeros(1, np.int64)
            count = min(len(callers), int(random.integers(1, 3)))
            for caller in random.choice(callers, size=count, replace=False).tolist():
                self._asks[caller, called] = int(random.choice(_ASKED))
        self._work_us = random.lognormal(np.log(3_000), 1.0, self.workloads).tolist()
        every = [pod for pods in self.pods for pod in pods]
        nodes = -(-len(every) // _PODS_OF_A_NODE)
        self._node = {pod: f"node-{int(random.integers(nodes))}" for pod in every}
        self._way_us = {}
        calls, rates = self._paths()
        busy = rates * (self._takes(calls, NO_DELAY) + self._ways(calls, NO_DELAY)) / 1e6
        connections = 1 + (busy / _BUSY).astype(np.int64)
        at = np.repeat(np.arange(len(calls)), connections)
        self._calls = [calls[each] for each in at.tolist()]
        self._each_second = rates[at] / connections[at]
        self._columns = self._constant_columns(every)

    def _paths(self) -> tuple[list[tuple[str, str]], Floats]:
        """Who asks whom, and how often a second."""
        answered = [float(self.random.uniform(1, 5)) * _CLIENTS] + [0.0] * (self.workloads - 1)
        calls, rates = [], []
        for (caller, called), asks in sorted(self._asks.items()):
            answered[called] += asks * answered[caller]
            pairs = [(src, dst) for src in self.pods[caller] for dst in self.pods[called]]
            calls += pairs
            rates += [asks * answered[caller] / len(pairs)] * len(pairs)
        return calls, np.array(rates)

    @property
    def servers(self) -> list[str]:
        """The pods that are asked."""
        return [pod for pods in self.pods[1:] for pod in pods]

    def takes_us(self, delay: Delay = NO_DELAY) -> dict[str, float]:
        """How long each pod takes to answer, with what it waits for."""
        found: dict[str, float] = {}
        for number in range(self.workloads - 1, 0, -1):
            for pod in self.pods[number]:
                us = self._work_us[number] + delay.answers_us * (pod == delay.pod)
                for (caller, called), asks in self._asks.items():
                    if caller == number:
                        ends = [(pod, other) for other in self.pods[called]]
                        ways = self._ways(ends, delay).tolist()
                        waits = [
                            found[other] + way for (_, other), way in zip(ends, ways, strict=True)
                        ]
                        us += asks * float(np.mean(waits))
                found[pod] = us
        return found

    def _takes(self, calls: list[tuple[str, str]], delay: Delay) -> Floats:
        takes_us = self.takes_us(delay)
        return np.array([takes_us[dst] for _, dst in calls])

    def _ways(self, calls: list[tuple[str, str]], delay: Delay) -> Floats:
        """The round trips between pods."""
        return np.array([self._way(min(ends), max(ends), delay) for ends in calls])

    def _way(self, one: str, other: str, delay: Delay) -> float:
        if (one, other) not in self._way_us:
            us = _NEAR_US if self._node[one] == self._node[other] else _FAR_US
            self._way_us[one, other] = float(self.random.lognormal(np.log(us), 0.3))
        return self._way_us[one, other] + delay.way_us * (delay.pod in (one, other))

    def second(self, delay: Delay = NO_DELAY) -> pa.RecordBatch:
        """The enriched rows of the next second: each connection's two ends."""
        way_us = self._ways(self._calls, delay)
        answers = self.random.poisson(self._each_second)
        # How long an answer takes varies like an exponential variable, beyond the least.
        mean_us = self._takes(self._calls, delay) + way_us
        varies = self.random.gamma(np.maximum(answers, 1e-9), mean_us / 2)
        answers_us = np.where(answers > 0, answers * mean_us / 2 + varies, 0.0)
        both_ways = np.concatenate([way_us, way_us])
        none = np.zeros(len(answers))
        changing = {
            "rtt_us": both_ways * self.random.uniform(0.8, 1.5, len(both_ways)),
            "rtt_variation_us": both_ways / 4,
            "answers": np.concatenate([answers, none]),
            "answers_us": np.concatenate([answers_us, none]),
        }
        return batch_of(self._columns, changing)

    def _constant_columns(self, pods: list[str]) -> dict[str, Any]:
        address = {pod: f"10.0.0.{number}" for number, pod in enumerate(pods, 1)}
        src = [pod for pod, _ in self._calls] + [pod for _, pod in self._calls]
        dst = [pod for _, pod in self._calls] + [pod for pod, _ in self._calls]
        texts = {"role": ["client"] * len(self._calls) + ["server"] * len(self._calls)}
        for end, ends in (("src", src), ("dst", dst)):
            texts |= {
                f"{end}_ip": [address[pod] for pod in ends],
                f"{end}_kind": ["pod"] * len(ends),
                f"{end}_namespace": ["default"] * len(ends),
                f"{end}_pod": ends,
                f"{end}_workload": [pod.rpartition("-")[0] for pod in ends],
                f"{end}_node": [self._node[pod] for pod in ends],
                f"{end}_name_confidence": ["certain"] * len(ends),
            }
        columns = {
            name: pa.array(values, pa.string()).dictionary_encode()
            for name, values in texts.items()
        }
        for name in ("segments_sent", "segments_received", "data_segments_sent"):
            columns[name] = pa.array([_SEGMENTS] * len(src), ARROW_SCHEMA.field(name).type)
        return columns
