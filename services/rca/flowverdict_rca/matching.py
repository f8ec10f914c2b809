"""Which incident it is that a window shows."""

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from flowverdict_contracts.verdicts import Cause, Component
from flowverdict_flows.components import takes_part
from flowverdict_flows.endpoint import Endpoint
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.incident import Incident, key_of
from flowverdict_rca.judgement import Judgement
from flowverdict_rca.window import Pair

__all__ = ["Found", "belongs", "digest", "found_in", "hashes_of", "is_among", "matched"]

_SAMPLED_FLOWS = 500

Backends = Mapping[Endpoint, frozenset[Endpoint]]


@dataclass(frozen=True, slots=True)
class Found:
    """What a window blames: causes, the failing pairs they explain, and a sample of those."""

    causes: tuple[Cause, ...]
    positions: Numbers
    pairs: tuple[Pair, ...]
    flows: frozenset[str]


def hashes_of(pairs: Iterable[Pair]) -> frozenset[str]:
    """What an incident remembers of each pair."""
    return frozenset(digest(f"{pair.src} -> {pair.dst}") for pair in pairs)


def _sample(pairs: Iterable[Pair]) -> frozenset[str]:
    """Hashes of the pairs, only the smallest if there are many: the overlap of two samples
    estimates that of the full sets (Broder, 1997), and the state stays small however much of a
    cluster fails.
    """
    return frozenset(sorted(hashes_of(pairs))[:_SAMPLED_FLOWS])


def digest(text: str) -> str:
    """A short hash."""
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def found_in(judgement: Judgement) -> list[Found]:
    """What a window blames, for which pairs; one entry without causes if none stands out."""
    found = [(finding.causes, finding.explained) for finding in judgement.findings]
    if judgement.failing.size and not found:
        found = [((), judgement.failing)]
    result = []
    for causes, positions in found:
        pairs = tuple(judgement.decisions.pairs(positions))
        result.append(Found(causes, positions, pairs, _sample(pairs)))
    return result


def matched(
    found: Sequence[Found],
    known: Sequence[Incident],
    shared: Sequence[Incident],
    backends: Backends,
) -> list[tuple[Found, Incident | None]]:
    """The incident that each finding is: an open one with the same cause, or else an open one whose
    component takes part in all of its flows, or else one with the same cause or mostly the same
    flows, or one without a cause whose flows are mostly among its own. The best match of an
    incident comes before its others.

    Args:
        found: what a window shows.
        known: what it can be.
        shared: open incidents about something else, of which it may be a part.
        backends: each service's pods.
    """
    rest, result = list(found), list[tuple[Found, Incident | None]]()
    for is_match, incidents in (
        (_is_open_with_same_cause, (*known, *shared)),
        (belongs, (*known, *shared)),
        (_mostly_in, shared),
        (_tells_why, shared),
        (_same_cause, known),
        (_same_flows, known),
    ):
        for each in tuple(rest):
            match = next((i for i in incidents if is_match(i, each, backends)), None)
            if match is not None:
                result.append((each, match))
                rest = [other for other in rest if other is not each]
    return [*result, *((each, None) for each in rest)]


def _same_cause(incident: Incident, found: Found, _: Backends) -> bool:
    return incident.blamed == key_of(found.causes)


def _is_open_with_same_cause(incident: Incident, found: Found, backends: Backends) -> bool:
    return incident.state != "pending" and _same_cause(incident, found, backends)


def _same_flows(incident: Incident, found: Found, _: Backends) -> bool:
    shared = len(incident.flows & found.flows)
    return 2 * shared >= min(len(incident.flows), len(found.flows)) > 0


def _mostly_in(incident: Incident, found: Found, _: Backends) -> bool:
    return 2 * len(incident.flows & found.flows) >= len(found.flows)


def _tells_why(incident: Incident, found: Found, _: Backends) -> bool:
    """Whether the incident has no cause yet, and its flows are mostly those of what is found."""
    if incident.causes or not found.causes:
        return False
    return 2 * len(incident.flows & found.flows) >= len(incident.flows) > 0


def belongs(incident: Incident, found: Found, backends: Backends) -> bool:
    """Whether the component that an open incident blames takes part in all that fails."""
    if incident.state == "pending" or not incident.causes:
        return False
    return all(_takes_part(incident.causes[0], pair, backends) for pair in found.pairs)


def is_among(incident: Incident, pairs: Sequence[Pair], backends: Backends) -> bool:
    """Whether any of the pairs was the incident's, or has to do with what it blames."""
    if incident.flows & hashes_of(pairs):
        return True
    return any(_takes_part(each, pair, backends) for each in incident.causes[:1] for pair in pairs)


def _takes_part(component: Component, pair: Pair, backends: Backends) -> bool:
    """Whether it is part of the pair, or may be: one of a service's pods has answered."""
    src, dst = ({end, *backends.get(end, ())} for end in (pair.src, pair.dst))
    return takes_part(component, src, dst)
