"""What is higher than it normally is, found over long windows: round trips and how much they vary,
the times of answers, how often packets are dropped, connections refused, reset or not completed, or
receivers without room.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowverdict_contracts.verdicts import Basis, Component, Direction
from flowverdict_flows.components import link_from_to
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.decisions import Decisions, PairStatus
from flowverdict_rca.engine.baseline import Baseline
from flowverdict_rca.engine.localise import localise
from flowverdict_rca.engine.rows import Floats
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
from flowverdict_rca.usual import LEAST_WINDOWS, Usual
from flowverdict_rca.waiting import waits_for_others
from flowverdict_rca.window import Window
from flowverdict_rca.window_table import answered_by, pairs_of, table_of
from flowverdict_rca.withheld import unless_withheld

__all__ = ["MEASURED", "AboveNormal"]

_FACTOR, _LEAST_FACTOR = 2.0, 1.5
_LONG_RUN_FACTOR = 2.0
"""What is normal is at most so often what is typical in the long run."""
_VARIES_BY_CHANCE = 5.0
"""By so much of what is normal, over the root of how many answers there are, their mean may exceed
it by chance.
"""
_HARDLY_ANY = Baseline(rate=0.01, windows=20)
"""How many pairs are above what is normal for them where nothing is wrong."""
_NEARLY_ALL, _MANY = 0.95, 20
_FAR_LONGER = 5
_SUSPECTED_WINDOWS = 10
"""What is above normal and has no cause yet may be the beginning of a fault, unless it lasts."""
_MOSTLY = 500
"""Per 1,000."""
_ANSWERS_ALONE, _MARGINS_ALONE = 20, 4
"""What a single caller sees of a server counts if there are as many answers, and so much slower."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class _Kind:
    """What is measured, by how much more than twice of what is normal is too much, which way a
    cause suffers if only one end of a flow can be one, and whether it is a time: these creep up.
    """

    measure: Callable[[Window], Measured]
    margin: int
    way: Direction | None = None
    is_a_time: bool = False


_KINDS: dict[Basis, _Kind] = {
    "drops": _Kind(drops, 5),
    "connects": _Kind(failed_connects, 100),
    "resets": _Kind(resets, 100),
    "half_open": _Kind(half_open, 100, "sending"),
    "zero_windows": _Kind(zero_windows, 5, "receiving"),
    "latency": _Kind(round_trips, 5_000, is_a_time=True),
    # Some acknowledgements are delayed by 40 ms: they raise the mean deviation twice as much.
    "jitter": _Kind(variations, 10_000),
    "answers": _Kind(answers, 5_000, "receiving", is_a_time=True),
}

MEASURED = tuple(_KINDS)
"""The bases of what is measured, in the order in which they are judged: what is dropped is sent
again later, and a receiver without room makes round trips and answers long.
"""


@dataclass(frozen=True, slots=True)
class _Judged:
    """A window that was judged.

    Attributes:
        now: what was measured of its pairs.
        known: what is normal for them.
        high: those that are above normal, and not because they wait for others.
        more: by how much they are, and what is longer than it typically is; 0 for the others.
        waits: those that are above normal because they wait for others.
    """

    now: Measured
    known: pd.DataFrame
    high: Mask
    more: Floats
    waits: Mask


class AboveNormal:
    """Judges long windows by what is normal for each pair.

    Args:
        basis: one of `MEASURED`.
        way: what judges round trips, for the times of answers: who waits for a slow way answers
            late.

    Attributes:
        usual: what is normal.
    """

    def __init__(
        self, settings: RcaSettings, basis: Basis, way: "AboveNormal | None" = None
    ) -> None:
        self.usual = Usual()
        self._settings = settings
        self._basis: Basis = basis
        self._kind = _KINDS[basis]
        self._way = way
        self._judged: _Judged | None = None
        self._suspected: dict[str, int] = {}

    @property
    def more(self) -> Floats:
        """By how much each pair of the window that was just judged is above what is normal or
        typical for it; 0 where that is no trouble.
        """
        return self._just_judged.more

    def judge(self, window: Window) -> Judgement:
        """What is behind values that are too far above what is normal."""
        known, now = self._known(window), self._kind.measure(window)
        is_known = (known["windows"] >= LEAST_WINDOWS).to_numpy()
        usual = np.where(is_known, known["values"], np.nan)
        judged = now.enough & is_known
        factor = self._factor(now)
        allowed = known["values"] + self._common_rise(now.values, usual, judged)
        above = judged & self._is_above(now.values, allowed, factor)
        high = above & ~self._always_waits(known)
        more = np.nan_to_num(np.maximum(now.values - usual, 0.0))
        waits = np.zeros(len(high), np.bool_)
        if self._way is not None:
            waits = waits_for_others(window, high, more, self._way.more, now.samples)
            high &= ~waits
        self._judged = _Judged(now, known, high, self._longer(now, known, high, more), waits)
        unsteady = high & self._is_above(now.variations, known["variations"])
        unsteady &= self._basis == "latency"
        status = np.full(len(judged), PairStatus.UNDECIDED, np.int64)
        status[judged & ~above] = PairStatus.OK
        suspects = self._suspects(window, judged, self._judged) if high.any() else []
        for each in suspects:
            status[each.covers & high] = PairStatus.FAIL
        failing = status == PairStatus.FAIL
        shown = known["typical"].to_numpy() if self._kind.is_a_time else usual
        median = float(np.median(shown[failing])) if failing.any() else 0.0
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
        """What is normal for each pair."""
        known = self.usual.of(window)
        if self._kind.is_a_time:
            most = _LONG_RUN_FACTOR * known["typical"] + self._kind.margin
            known["values"] = np.minimum(known["values"], most)
        if self._basis == "connects":
            appears = _appears_with_a_failure(window, known["windows"].to_numpy())
            known[appears] = (0.0, 0.0, 0.0, LEAST_WINDOWS, 0.0)
        return known

    @property
    def _just_judged(self) -> _Judged:
        assert self._judged is not None, "a window is judged first"
        return self._judged

    def _suspects(self, window: Window, among: Mask, judged: _Judged) -> list[Suspect]:
        now, high = judged.now, judged.high
        table = table_of(window, among).assign(
            samples=now.samples[among], high=(now.samples * high)[among]
        )
        if self._kind.way:  # the other end is not at fault
            other = "src_" if self._kind.way == "receiving" else "dst_"
            table[table.columns[table.columns.str.startswith(other)]] = None
        found = localise(table, _HARDLY_ANY, total="samples", bad="high")
        suspects = [
            # Callers of a service do not know which of its pods answers them.
            replace(each, covers=each.covers | (high & answered_by([each.component], window)))
            for each in as_servers(
                suspects_of(found.causes, window, self._kind.way), window, among, high
            )
        ]
        alone = high & self._shows_alone(judged)
        shown = [(each, each.covers & high) for each in suspects]
        return [
            *(each for each, pairs in shown if pairs.sum() > 1),
            *(
                _or_how_it_is_asked(each, window, pairs)
                for each, pairs in shown
                if pairs.sum() == 1 and (pairs & alone).any()
            ),
        ]

    def _shows_alone(self, judged: _Judged) -> Mask:
        """Which pairs tell something though no other one does. A connection has a round trip at
        either end: one alone is how it is used. A server with a single caller has answers.
        """
        now, usual = judged.now, judged.known["values"]
        if self._basis != "answers":
            return np.zeros(len(usual), np.bool_)
        found: Mask = now.samples >= _ANSWERS_ALONE
        return found & self._is_above(now.values, usual, margins=_MARGINS_ALONE)

    def _always_waits(self, known: pd.DataFrame) -> Mask:
        """Whether connections normally wait most of the time: for events rather than answers, as
        what subscribes or watches does. If there are fewer events, nobody has become slower.
        """
        if self._basis != "answers":
            return np.zeros(len(known), np.bool_)
        found: Mask = known["variations"].fillna(0).to_numpy() > _MOSTLY
        return found

    def _is_above(
        self,
        values: Numbers,
        normal: "pd.Series[float]",
        factor: float | Floats = _FACTOR,
        margins: int = 1,
    ) -> Mask:
        above: Mask = values > factor * normal.fillna(0).to_numpy() + margins * self._kind.margin
        return above

    def _factor(self, now: Measured) -> float | Floats:
        """How often what is normal each pair may take: the mean of many answers varies less."""
        if self._basis != "answers":
            return _FACTOR
        varies = _VARIES_BY_CHANCE / np.sqrt(np.maximum(now.samples, 1))
        return 1 + np.clip(varies, _LEAST_FACTOR - 1, _FACTOR - 1)

    def _longer(self, now: Measured, known: pd.DataFrame, high: Mask, more: Floats) -> Floats:
        """By how much each pair is above what is normal, or typical in the long run: who waits for
        a way that became slower like all others, or has been so for a while, still waits.
        """
        longer = np.where(high, more, 0.0)
        if not self._kind.is_a_time:
            return longer
        is_longer = now.enough & self._is_above(now.values, known["typical"])
        is_longer &= (known["typical"] > 0).to_numpy()
        since = np.nan_to_num(now.values - known["typical"].to_numpy())
        return np.where(is_longer, np.maximum(longer, since), longer)

    def _common_rise(self, values: Numbers, usual: Floats, judged: Mask) -> Floats:
        """By how much nearly all pairs have risen, for each: what is longer everywhere has no one
        to blame. As a factor, but for a way that has always been far longer than most it is no
        excuse that short ones take several times as long. Not for answers, which wait for each
        other.
        """
        compared = judged & (usual > 0)
        if self._basis not in ("latency", "jitter") or np.count_nonzero(compared) < _MANY:
            return np.zeros(len(usual))
        rises = values[compared] / usual[compared]
        factor = max(1.0, float(np.quantile(rises, 1 - _NEARLY_ALL)))
        longest: Floats = np.minimum(np.nan_to_num(usual), _FAR_LONGER * np.median(usual[compared]))
        return (factor - 1) * longest

    def remember(self, window: Window, blamed: Iterable[Component]) -> None:
        """Remember the window that was just judged, but for the pairs of what is blamed, and those
        that wait for it: they are not normal.
        """
        judged = self._just_judged
        is_new = (judged.known["windows"].fillna(0) < LEAST_WINDOWS).to_numpy()
        chosen = judged.now.enough | (judged.now.some & is_new)
        chosen &= ~judged.waits
        for each in blamed:
            chosen &= ~pairs_of(each, "both", window)
        chosen &= ~self._suspect(window, judged.high)
        self.usual.remember(window, judged.now, chosen, judged.high)

    def _suspect(self, window: Window, high: Mask) -> Mask:
        """The pairs above normal, but for those that have been so for long."""
        suspected = high.copy()
        names = window.names_of_pairs[suspected].tolist()
        self._suspected = {name: self._suspected.get(name, 0) + 1 for name in names}
        suspected[suspected] = [self._suspected[name] < _SUSPECTED_WINDOWS for name in names]
        return suspected


def _or_how_it_is_asked(suspect: Suspect, window: Window, pair: Mask) -> Suspect:
    """A server with the only pair that shows it as an alternative: its caller may ask for more."""
    at = int(np.flatnonzero(pair)[0])
    link = link_from_to(window.endpoints[window.src[at]], window.endpoints[window.dst[at]])
    return replace(suspect, alternatives=(*suspect.alternatives, link))


def _appears_with_a_failure(window: Window, windows: Floats) -> Mask:
    """The pairs of a service's address and a caller that is known to reach its pods.

    Who is behind the address is not known only of attempts that fail, so before there was no pair.

    Args:
        windows: how many have measured each pair.
    """
    found = np.zeros(len(window.src), np.bool_)
    for at, endpoint in enumerate(window.endpoints):
        if pods := window.facts.backends.get(endpoint):
            is_pod = np.array([each in pods for each in window.endpoints], np.bool_)
            callers = window.src[is_pod[window.dst] & (windows >= LEAST_WINDOWS)]
            found |= (window.dst == at) & np.isin(window.src, callers)
    return found & ~(windows >= LEAST_WINDOWS)
