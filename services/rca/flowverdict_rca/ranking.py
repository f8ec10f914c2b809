"""The components that explain the failing pairs.

A component explains the failing pairs that it takes part in, and is contradicted by the OK pairs
that it takes part in. The best one is chosen, its pairs are set aside, and the rest are explained
in the same way, so that two simultaneous faults give two findings.
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from flowverdict_contracts.verdicts import MOST_NAMED, Cause, Component, Direction
from flowverdict_flows.components import is_directed, is_part
from flowverdict_flows.endpoint import Endpoint
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.backends import attribute_to_backends
from flowverdict_rca.decisions import Decisions, PairStatus
from flowverdict_rca.known import KnownCause
from flowverdict_rca.mining import hypergeometric_p_value
from flowverdict_rca.roles import Roles, roles_in
from flowverdict_rca.window import Window
from flowverdict_rca.window import total as total_of

__all__ = ["Finding", "findings"]

_BETA_SQUARED = 0.25
_MIN_SCORE = 0.6
_MAX_P_VALUE = 0.1
_MAX_FINDINGS = 5
_RUNNERS_UP = 4
_SEVERAL = 3
_SIGNS = ("retransmitted_data_segments", "retransmitted_syns", "failed_opens")
_ENOUGH_SIGNS = 10
# Of components with identical flows, the first is named and the others are alternatives.
_PREFERENCE = ("pod", "service", "external", "unknown", "node", "workload", "link", "node_link")

Mask = npt.NDArray[np.bool_]
Floats = TypeVar("Floats", float, npt.NDArray[np.float64])


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause that stands out, followed by those that fit less well.

    Attributes:
        causes: best first; empty if the finding is withheld.
        explained: positions of the failing pairs of the first cause.
        contradicting: positions of the OK pairs of the first cause.
        between: if it is withheld, what may be at fault, and `needed` are the silent nodes that may
            have counted what tells.
    """

    causes: tuple[Cause, ...]
    explained: Numbers
    contradicting: Numbers
    between: tuple[Component, ...] = ()
    needed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class _Suspect:
    """Components with identical flows: positions of the failing ones and of the OK ones.

    `directions` are those in which each component has these flows and no others.
    """

    components: tuple[Component, ...]
    directions: dict[Component, list[Direction]]
    score: float
    failing: Numbers
    ok: Numbers


def findings(decisions: Decisions, known: Iterable[KnownCause] = ()) -> list[Finding]:
    """What is behind the failing pairs; empty if nothing stands out.

    First what is `known` from the cluster itself, then what the flows show, most convincing first.
    """
    failing = decisions.status == PairStatus.FAIL
    found = []
    for each in known:
        explained = each.explained[failing[each.explained]]
        if not explained.size:
            continue
        cause = replace(each, explained=explained)
        found.append(_reported(cause, int(failing.sum()), decisions))
        failing[explained] = False
        failing &= ~_other_way(each.component, decisions.window)
    # One more beside what the cluster reports is a trace of that.
    if failing.sum() == 1 and any(each.causes[0].reported for each in found):
        return found
    return [*found, *_by_flows(decisions, failing)]


def _by_flows(decisions: Decisions, remaining: Mask) -> list[Finding]:
    """What the flows show about the `remaining` failing pairs.

    One fault may affect too few flows to be distinguished from chance while another masks it, so
    the faults found are tested together: those that make chance least likely are kept. If
    hardly anything is OK, chance cannot be estimated; then it is what all have in common.
    """
    ok = decisions.status == PairStatus.OK
    failing, total = int(remaining.sum()), int(remaining.sum() + ok.sum())
    if not failing:
        return []
    roles = attribute_to_backends(decisions.window, roles_in(decisions.window), remaining, ok)
    found: list[Finding] = []
    p_values: list[float] = []
    while remaining.any() and len(found) < _MAX_FINDINGS:
        best, *runners_up = _best_suspects(roles, remaining, ok)
        if best.score < _MIN_SCORE or not _is_enough(best, decisions):
            break
        still_failing = int(remaining.sum())
        causes = tuple(
            _cause(each, still_failing, still_failing + int(ok.sum()), decisions.window)
            for each in (best, *runners_up)
        )
        found.append(Finding(causes, best.failing, best.ok))
        remaining[best.failing] = False
        remaining &= ~_other_way(best.components[0], decisions.window)
        explained = sum(len(each.explained) for each in found)
        contradicting = len(np.unique(np.concatenate([each.contradicting for each in found])))
        p_values.append(
            hypergeometric_p_value(total, failing, explained + contradicting, explained)
        )
    if failing == 1 or (found and _is_their_center(found[0], decisions)):
        return found[:1]
    if not p_values or min(p_values) > _MAX_P_VALUE:
        return []
    return found[: 1 + p_values.index(min(p_values))]


def _is_their_center(finding: Finding, decisions: Decisions) -> bool:
    """Whether a cause, or what fits as well, is at one end of every failing pair, several others
    are at the other end, and hardly anything there is fine, not even what is too little to be OK.
    One fault is likelier than many, however little there is to compare with.
    """
    fails = decisions.status == PairStatus.FAIL
    if len(finding.explained) < np.count_nonzero(fails) or len(finding.contradicting):
        return False
    cause = finding.causes[0]
    return any(_is_center(each, fails, decisions.window) for each in (cause, *cause.alternatives))


def _is_center(component: Component, fails: Mask, window: Window) -> bool:
    is_it = _are_part(component, window)
    has_one_end = is_it[window.src] != is_it[window.dst]
    others = np.unique(np.where(is_it[window.src], window.dst, window.src)[fails])
    worked = total_of(window.counts, "opens", "dns_answers", "data_segments_sent")
    worked -= 2 * total_of(window.counts, "retransmitted_data_segments", "dns_failures")
    fine = np.count_nonzero(has_one_end & ~fails & (worked > 0))
    return bool(
        has_one_end[fails].all()
        and len(others) >= _SEVERAL
        and _SEVERAL * fine < np.count_nonzero(fails)
    )


def _is_enough(suspect: _Suspect, decisions: Decisions) -> bool:
    """Whether it explains more than a single failing pair, or one that is more than a mishap."""
    if len(suspect.failing) > 1:
        return True
    counts = decisions.window.counts[suspect.failing]
    return bool(total_of(counts, *_SIGNS).sum() >= _ENOUGH_SIGNS)


def _other_way(named: Component, window: Window) -> Mask:
    """All pairs of a pod that is blamed, whichever way: what else fails at it is the same fault."""
    if named.kind != "pod":
        return np.zeros(len(window.src), np.bool_)
    return window.pairs_with(_are_part(named, window))


def _reported(known: KnownCause, failing: int, decisions: Decisions) -> Finding:
    bad, ok = len(known.explained), len(known.contradicting)
    suspect = _Suspect(
        (known.component, *known.alternatives),
        {known.component: [known.direction]},
        _score(bad / (bad + ok), bad / failing),
        known.explained,
        known.contradicting,
    )
    decided = failing + int((decisions.status == PairStatus.OK).sum())
    cause = _cause(suspect, failing, decided, decisions.window, known.reported)
    return Finding((cause,), known.explained, known.contradicting)


def _score(precision: Floats, explains: Floats) -> Floats:
    return (1 + _BETA_SQUARED) * precision * explains / (_BETA_SQUARED * precision + explains)


def _rank_of(component: Component) -> tuple[int, bool, str]:
    return _PREFERENCE.index(component.kind), not is_directed(component), component.name


def _best_suspects(roles: Roles, failing: Mask, ok: Mask) -> list[_Suspect]:
    """The few that explain best, best first, no component named twice."""
    bad, good = roles.counts(failing), roles.counts(ok)
    involved = np.flatnonzero(bad)
    precision = bad[involved] / (bad[involved] + good[involved])
    explains = bad[involved] / failing.sum()
    scores = _score(precision, explains)
    same_bad, same_good = roles.alike(failing), roles.alike(ok)
    groups: dict[tuple[int, int], list[int]] = {}
    for role in involved.tolist():
        groups.setdefault((int(same_bad[role]), int(same_good[role])), []).append(role)
    score_of = dict(zip(involved.tolist(), scores.tolist(), strict=True))
    by_score = sorted(groups.values(), key=lambda group: -score_of[group[0]])
    # Only the best are considered further; equal scores are ordered by name.
    least = score_of[by_score[: 3 * (1 + _RUNNERS_UP)][-1][0]]
    suspects = [
        _suspect(roles, group, score_of[group[0]], failing, ok)
        for group in by_score
        if score_of[group[0]] >= least
    ]
    suspects.sort(key=lambda each: (-each.score, _rank_of(each.components[0])))
    best_of_each: dict[Component, _Suspect] = {}
    for suspect in suspects:
        best_of_each.setdefault(suspect.components[0], suspect)
    return list(best_of_each.values())[: 1 + _RUNNERS_UP]


def _suspect(roles: Roles, group: Sequence[int], score: float, failing: Mask, ok: Mask) -> _Suspect:
    directions: dict[Component, list[Direction]] = {}
    for role in group:
        component, direction = roles.roles[role]
        directions.setdefault(component, []).append(direction)
    pairs = roles.pairs_of(group[0])
    return _Suspect(
        _ordered(directions), directions, score, pairs[failing[pairs]], pairs[ok[pairs]]
    )


def _ordered(directions: Mapping[Component, Sequence[Direction]]) -> tuple[Component, ...]:
    """The components, the one to name first. If two endpoints have identical flows, the link
    between them is as far as the evidence goes, and naming one of the two would be a guess. Of two
    groups of pods, it is the one that is called.
    """
    components = sorted(directions, key=_rank_of)
    groups = [each for each in components if each.kind in ("service", "workload")]
    if len(components) == len(groups):
        components.sort(key=lambda each: "receiving" not in directions[each])
    for kinds, link in (
        (("pod", "service", "external", "unknown"), "link"),
        (("node",), "node_link"),
    ):
        if sum(each.kind in kinds for each in components) > 1:
            components.sort(key=lambda each, link=link: each.kind != link)  # type: ignore[misc]
            break
    return tuple(components)


def _cause(
    suspect: _Suspect, failing: int, total: int, window: Window, reported: str = ""
) -> Cause:
    named, *others = suspect.components
    bad, involved = len(suspect.failing), len(suspect.failing) + len(suspect.ok)
    ends = _endpoints_of(named, suspect.failing, window)
    addresses = sorted(set().union(*(window.addresses[end] for end in ends)))
    candidates = _candidates(named, suspect.failing, window)
    return Cause(
        kind=named.kind,
        name=named.name,
        ends=named.ends,
        node=_node(named, ends),
        addresses=tuple(addresses[:MOST_NAMED]),
        more_addresses=max(0, len(addresses) - MOST_NAMED),
        direction=_direction(named, suspect, window, reported),
        score=round(suspect.score, 4),
        precision=round(bad / involved, 4),
        explains=round(bad / failing, 4),
        p_value=hypergeometric_p_value(total, failing, involved, bad),
        alternatives=tuple(others[:MOST_NAMED]),
        more_alternatives=max(0, len(others) - MOST_NAMED),
        reported=reported,
        candidates=candidates[:MOST_NAMED],
        more_candidates=max(0, len(candidates) - MOST_NAMED),
        service_addresses=_of_services(suspect.failing, ends, window)[:MOST_NAMED],
    )


def _of_services(pairs: Numbers, ends: Set[Endpoint], window: Window) -> tuple[str, ...]:
    """The addresses of services that these pairs go to, but for those of the cause itself."""
    called = {window.endpoints[at] for at in np.unique(window.dst[pairs]).tolist()}
    services = (each for each in called - ends if each.kind == "service")
    return tuple(sorted(set().union(*(window.addresses[each] for each in services))))


def _candidates(named: Component, failing: Numbers, window: Window) -> tuple[str, ...]:
    """The pods that may be meant where nothing but a node's own address fails."""
    nodes = {each.name for each in named.ends if each.kind == "node"}
    positions = np.unique(np.concatenate([window.src[failing], window.dst[failing]]))
    on_them = [each for at in positions.tolist() if (each := window.endpoints[at]).node in nodes]
    if named.kind not in ("node", "link") or any(each.kind != "node" for each in on_them):
        return ()
    found = (window.facts.candidates.get(each, ()) for each in on_them)
    return tuple(sorted(set(itertools.chain.from_iterable(found))))


def _is_part(end: Endpoint, component: Component) -> bool:
    """Whether `component` is this endpoint, its workload or its node."""
    return len(component.ends) == 1 and is_part(end, component.ends[0])


def _are_part(component: Component, window: Window) -> Mask:
    return np.array([_is_part(each, component) for each in window.endpoints], np.bool_)


def _endpoints_of(component: Component, pairs: Numbers, window: Window) -> set[Endpoint]:
    """The endpoints that have the component's addresses; a link's are those at both its ends."""
    positions = np.unique(np.concatenate([window.src[pairs], window.dst[pairs]]))
    both = {window.endpoints[at] for at in positions.tolist()}
    if component.kind == "link":
        return both
    if component.kind in ("node", "node_link"):
        nodes = {named.name for named in component.ends}
        return {end for end in both if end.kind == "node" and end.name in nodes}
    return {end for end in both if any(is_part(end, named) for named in component.ends)}


def _node(component: Component, ends: set[Endpoint]) -> str:
    if component.kind == "node":
        return component.name
    if component.kind == "workload_link":  # its pods at one end may not be seen
        return ""
    nodes = {end.node for end in ends}
    return nodes.pop() if len(nodes) == 1 else ""


def _direction(component: Component, suspect: _Suspect, window: Window, reported: str) -> Direction:
    """The direction judged; if several cover the same flows, the direction of those flows; unknown
    if nobody could be heard that counts the other direction.
    """
    directions = suspect.directions[component]
    sources, targets = (
        {window.endpoints[at] for at in np.unique(side[suspect.failing]).tolist()}
        for side in (window.src, window.dst)
    )
    found = directions[0]
    if len(directions) > 1:
        sends = any(_is_part(end, component) for end in sources)
        receives = any(_is_part(end, component) for end in targets)
        found = "both" if sends == receives else "sending" if sends else "receiving"
    if len(component.ends) == 1 and not reported:
        # What goes the other way is counted where it is sent.
        senders = {end.node for end in targets} - {""}
        if senders and senders <= set(window.coverage.nodes_silent):
            return "unknown"
    return found
