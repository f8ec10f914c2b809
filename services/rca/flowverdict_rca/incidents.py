"""Windows over time to verdicts: opened, ongoing, resolved.

An incident opens when the same cause was found in several windows in a row, and resolves when it
was not for several. Everything follows from the windows, so judging the same windows again after a
restart gives the same verdicts with the same ids.
"""

import hashlib
from collections.abc import Iterator, Sequence

import msgspec

from flowverdict_contracts.verdicts import Cause, Verdict
from flowverdict_rca.judgement import Judgement, verdict
from flowverdict_rca.pairs import Pair
from flowverdict_rca.ranking import Finding
from flowverdict_rca.settings import RcaSettings

__all__ = ["Incident", "Incidents"]


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of an incident from window to window.

    Attributes:
        id: the same from `opened` to `resolved`.
        blamed: the first cause as last found; None where nothing could be singled out.
        flows: the failing pairs, as `src -> dst`.
        windows: windows in a row that blamed the same.
        clear: windows in a row without it.
        opened_ns: end of the window in which it opened, 0 before that.
    """

    id: str
    blamed: Cause | None
    flows: frozenset[str]
    windows: int = 1
    clear: int = 0
    opened_ns: int = 0


def _flows(pairs: Sequence[Pair]) -> frozenset[str]:
    return frozenset(f"{pair.src.name} -> {pair.dst.name}" for pair in pairs)


def _key(cause: Cause | None) -> tuple[str, str]:
    return (cause.kind, cause.name) if cause else ("", "")


def _is_same(incident: Incident, blamed: Cause | None, flows: frozenset[str]) -> bool:
    """The same cause, or mostly the same flows: then what is blamed has become clearer."""
    if _key(incident.blamed) == _key(blamed):
        return True
    shared = len(incident.flows & flows)
    return 2 * shared >= min(len(incident.flows), len(flows)) > 0


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
        """The verdicts that a window gives, in order of how much they explain."""
        found: list[tuple[Finding | None, frozenset[str]]] = [
            (finding, _flows(finding.explained)) for finding in judgement.findings
        ]
        if judgement.failing and not found:
            found = [(None, _flows(judgement.failing))]
        before, now = list(self._known), []
        for finding, flows in found:
            blamed = finding.causes[0] if finding else None
            match = next((each for each in before if _key(each.blamed) == _key(blamed)), None)
            match = match or next((each for each in before if _is_same(each, blamed, flows)), None)
            if match:
                before.remove(match)
            incident = self._next(match, blamed, flows, judgement)
            now.append(incident)
            if incident.opened_ns:
                status = "ongoing" if match and match.opened_ns else "opened"
                yield verdict(incident.id, incident.opened_ns, status, judgement, finding)
        for incident in before:
            cleared = msgspec.structs.replace(incident, clear=incident.clear + 1, windows=0)
            if cleared.clear < self._settings.resolve_after:
                now.append(cleared)
            elif incident.opened_ns:
                yield verdict(
                    incident.id, incident.opened_ns, "resolved", judgement, None, incident.blamed
                )
        self._known = tuple(now)

    def _next(
        self,
        match: Incident | None,
        blamed: Cause | None,
        flows: frozenset[str],
        judgement: Judgement,
    ) -> Incident:
        if match is None:
            identity = f"{judgement.window.end_ns} {_key(blamed)} {sorted(flows)}"
            fresh = hashlib.sha256(identity.encode()).hexdigest()[:16]
            match = Incident(id=fresh, blamed=blamed, flows=flows, windows=0)
        same = _key(match.blamed) == _key(blamed)
        windows = match.windows + 1 if same else 1
        opens = windows >= self._settings.open_after and not match.opened_ns
        return Incident(
            id=match.id,
            blamed=blamed,
            flows=flows,
            windows=windows,
            opened_ns=judgement.window.end_ns if opens else match.opened_ns,
        )
