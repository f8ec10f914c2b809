"""Turns windows over time into verdicts: opened, ongoing, resolved.

`incident` describes its states, `matching` which incident it is that a window shows. A window in
which its flows fail, but for what has just changed around them, tells nothing about an open
incident: it stays as it was.

Long windows have incidents of their own: about low losses, and what is above normal. What is found
in the same place by others is no second incident: only the windows that found an incident resolve
it.

What comes again soon after it was resolved takes twice as many windows to be resolved as before, so
that a fault that comes and goes is one incident after the first few, and not one each time.

Everything is derived from the windows, so judging the same windows again after a restart gives the
same verdicts with the same ids.
"""

from collections.abc import Iterator, Sequence

import msgspec
import numpy as np

from flowverdict_contracts.verdicts import Cause, Verdict, VerdictStatus
from flowverdict_flows.components import both_ways, is_directed
from flowverdict_flows.pairs import Numbers, ratios_of
from flowverdict_flows.ratios import RETRANSMISSION_RATIO
from flowverdict_rca.above_normal import MEASURED
from flowverdict_rca.decisions import PairStatus
from flowverdict_rca.facts import LEAVING
from flowverdict_rca.incident import Incident, key_of
from flowverdict_rca.judgement import Judgement, verdict
from flowverdict_rca.matching import (
    Backends,
    Found,
    belongs,
    digest,
    found_in,
    hashes_of,
    is_among,
    matched,
)
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import COUNTS
from flowverdict_rca.window_table import pairs_of

__all__ = ["Incidents"]

_LONG_WINDOWS = 2
"""In a row, with the same cause or without it, before an incident is opened or resolved."""

_UNSEEN_WINDOWS = 20
"""In a row that measure nothing of the incident's flows, before it is resolved: ten minutes."""

_SOON_NS = 600 * 10**9
_LONGEST_SECONDS = 90.0
"""Nothing is said of an incident that is clearing, and after two minutes it is called stale."""
_MOST_OVER = 100

_NEAR = 2.0
"""Losses below twice the threshold can be below it by chance at times."""


class Incidents:
    """The incidents that are open or about to be."""

    def __init__(self, settings: RcaSettings, known: Sequence[Incident] = ()) -> None:
        self._settings = settings
        self._known = tuple(each for each in known if each.state != "over")
        self._over = [each for each in known if each.state == "over"]

    @property
    def known(self) -> tuple[Incident, ...]:
        """What a restart must remember."""
        return (*self._known, *self._over)

    def judge(self, judgement: Judgement) -> Iterator[Verdict]:
        """The verdicts on a window: most convincing findings first, resolved incidents last."""
        is_long = judgement.basis != "failures"
        before = [each for each in self._known if each.basis == judgement.basis]
        others = [each for each in self._known if each.basis != judgement.basis]
        end_ns = judgement.window.end_ns
        self._over = [each for each in self._over if end_ns - each.resolved_ns < _SOON_NS]
        backends, now = judgement.window.facts.backends, list[Incident]()
        open_ = [each for each in others if each.is_open]
        known, shared = (before, open_) if is_long else ([*before, *open_], [])
        matches = matched(found_in(judgement), known, shared, backends)
        done: set[str] = set()
        for found, match in matches:
            if match is not None and match.id in done:
                continue
            done |= {match.id} if match else set()
            if match is not None and match.basis != judgement.basis:
                others = [each for each in others if each.id != match.id]
                if is_long:
                    others.append(self._confirmed(match, judgement, found))
                    continue
            if match is None and any(belongs(each, found, backends) for each in now):
                continue
            incident = self._next(match, found, judgement)
            is_new = incident.is_open and not (match and match.is_open)
            if is_new:
                incident = self._again(incident)
            if incident.is_open:
                status: VerdictStatus = "opened" if is_new else "ongoing"
                said = _said(incident, status, judgement, found.positions)
                incident = msgspec.structs.replace(incident, severity=said.severity)
                yield said
            now.append(incident)
        missing = [each for each in before if not any(each is match for _, match in matches)]
        yield from self._resolved(missing, judgement, now)
        self._known = (*now, *others)
        self._over = self._over[-_MOST_OVER:]

    def _again(self, incident: Incident) -> Incident:
        """An incident that opens, as the next of those with its cause that are just over."""
        same = [e for e in self._over if any(e.blamed) and e.blamed == incident.blamed]
        self._over = [each for each in self._over if each not in same]
        times = 1 + max((each.times for each in same), default=0)
        return msgspec.structs.replace(incident, times=times)

    def _resolved(
        self, missing: Sequence[Incident], judgement: Judgement, now: list[Incident]
    ) -> Iterator[Verdict]:
        """The verdicts on incidents that a window does not show; `now` gets those that go on.

        A window of a gap, in which nobody reports, tells nothing about those that are open.
        """
        aftermath = list(judgement.decisions.pairs(judgement.aftermath))
        backends = judgement.window.facts.backends
        is_gap = not judgement.window.coverage.nodes_reporting
        for incident in missing:
            clear = incident.clear + 1
            if incident.is_open and (is_gap or is_among(incident, aftermath, backends)):
                now.append(incident)
            elif clear < self._windows_to_resolve(incident, judgement):
                now.append(msgspec.structs.replace(incident, clear=clear, windows=0))
            elif incident.is_open:
                end_ns = judgement.window.end_ns
                self._over.append(_over(incident, end_ns))
                yield _said(incident, "resolved", judgement, np.empty(0, np.int64))

    def _windows_to_resolve(self, incident: Incident, judgement: Judgement) -> int:
        if incident.basis in MEASURED and _is_leaving(incident, judgement):
            return 1
        if incident.basis in MEASURED and not _was_judged(incident, judgement):
            return _UNSEEN_WINDOWS
        window = judgement.window
        once, seconds = self._settings.resolve_after, self._settings.pane_seconds
        if incident.basis != "failures":
            once, seconds = _LONG_WINDOWS, (window.end_ns - window.start_ns) / 1e9
        longest = max(once, int(_LONGEST_SECONDS / seconds))
        return min(once << min(incident.times - 1, 10), longest)

    def _confirmed(self, match: Incident, judgement: Judgement, found: Found) -> Incident:
        """An incident of other windows that a long one found, too. If it has no cause yet, it gets
        what the long one blames.

        If it was open all the time and its losses are near the threshold, short windows will not
        always show it: from now on the long ones decide when it is resolved.
        """
        if not match.causes:
            match = msgspec.structs.replace(match, causes=found.causes)
        whole = match.opened_ns <= judgement.window.start_ns
        if judgement.basis != "losses" or match.basis != "failures" or not whole:
            return match
        evidence = judgement.decisions.evidence[found.positions].sum(axis=0, keepdims=True)
        ratio = float(ratios_of(RETRANSMISSION_RATIO, evidence, COUNTS)[0])
        is_near = ratio < _NEAR * self._settings.fail_ratio
        return msgspec.structs.replace(match, basis="losses" if is_near else match.basis)

    def _next(self, match: Incident | None, found: Found, judgement: Judgement) -> Incident:
        """The incident as of this window."""
        end_ns, backends = judgement.window.end_ns, judgement.window.facts.backends
        if match is None:
            # What strikes several clusters at once, where all is called the same, is one in each.
            cluster = self._settings.cluster
            identity = (cluster, end_ns, key_of(found.causes), sorted(found.flows))
            match = Incident(
                id=digest(repr(identity)),
                causes=found.causes,
                flows=found.flows,
                windows=0,
                basis=judgement.basis,
            )
        key = key_of(found.causes)
        if key == match.blamed or (match.state == "pending" and match.windows == 0):
            causes = _no_narrower(match.causes, found.causes)
            windows, rival, rivals = match.windows + 1, ("", ""), 0
        elif match.state != "pending" and not found.causes:
            # It cannot tell, so it is no rival.
            causes, windows = match.causes, match.windows
            rival, rivals = match.rival, match.rival_windows
        else:
            rivals = match.rival_windows + 1 if key == match.rival else 1
            causes, windows, rival = match.causes, match.windows, key
            if rivals >= self._windows_to_replace(match, found, backends):
                causes, windows, rival, rivals = found.causes, rivals, ("", ""), 0
        is_long = judgement.basis != "failures"
        enough = _LONG_WINDOWS if is_long else self._windows_to_open(found)
        opens = match.state == "pending" and not rivals and windows >= enough
        return Incident(
            id=match.id,
            causes=causes,
            flows=found.flows,
            windows=windows,
            rival=rival,
            rival_windows=rivals,
            opened_ns=end_ns if opens else match.opened_ns,
            basis=match.basis,
            times=match.times,
            severity=match.severity,
        )

    def _windows_to_open(self, found: Found) -> int:
        """Windows in a row before the first verdict: a single flow may be the first of many, and
        what has no cause yet may get one.
        """
        longer = self._settings.window_panes if len(found.pairs) == 1 or not found.causes else 0
        return self._settings.open_after + longer

    def _windows_to_replace(self, match: Incident, found: Found, backends: Backends) -> int:
        """Windows in a row before another cause is accepted.

        While a fault fades, its flows recover one by one, and what is left looks like a smaller
        fault. So if the blamed component still takes part in everything that fails, wait for
        another full window length.
        """
        if match.state == "pending":
            return 1 if found.causes else self._windows_to_open(found)
        longer = self._settings.window_panes if belongs(match, found, backends) else 0
        return self._settings.open_after + longer


def _said(
    incident: Incident, status: VerdictStatus, judgement: Judgement, explained: Numbers
) -> Verdict:
    """The verdict on an incident; its severity only rises."""
    said = verdict(incident.id, incident.opened_ns, status, judgement, incident.causes, explained)
    is_critical = "critical" in (incident.severity, said.severity)
    return msgspec.structs.replace(said, severity="critical" if is_critical else "warning")


def _over(incident: Incident, end_ns: int) -> Incident:
    """An incident that was resolved, with no more than what tells whether it comes again."""
    causes = tuple(
        msgspec.structs.replace(
            cause, addresses=(), alternatives=(), candidates=(), service_addresses=()
        )
        for cause in incident.causes[:1]
    )
    return msgspec.structs.replace(incident, causes=causes, flows=frozenset(), resolved_ns=end_ns)


def _no_narrower(before: tuple[Cause, ...], now: tuple[Cause, ...]) -> tuple[Cause, ...]:
    """The causes of now; a path that has failed both ways stays one that does.

    Which way it shows changes from window to window, and while it recovers.
    """
    if not (before and now):
        return now
    old, new = before[0], now[0]
    path = both_ways(new)
    if not is_directed(new) or both_ways(old).name != path.name or old.name == new.name:
        return now
    whole = msgspec.structs.replace(new, name=path.name, ends=path.ends, direction="both")
    return (whole, *now[1:])


def _is_leaving(incident: Incident, judgement: Judgement) -> bool:
    """Whether what is blamed is a pod that is being deleted: nothing will measure it any more."""
    conditions = judgement.window.facts.conditions
    names = {cause.name for cause in incident.causes[:1] if cause.kind == "pod"}
    return any(str(each) in names and text in LEAVING for each, text in conditions.items())


def _was_judged(incident: Incident, judgement: Judgement) -> bool:
    """Whether the window tells anything about the incident's flows."""
    decisions = judgement.decisions
    decided = decisions.status != PairStatus.UNDECIDED
    if incident.basis == "connects":
        # What calls a service is a flow to the pod that answers, once it does.
        for cause in incident.causes[:1]:
            if (decided & pairs_of(cause, cause.direction, judgement.window)).any():
                return True
    return bool(incident.flows & hashes_of(decisions.pairs(np.flatnonzero(decided))))
