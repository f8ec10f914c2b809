"""Generated clusters: who talks to whom, what is lost without a fault, and what a fault adds.

The segments of a pair in a window are Poisson, with a mean that differs between pairs (log-normal).
Lost segments are Poisson, too, or come in bursts.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = ["FAULTS", "Fault", "GeneratedCluster", "Traffic"]

Floats = npt.NDArray[np.float64]
Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
_MOST_LOSS = 0.9


@dataclass(frozen=True, slots=True)
class Traffic:
    """What a cluster is like.

    Attributes:
        pods: how many; every node has four, every workload three.
        graph: "mesh", in which everyone talks to everyone, or "calls", in which workloads call a
            few others.
        segments: mean of a pair in a window.
        skew: standard deviation of the logarithm of that mean between pairs.
        background: share of segments lost without a fault; `spread` is how it differs between pairs
            like `skew`.
        hub: share that one of the pods always loses on top.
        burst: how many losses come at once.
        talking: the share of pairs that have segments in a window, others in each.
        period: each pair has segments in one window of so many, in turn.
    """

    pods: int = 16
    graph: str = "mesh"
    segments: float = 3000
    skew: float = 1.0
    background: float = 1e-3
    spread: float = 0.0
    hub: float = 0.0
    burst: int = 1
    talking: float = 1.0
    period: int = 1


@dataclass(frozen=True, slots=True)
class Fault:
    """What is broken.

    Attributes:
        where: as in a cause.
        covers: by pair, 1 if it has the fault and 0 if not; more or less than 1 if it is worse or
            milder for that pair.
        loss: the share of their segments that pairs with the fault lose, in the mean.
    """

    where: dict[str, str]
    covers: Floats
    loss: float


@dataclass(slots=True)
class GeneratedCluster:
    """Pods on nodes in zones, and the pairs that talk.

    Attributes:
        names: of the pods.
        src, dst: of each pair, by number of the pod.
        background: the share of segments that each pair loses without a fault.
    """

    traffic: Traffic
    random: np.random.Generator
    names: list[str] = field(init=False)
    src: Numbers = field(init=False)
    dst: Numbers = field(init=False)
    _mean: Floats = field(init=False)
    background: Floats = field(init=False)
    _turn: Numbers = field(init=False)
    _windows: int = 0

    def __post_init__(self) -> None:
        self.names = [self._new_name(pod) for pod in range(self.traffic.pods)]
        pairs = self._mesh() if self.traffic.graph == "mesh" else self._calls()
        self.src, self.dst = np.array(pairs, np.int64).T
        size, skew, spread = len(self.src), self.traffic.skew, self.traffic.spread
        self._mean = self.traffic.segments * self.random.lognormal(-(skew**2) / 2, skew, size)
        self.background = self.traffic.background * self.random.lognormal(0, spread, size)
        self._turn = np.arange(size) % self.traffic.period
        if self.traffic.hub:
            hub = self.random.integers(self.traffic.pods)
            self.background[(self.src == hub) | (self.dst == hub)] += self.traffic.hub

    def _new_name(self, pod: int) -> str:
        return f"{self.workload(pod)}-{self.random.integers(1 << 32):08x}"

    def workload(self, pod: int) -> str:
        """The workload of a pod."""
        return f"workload-{pod // 3}"

    def node(self, pod: int) -> str:
        """The node of a pod."""
        return f"node-{pod % max(2, self.traffic.pods // 4)}"

    def zone(self, pod: int) -> str:
        """The zone of a pod's node."""
        return f"zone-{pod % max(2, self.traffic.pods // 4) % 3}"

    def called(self, name: str, pods: Numbers) -> Any:
        """The names of these pods, or of their nodes, workloads or zones."""
        of = self.names.__getitem__ if name == "pod" else getattr(self, name)
        return np.array([of(pod) for pod in range(self.traffic.pods)], object)[pods]

    def rename(self) -> None:
        """Replace half of the pods, each by one of another name in its place."""
        for pod in self.random.permutation(self.traffic.pods)[::2].tolist():
            self.names[pod] = self._new_name(pod)

    def window(
        self, faults: Sequence[Fault] = (), *, factor: float = 1.0, echo: float = 0.0
    ) -> pd.DataFrame:
        """The counts of one window.

        Args:
            faults: what is broken.
            factor: by how much the background differs from what it usually is.
            echo: share of a fault's loss that is seen the other way, too.
        """
        segments = self.random.poisson(self._mean) * self._talks()
        rate = factor * self.background
        for fault in faults:
            rate = rate + fault.loss * fault.covers
            if echo:
                only_echoes = self._other_way(fault.covers) & (fault.covers == 0)
                rate = rate + echo * fault.loss * only_echoes
        rate = np.minimum(rate, _MOST_LOSS)
        burst = self.traffic.burst
        lost = np.minimum(self.random.poisson(segments * rate / burst) * burst, segments)
        columns: dict[str, Any] = {}
        for end, pods in (("src", self.src), ("dst", self.dst)):
            for name in ("pod", "node", "workload", "zone"):
                columns[f"{end}_{name}"] = self.called(name, pods)
        columns |= {"dst_service": columns["dst_workload"]}
        columns |= {"segments": segments, "retransmits": lost}
        return pd.DataFrame(columns)[segments > 0]

    def _talks(self) -> Mask:
        """Which pairs have anything to say in the next window."""
        self._windows += 1
        talks: Mask = self._turn == self._windows % self.traffic.period
        if self.traffic.talking < 1:
            talks &= self.random.random(len(talks)) < self.traffic.talking
        return talks

    def _other_way(self, covers: Floats) -> Mask:
        key = self.src * self.traffic.pods + self.dst
        found: Mask = np.isin(self.dst * self.traffic.pods + self.src, key[covers > 0])
        return found

    def _mesh(self) -> list[tuple[int, int]]:
        pods = range(self.traffic.pods)
        return [(one, other) for one in pods for other in pods if one != other]

    def _calls(self) -> list[tuple[int, int]]:
        """Each workload is called by one or two of those before it, from each pod to each."""
        members: dict[str, list[int]] = {}
        for pod in range(self.traffic.pods):
            members.setdefault(self.workload(pod), []).append(pod)
        workloads = list(members.values())
        pairs = set()
        for number, called in enumerate(workloads[1:], 1):
            count = min(number, 1 + int(self.random.integers(2)))
            for caller in self.random.choice(number, size=count, replace=False):
                for one in workloads[caller]:
                    for other in called:
                        pairs |= {(one, other), (other, one)}
        return sorted(pairs)

    def fault(self, kind: str, loss: float, uneven: float = 0.0) -> Fault:
        """A random fault of a kind in `FAULTS`.

        How bad it is for a pair is drawn from a gamma distribution whose standard deviation is
        `uneven` times its mean.
        """
        where, covers = FAULTS[kind](self, int(self.random.integers(len(self.src))))
        degree = np.ones(len(self.src))
        if uneven:
            shape = uneven**-2
            degree = self.random.gamma(shape, 1 / shape, len(self.src))
        return Fault(where, covers * degree, loss)


def _single(
    name: str, ends: Sequence[str], of: str
) -> Callable[[GeneratedCluster, int], tuple[dict[str, str], Mask]]:
    """A fault of one thing, at one end or at either."""

    def make(cluster: GeneratedCluster, pair: int) -> tuple[dict[str, str], Mask]:
        at_ends = [cluster.called(of, getattr(cluster, end)) for end in ends]
        value = at_ends[0][pair]
        covers = np.logical_or.reduce([each == value for each in at_ends])
        return {name: value}, covers

    return make


def _between(of: str) -> Callable[[GeneratedCluster, int], tuple[dict[str, str], Mask]]:
    """A fault on the way from one to another."""

    def make(cluster: GeneratedCluster, pair: int) -> tuple[dict[str, str], Mask]:
        src, dst = (cluster.called(of, pods) for pods in (cluster.src, cluster.dst))
        while src[pair] == dst[pair]:
            pair = int(cluster.random.integers(len(src)))
        covers = (src == src[pair]) & (dst == dst[pair])
        return {f"src_{of}": str(src[pair]), f"dst_{of}": str(dst[pair])}, covers

    return make


FAULTS = {
    "pod sending": _single("src_pod", ["src"], "pod"),
    "pod receiving": _single("dst_pod", ["dst"], "pod"),
    "pod": _single("pod", ["src", "dst"], "pod"),
    "node": _single("node", ["src", "dst"], "node"),
    "link": _between("pod"),
    "node pair": _between("node"),
    "workload pair": _between("workload"),
    "zone": _single("zone", ["src", "dst"], "zone"),
    "service": _single("service", ["dst"], "workload"),
}
"""Each kind of fault, by name."""
