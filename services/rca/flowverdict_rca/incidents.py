"""Turns windows over time into verdicts: opened, ongoing, resolved.

An incident is always in one of four states (`Incident.state`):

    pending    no verdict yet: found in fewer than `open_after` windows in a row
    open       found in the latest window
    contested  the latest windows blame another cause for its flows, not yet long enough to replace
               its own
    clearing   not found in the latest windows; resolved, and forgotten, after `resolve_after`

A window in which its flows fail, but for what has just changed around them, tells nothing about an
open incident: it stays as it was.

Long windows have incidents of their own, about losses that short windows do not show, or not
always: what those find in the same place belongs to them. What short windows show well is no second
incident.

    new -> pending -> open <-> contested
              |         |          |
              v         v          v
          forgotten    clearing, back to open or contested if found again, else resolved

Everything is derived from the windows, so judging the same windows again after a restart gives the
same verdicts with the same ids.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import msgspec
import numpy as np

from flowverdict_contracts.verdicts import Cause, Verdict, VerdictStatus
from flowverdict_flows.components import components_of
from flowverdict_flows.pairs import Numbers, ratios_of
from flowverdict_flows.ratios import RETRANSMISSION_RATIO
from flowverdict_rca.judgement import Judgement, verdict
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import COUNTS, Pair

__all__ = ["Incident", "Incidents"]


_SAMPLED_FLOWS = 500

_LONG_WINDOWS = 2
"""In a row, with the same cause or without it, before an incident is opened or resolved."""

_NEAR = 2.0
"""Losses below twice the threshold can be below it by chance at times."""


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered about an incident from window to window.

    Attributes:
        id: the same from `opened` to `resolved`.
        causes: as last confirmed, the blamed one first; empty if none stood out.
        flows: a sample of the failing pairs of its last window, as short hashes.
        windows: windows in a row that blamed the same cause.
        rival: what the last windows blamed instead, and in `rival_windows` how many in a row.
        clear: windows in a row without it.
        opened_ns: end of the window in which it opened, 0 before that.
        is_long: whether long windows found it; only they resolve it.
    """

    id: str
    causes: tuple[Cause, ...]
    flows: frozenset[str]
    windows: int = 1
    rival: tuple[str, str] = ("", "")
    rival_windows: int = 0
    clear: int = 0
    opened_ns: int = 0
    is_long: bool = False

    @property
    def blamed(self) -> tuple[str, str]:
        """Kind and name of the first cause, empty if there is none."""
        return _key(self.causes)

    @property
    def state(self) -> Literal["pending", "open", "contested", "clearing"]:
        """As described at the top of this file."""
        if not self.opened_ns:
            return "pending"
        if self.clear:
            return "clearing"
        return "contested" if self.rival_windows else "open"


@dataclass(frozen=True, slots=True)
class _Found:
    """What a window blames: causes, the failing pairs they explain, and a sample of those."""

    causes: tuple[Cause, ...]
    positions: Numbers
    pairs: tuple[Pair, ...]
    flows: frozenset[str]


def _key(causes: Sequence[Cause]) -> tuple[str, str]:
    return (causes[0].kind, causes[0].name) if causes else ("", "")


def _hashes(pairs: Iterable[Pair]) -> frozenset[str]:
    return frozenset(_digest(f"{pair.src} -> {pair.dst}") for pair in pairs)


def _sample(pairs: Iterable[Pair]) -> frozenset[str]:
    """Hashes of the pairs, only the smallest if there are many: the overlap of two samples
    estimates that of the full sets (Broder, 1997), and the state stays small however much of a
    cluster fails.
    """
    return frozenset(sorted(_hashes(pairs))[:_SAMPLED_FLOWS])


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _found(judgement: Judgement) -> list[_Found]:
    """What a window blames, for which pairs; one entry without causes if none stands out."""
    found = [(finding.causes, finding.explained) for finding in judgement.findings]
    if judgement.failing.size and not found:
        found = [((), judgement.failing)]
    result = []
    for causes, positions in found:
        pairs = tuple(judgement.decisions.pairs(positions))
        result.append(_Found(causes, positions, pairs, _sample(pairs)))
    return result


class Incidents:
    """The incidents that are open or about to be."""

    def __init__(self, settings: RcaSettings, known: Sequence[Incident] = ()) -> None:
        self._settings = settings
        self._known = tuple(known)

    @property
    def known(self) -> tuple[Incident, ...]:
        """What a restart must remember."""
        return self._known

    def judge(self, judgement: Judgement) -> Iterator[Verdict]:
        """The verdicts on a window: most convincing findings first, resolved incidents last."""
        before = [each for each in self._known if each.is_long == judgement.is_long]
        others = [each for each in self._known if each.is_long != judgement.is_long]
        now = []
        for found in _found(judgement):
            visible = (each for each in others if judgement.is_long or each.state != "pending")
            match = _match([*before, *visible], found)
            if match in before:
                before.remove(match)
            elif match in others:
                others.remove(match)
                if judgement.is_long:
                    others.append(self._confirmed(match, judgement, found))
                    continue
            incident = self._next(match, found, judgement)
            now.append(incident)
            if incident.state != "pending":
                status: VerdictStatus = (
                    "ongoing" if match and match.state != "pending" else "opened"
                )
                yield verdict(
                    incident.id,
                    incident.opened_ns,
                    status,
                    judgement,
                    incident.causes,
                    found.positions,
                )
        aftermath = _hashes(judgement.decisions.pairs(judgement.aftermath))
        resolve_after = _LONG_WINDOWS if judgement.is_long else self._settings.resolve_after
        for incident in before:
            clear = incident.clear + 1
            if incident.state != "pending" and incident.flows & aftermath:
                now.append(incident)
            elif clear < resolve_after:
                now.append(msgspec.structs.replace(incident, clear=clear, windows=0))
            elif incident.state != "pending":
                yield verdict(
                    incident.id,
                    incident.opened_ns,
                    "resolved",
                    judgement,
                    incident.causes,
                    np.empty(0, np.int64),
                )
        self._known = (*now, *others)

    def _confirmed(self, match: Incident, judgement: Judgement, found: _Found) -> Incident:
        """An incident of short windows that a long one found, too.

        If its losses are near the threshold, short windows will not always show it: from now on
        the long ones decide when it is resolved.
        """
        evidence = judgement.decisions.evidence[found.positions].sum(axis=0, keepdims=True)
        ratio = float(ratios_of(RETRANSMISSION_RATIO, evidence, COUNTS)[0])
        is_near = match.state != "pending" and ratio < _NEAR * self._settings.fail_ratio
        return msgspec.structs.replace(match, is_long=is_near)

    def _next(self, match: Incident | None, found: _Found, judgement: Judgement) -> Incident:
        """The incident as of this window."""
        end_ns = judgement.window.end_ns
        if match is None:
            identity = f"{end_ns} {_key(found.causes)} {sorted(found.flows)}"
            match = Incident(
                id=_digest(identity),
                causes=found.causes,
                flows=found.flows,
                windows=0,
                is_long=judgement.is_long,
            )
        key = _key(found.causes)
        if key == match.blamed or (match.state == "pending" and match.windows == 0):
            causes, windows, rival, rivals = found.causes, match.windows + 1, ("", ""), 0
        else:
            rivals = match.rival_windows + 1 if key == match.rival else 1
            causes, windows, rival = match.causes, match.windows, key
            if rivals >= self._windows_to_replace(match, found):
                causes, windows, rival, rivals = found.causes, rivals, ("", ""), 0
        enough = _LONG_WINDOWS if judgement.is_long else self._windows_to_open(found)
        opens = match.state == "pending" and not rivals and windows >= enough
        return Incident(
            id=match.id,
            causes=causes,
            flows=found.flows,
            windows=windows,
            rival=rival,
            rival_windows=rivals,
            opened_ns=end_ns if opens else match.opened_ns,
            is_long=match.is_long,
        )

    def _windows_to_open(self, found: _Found) -> int:
        """Windows in a row before the first verdict: a single flow may be the first of many."""
        longer = self._settings.window_panes if len(found.pairs) == 1 else 0
        return self._settings.open_after + longer

    def _windows_to_replace(self, match: Incident, found: _Found) -> int:
        """Windows in a row before another cause is accepted.

        While a fault fades, its flows recover one by one, and what is left looks like a smaller
        fault. So if the blamed component still takes part in everything that fails, wait for
        another full window length.
        """
        if match.state == "pending":
            return 1
        longer = self._settings.window_panes if _fades(match, found) else 0
        return self._settings.open_after + longer


def _match(known: Sequence[Incident], found: _Found) -> Incident | None:
    """The incident with the same cause, or else with mostly the same flows, or else the one of
    which these flows, without a cause of their own, may be the rest.
    """
    for incident in known:
        if incident.blamed == _key(found.causes):
            return incident
    for incident in known:
        shared = len(incident.flows & found.flows)
        if 2 * shared >= min(len(incident.flows), len(found.flows)) > 0:
            return incident
    for incident in known:
        is_rest = not found.causes or len(found.pairs) == 1
        if is_rest and incident.state != "pending" and _fades(incident, found):
            return incident
    return None


def _fades(incident: Incident, found: _Found) -> bool:
    """Whether the component that the incident blames still takes part in everything that fails."""
    return bool(incident.causes) and all(
        incident.blamed in {(each.kind, each.name) for each in components_of(pair.src, pair.dst)}
        for pair in found.pairs
    )
