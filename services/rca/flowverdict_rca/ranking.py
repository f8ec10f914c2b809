"""The components that explain the failing pairs.

A component explains the failing pairs that it takes part in, and is contradicted by the OK pairs
that it takes part in. The best one is chosen, its pairs are set aside, and the rest is explained in
the same way, so that two faults at once give two findings.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from flowverdict_contracts.verdicts import Cause, Component, Direction
from flowverdict_rca.mining import FAIL, OK, chance
from flowverdict_rca.pairs import Endpoint, Pair

__all__ = ["Addresses", "Finding", "components_of", "findings", "roles_of", "transaction"]

Addresses = dict[Endpoint, frozenset[str]]

_BETA_SQUARED = 0.25
_MIN_SCORE = 0.6
_MAX_P_VALUE = 0.1
_MAX_FINDINGS = 5
_RUNNERS_UP = 4
# Of components with the very same flows, the first is named and the others are alternatives.
_PREFERENCE = ("pod", "service", "external", "unknown", "node", "workload", "link", "node_link")


@dataclass(frozen=True, slots=True)
class Finding:
    """A cause that was singled out, with what fits less well behind it.

    Attributes:
        causes: best first.
        explained: the failing pairs that are the first one's.
        contradicting: numbers, among the OK pairs, of those that are.
    """

    causes: tuple[Cause, ...]
    explained: tuple[Pair, ...]
    contradicting: frozenset[int]


_Role = tuple[Component, Direction]


@dataclass(frozen=True, slots=True)
class _Suspect:
    """Components with the very same flows: numbers of their failing pairs and of their OK ones.

    `directions` are those in which each component has these flows and no others.
    """

    components: tuple[Component, ...]
    directions: dict[Component, list[Direction]]
    failing: frozenset[int]
    ok: frozenset[int]


def _joined(kind: str, one: str, other: str) -> Component:
    return Component(kind=kind, name=" <-> ".join(sorted((one, other))))  # type: ignore[arg-type]


def _parts(end: Endpoint) -> Iterator[Component]:
    yield end.component
    if end.workload:
        yield Component(kind="workload", name=end.workload)
    if end.node and end.kind != "node":
        yield Component(kind="node", name=end.node)


def _links(pair: Pair) -> Iterator[Component]:
    yield _joined("link", pair.src.name, pair.dst.name)
    if pair.src.node and pair.dst.node and pair.src.node != pair.dst.node:
        yield _joined("node_link", pair.src.node, pair.dst.node)


def components_of(pair: Pair) -> Iterator[Component]:
    """Every component that could make this pair fail."""
    yield from _parts(pair.src)
    yield from _parts(pair.dst)
    yield from _links(pair)


def roles_of(pair: Pair) -> Iterator[_Role]:
    """Every component with what it would have to be bad at: loss may hit one direction only."""
    for component in components_of(pair):
        yield component, "both"
    for component in _parts(pair.src):
        yield component, "sending"
    for component in _parts(pair.dst):
        yield component, "receiving"


def transaction(pair: Pair, failing: bool) -> frozenset[str]:
    """The pair as items for rule mining: endpoints, nodes, OK or FAIL."""
    items = {str(end.component) for end in (pair.src, pair.dst)}
    items |= {f"node {end.node}" for end in (pair.src, pair.dst) if end.node}
    return frozenset(items | {FAIL if failing else OK})


def findings(failing: Sequence[Pair], ok: Sequence[Pair], addresses: Addresses) -> list[Finding]:
    """What is behind `failing`, most convincing first; empty where nothing can be singled out.

    One fault may make too few flows fail to be told from chance while another hides them, so the
    faults found are tested together: as many are taken as make chance least likely.
    """
    found: list[Finding] = []
    chances: list[float] = []
    remaining = list(failing)
    while len(remaining) > 1 and len(found) < _MAX_FINDINGS:
        scored = sorted(
            ((_score(suspect, len(remaining)), suspect) for suspect in _suspects(remaining, ok)),
            key=lambda each: (-each[0], _rank_of(each[1].components[0])),
        )
        best_of_each: dict[Component, tuple[float, _Suspect]] = {}
        for score, suspect in scored:
            best_of_each.setdefault(suspect.components[0], (score, suspect))
        causes = tuple(
            _cause(suspect, score, remaining, len(remaining) + len(ok), addresses)
            for score, suspect in list(best_of_each.values())[: 1 + _RUNNERS_UP]
        )
        if causes[0].score < _MIN_SCORE:
            break
        best = scored[0][1]
        explained = best.failing
        pairs = tuple(remaining[number] for number in sorted(explained))
        found.append(Finding(causes, pairs, best.ok))
        remaining = [pair for number, pair in enumerate(remaining) if number not in explained]
        chances.append(_chance_of_all(found, failing, ok))
    if not chances or min(chances) > _MAX_P_VALUE:
        return []
    return found[: 1 + chances.index(min(chances))]


def _chance_of_all(found: Sequence[Finding], failing: Sequence[Pair], ok: Sequence[Pair]) -> float:
    """P-value of blaming all of `found` at once."""
    explained = sum(len(each.explained) for each in found)
    contradicting = len(frozenset().union(*(each.contradicting for each in found)))
    return chance(len(failing) + len(ok), len(failing), explained + contradicting, explained)


def _rank_of(component: Component) -> tuple[int, str]:
    return _PREFERENCE.index(component.kind), component.name


def _suspects(failing: Sequence[Pair], ok: Sequence[Pair]) -> list[_Suspect]:
    fails: dict[_Role, set[int]] = defaultdict(set)
    fine: dict[_Role, set[int]] = defaultdict(set)
    for number, pair in enumerate(failing):
        for role in roles_of(pair):
            fails[role].add(number)
    for number, pair in enumerate(ok):
        for role in roles_of(pair):
            if role in fails:
                fine[role].add(number)
    alike: dict[tuple[frozenset[int], frozenset[int]], dict[Component, list[Direction]]]
    alike = defaultdict(lambda: defaultdict(list))
    for (component, direction), numbers in fails.items():
        flows = frozenset(numbers), frozenset(fine[component, direction])
        alike[flows][component].append(direction)
    return [
        _Suspect(_ordered(list(directions)), directions, bad, good)
        for (bad, good), directions in alike.items()
    ]


def _ordered(components: list[Component]) -> tuple[Component, ...]:
    """The one to name first. Where two endpoints are alike, the link between them is as far as
    the evidence goes, and naming one of the two would be a guess.
    """
    components.sort(key=_rank_of)
    for kinds, link in (
        (("pod", "service", "external", "unknown"), "link"),
        (("node",), "node_link"),
    ):
        if sum(each.kind in kinds for each in components) > 1:
            components.sort(key=lambda each, link=link: each.kind != link)  # type: ignore[misc]
            break
    return tuple(components)


def _score(suspect: _Suspect, failing: int) -> float:
    precision = len(suspect.failing) / (len(suspect.failing) + len(suspect.ok))
    explains = len(suspect.failing) / failing
    return (1 + _BETA_SQUARED) * precision * explains / (_BETA_SQUARED * precision + explains)


def _cause(
    suspect: _Suspect, score: float, failing: Sequence[Pair], total: int, addresses: Addresses
) -> Cause:
    named, *others = suspect.components
    involved = len(suspect.failing) + len(suspect.ok)
    ends = _ends(named, [failing[number] for number in suspect.failing])
    return Cause(
        kind=named.kind,
        name=named.name,
        node=_node(named, ends),
        addresses=tuple(sorted(set().union(*(addresses.get(end, frozenset()) for end in ends)))),
        direction=_direction(
            named, suspect.directions[named], [failing[number] for number in suspect.failing]
        ),
        score=round(score, 4),
        precision=round(len(suspect.failing) / involved, 4),
        explains=round(len(suspect.failing) / len(failing), 4),
        p_value=chance(total, len(failing), involved, len(suspect.failing)),
        alternatives=tuple(others),
    )


def _is_part(end: Endpoint, component: Component) -> bool:
    if component.kind == "workload":
        return end.workload == component.name
    if component.kind == "node":
        return end.node == component.name
    return end.kind == component.kind and end.name == component.name


def _ends(component: Component, pairs: Sequence[Pair]) -> set[Endpoint]:
    """The endpoints that have the component's addresses; a link's are those at both its ends."""
    both = {end for pair in pairs for end in (pair.src, pair.dst)}
    if component.kind == "link":
        return both
    if component.kind in ("node", "node_link"):
        return {end for end in both if end.kind == "node" and end.name in component.name}
    return {end for end in both if _is_part(end, component)}


def _node(component: Component, ends: set[Endpoint]) -> str:
    if component.kind == "node":
        return component.name
    nodes = {end.node for end in ends}
    return nodes.pop() if len(nodes) == 1 else ""


def _direction(
    component: Component, directions: Sequence[Direction], pairs: Sequence[Pair]
) -> Direction:
    """The one that was judged; where several are the same flows, what those flows do."""
    if len(directions) == 1:
        return directions[0]
    sends = any(_is_part(pair.src, component) for pair in pairs)
    receives = any(_is_part(pair.dst, component) for pair in pairs)
    if sends == receives:
        return "both"
    return "sending" if sends else "receiving"
