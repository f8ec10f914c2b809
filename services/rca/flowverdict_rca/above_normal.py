"""What is higher than it normally is, found over long windows: round trips and how much they vary,
the times of answers, how often packets are dropped, connections refused, reset or not completed, or
receivers without room.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowverdict_contracts.verdicts import Basis, Component, Direction
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.decisions import Decisions, PairStatus
from flowverdict_rca.engine.localise import localise
from flowverdict_rca.judgement import Judgement
from flowverdict_rca.measured import (
    Measured,
    answers,
    drops,
    failed_connects,
    half_open,
    resets,
    round_trips,
    variations,
    zero_windows,
)
from flowverdict_rca.ranking import findings
from flowverdict_rca.servers_at_fault import as_servers
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.suspects import Suspect, known_causes_of, suspects_of
from flowverdict_rca.window import Window
from flowverdict_rca.window_table import answered_by, pairs_of, table_of
from flowverdict_rca.withheld import unless_withheld

__all__ = ["MEASURED", "AboveNormal"]

_READINGS = ("values", "variations")
_LEAST_WINDOWS = 4
_WARM_UP_WINDOWS = 2
_FACTOR = 2.0
_FADING = 0.97
_SUSPECTED_WINDOWS = 10
"""What is above normal and has no cause yet may be the beginning of a fault, unless it lasts."""
_FORGOTTEN_AFTER = 240
_MOST_PAIRS = 200_000
_MOSTLY = 500
"""Per 1,000."""
_CAUSED = 0.5
"""What a server waits for explains how long it takes, if it is at least half of it."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is measured, by how much more than twice of what is normal is too much, and which way
    a cause suffers if only one end of a flow can be one.
    """

    measure: Callable[[Window], Measured]
    margin: int
    way: Direction | None = None


_KINDS: dict[Basis, _Kind] = {
    "drops": _Kind(drops, 5),
    "connects": _Kind(failed_connects, 100),
    "resets": _Kind(resets, 100),
    "half_open": _Kind(half_open, 100, "sending"),
    "zero_windows": _Kind(zero_windows, 5, "receiving"),
    "latency": _Kind(round_trips, 5_000),
    # Some acknowledgements are delayed by 40 ms: they raise the mean deviation twice as much.
    "jitter": _Kind(variations, 10_000),
    "answers": _Kind(answers, 5_000, "receiving"),
}

MEASURED = tuple(_KINDS)
"""The bases of what is measured, in the order in which they are judged: what is dropped is sent
again later, and a receiver without room makes round trips and answers long.
"""


class AboveNormal:
    """Judges long windows, and remembers what is normal for each pair.

    Args:
        basis: one of `MEASURED`.

    Attributes:
        normal: by pair, indexed by the words for its ends, and by the workloads and nodes of pairs:
            `values`, the highest of a window, and `variations`, the largest, both of which fade;
            `windows`, how many had one; `age`, how many windows ago the last one was.
    """

    def __init__(self, settings: RcaSettings, basis: Basis) -> None:
        self.expect({})
        self._settings = settings
        self._basis: Basis = basis
        self._kind = _KINDS[basis]
        self._last: tuple[Window, Measured] | None = None
        self._waiting: tuple[Window, Mask] | None = None
        self._high: tuple[Window, Mask] | None = None
        self._suspected: dict[str, int] = {}

    def expect(self, normal: Mapping[str, tuple[int, int]]) -> None:
        """Take these values and how they vary as normal, by pair."""
        self.normal = pd.DataFrame.from_dict(
            dict(normal), orient="index", columns=list(_READINGS), dtype=np.float64
        ).assign(windows=float(_LEAST_WINDOWS), age=0.0)

    def expected(self) -> dict[str, tuple[int, int]]:
        """The values that are normal and how they vary, by pair, those seen last first."""
        known = self.normal[self.normal["windows"] >= _LEAST_WINDOWS].sort_values("age")
        readings = known[list(_READINGS)].astype(int).itertuples(name=None)
        return {str(pair): (value, variation) for pair, value, variation in readings}

    def judge(self, window: Window) -> Judgement:
        """What is behind values of more than twice what is normal, and a margin."""
        known, now = self._known(window), self._measured(window)
        is_known = (known["windows"] >= _LEAST_WINDOWS).to_numpy()
        usual = np.where(is_known, known["values"], np.nan)
        judged = now.enough & is_known
        above = judged & self._is_above(now.values, known["values"])
        high = above & ~self._always_waits(known)
        if self._basis == "answers":
            waits = _waits(window, high, np.where(high, now.values - usual, 0.0), now.samples)
            high &= ~waits
            self._waiting = window, waits
        self._high = window, high
        unsteady = high & self._is_above(now.variations, known["variations"])
        unsteady &= self._basis == "latency"
        status = np.full(len(judged), PairStatus.UNDECIDED, np.int64)
        status[judged & ~above] = PairStatus.OK
        suspects = self._suspects(window, now, judged, high) if high.any() else []
        for each in suspects:
            status[each.covers & high] = PairStatus.FAIL
        failing = status == PairStatus.FAIL
        median = float(np.median(usual[failing])) if failing.any() else 0.0
        decisions = Decisions.of_all_panes(window, status, self._settings)
        found = findings(decisions, known_causes_of(suspects, status))
        return Judgement(
            decisions,
            unless_withheld(found, window),
            np.zeros(0, np.int64),
            self._settings,
            self._basis,
            median,
            np.flatnonzero(unsteady),
        )

    def _known(self, window: Window) -> pd.DataFrame:
        """What is normal for each pair. One that is new is like those before it between the same
        workloads on the same nodes, but for its first windows, in which pods warm up.
        """
        own = self.normal.reindex(window.names_of_pairs)
        of_places = self.normal.reindex(window.places_of_pairs)
        windows = own["windows"].to_numpy()
        is_new = (windows >= _WARM_UP_WINDOWS) & (windows < _LEAST_WINDOWS)
        is_new &= (of_places["windows"] >= _LEAST_WINDOWS).to_numpy()
        own[is_new] = of_places[is_new].to_numpy()
        if self._basis == "connects":
            own[_appears_with_a_failure(window, windows)] = (0.0, 0.0, _LEAST_WINDOWS, 0.0)
        return own

    def _measured(self, window: Window) -> Measured:
        if self._last is None or self._last[0] is not window:
            self._last = window, self._kind.measure(window)
        return self._last[1]

    def _suspects(self, window: Window, now: Measured, judged: Mask, high: Mask) -> list[Suspect]:
        table = table_of(window, judged).assign(
            samples=now.samples[judged], high=(now.samples * high)[judged]
        )
        if self._kind.way:  # the other end is not at fault
            other = "src_" if self._kind.way == "receiving" else "dst_"
            table[table.columns[table.columns.str.startswith(other)]] = None
        found = localise(table, total="samples", bad="high")
        suspects = [
            # Callers of a service do not know which of its pods answers them.
            replace(each, covers=each.covers | (high & answered_by([each.component], window)))
            for each in as_servers(
                suspects_of(found.causes, window, self._kind.way), window, judged, high
            )
        ]
        # A connection has a round trip at either end: one alone is how it is used.
        return [each for each in suspects if (each.covers & high).sum() > 1]

    def _always_waits(self, known: pd.DataFrame) -> Mask:
        """Whether connections normally wait most of the time: for events rather than answers, as
        what subscribes or watches does. If there are fewer events, nobody has become slower.
        """
        if self._basis != "answers":
            return np.zeros(len(known), np.bool_)
        found: Mask = known["variations"].fillna(0).to_numpy() > _MOSTLY
        return found

    def _is_above(self, values: Numbers, normal: "pd.Series[float]") -> Mask:
        above: Mask = values > _FACTOR * normal.fillna(0).to_numpy() + self._kind.margin
        return above

    def remember(self, window: Window, blamed: Iterable[Component]) -> None:
        """Remember a window but for the pairs of what is blamed, and those that wait for it: they
        are not normal.
        """
        now = self._measured(window)
        is_new = (self._known(window)["windows"].fillna(0) < _LEAST_WINDOWS).to_numpy()
        chosen = now.enough | (now.some & is_new)
        if self._waiting is not None and self._waiting[0] is window:
            chosen &= ~self._waiting[1]
        for each in blamed:
            chosen &= ~pairs_of(each, "both", window)
        chosen &= ~self._suspect(window)
        readings = {name: getattr(now, name)[chosen] for name in _READINGS}
        names, places = window.names_of_pairs[chosen], window.places_of_pairs[chosen]
        # A pod that is new tells nothing about those before it in its place.
        is_known, has_known_place = (
            (self.normal["windows"].reindex(each) >= _LEAST_WINDOWS).to_numpy()
            for each in (names, places)
        )
        places = np.where(has_known_place & ~is_known, "", places)
        both = [pd.DataFrame(readings, each, dtype=np.float64) for each in (names, places)]
        seen = pd.concat(both).groupby(level=0).max()
        seen = seen[seen.index != ""]
        normal = self.normal.reindex(self.normal.index.union(seen.index))
        normal["age"] = normal["age"].fillna(0) + 1
        before = normal.loc[seen.index]
        for name in _READINGS:
            normal.loc[seen.index, name] = np.fmax(seen[name], _FADING * before[name])
        normal.loc[seen.index, "windows"] = before["windows"].fillna(0) + 1
        normal.loc[seen.index, "age"] = 0
        kept = normal[normal["age"] <= _FORGOTTEN_AFTER]
        self.normal = kept.nsmallest(_MOST_PAIRS, "age")

    def _suspect(self, window: Window) -> Mask:
        """The pairs above normal, but for those that have been so for long."""
        if self._high is None or self._high[0] is not window:
            return np.zeros(len(window.src), np.bool_)
        suspected: Mask = self._high[1].copy()
        names = window.names_of_pairs[suspected].tolist()
        self._suspected = {name: self._suspected.get(name, 0) + 1 for name in names}
        suspected[suspected] = [self._suspected[name] < _SUSPECTED_WINDOWS for name in names]
        return suspected


def _appears_with_a_failure(window: Window, windows: npt.NDArray[np.float64]) -> Mask:
    """The pairs of a service's address and a caller that is known to reach its pods.

    Who is behind the address is not known only of attempts that fail, so before there was no pair.

    Args:
        windows: how many have measured each pair.
    """
    found = np.zeros(len(window.src), np.bool_)
    for at, endpoint in enumerate(window.endpoints):
        if pods := window.facts.backends.get(endpoint):
            is_pod = np.array([each in pods for each in window.endpoints], np.bool_)
            callers = window.src[is_pod[window.dst] & (windows >= _LEAST_WINDOWS)]
            found |= (window.dst == at) & np.isin(window.src, callers)
    return found & ~(windows >= _LEAST_WINDOWS)


def _waits(
    window: Window, slow: Mask, longer_us: npt.NDArray[np.float64], answers: Numbers
) -> Mask:
    """The slow pairs whose server waits for another one that is slow, itself: once, or as often as
    it asks for each answer of its own.

    None if each of them waits for another in turn.
    """
    size = len(window.endpoints)
    waited = np.zeros(size)
    np.maximum.at(waited, window.src[slow], longer_us[slow])
    in_all = np.bincount(window.src[slow], (longer_us * answers)[slow], size)
    answered = np.bincount(window.dst, answers, size)
    waited = np.maximum(waited, in_all / np.maximum(answered, 1))
    waits: Mask = slow & (waited[window.dst] >= _CAUSED * longer_us)
    return waits if (slow & ~waits).any() else np.zeros_like(slow)
