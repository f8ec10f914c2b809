"""The layout of the report's map, in SVG units; the template draws it, on a phone as a list."""

import math
from collections import defaultdict
from dataclasses import dataclass

from flowverdict_flows.endpoint import Endpoint
from flowverdict_rca.report.gather import PairKey, ReportedIncident
from flowverdict_rca.report.measure import Counts, Measure

__all__ = ["Edge", "Group", "Map", "Spot", "draw_map"]

_MAX_DRAWN = 48
_MAX_EDGES = 400
_LABEL_LENGTH = 26
_LABEL_GAP, _LETTER_WIDTH, _GROUP_WIDTH = 28, 7.2, 120
_OUTSIDE = "outside the cluster"


@dataclass(frozen=True, slots=True)
class Spot:
    """An endpoint on the circle: its position, and its label, which points outwards.

    `failing` of its `pairs`, those that sent enough for a figure, are above the threshold.
    """

    name: str
    label: str
    x: float
    y: float
    turn: float
    anchor: str
    blamed: bool
    pairs: int
    failing: int


@dataclass(frozen=True, slots=True)
class Group:
    """A node: the arc beside its pods, and the position of its name."""

    name: str
    arc: str
    x: float
    y: float
    anchor: str
    blamed: bool
    spots: tuple[Spot, ...]

    @property
    def has_the_cause(self) -> bool:
        """Whether it, or an endpoint on it, is to blame."""
        return self.blamed or any(spot.blamed for spot in self.spots)


@dataclass(frozen=True, slots=True)
class Edge:
    """The flows between two endpoints, both ways: the line to draw, and whether any fails."""

    path: str
    bad: bool
    title: str


@dataclass(frozen=True, slots=True)
class Map:
    """Endpoints on a circle around 0,0, grouped by node; `left_out` more are not drawn."""

    width: float
    height: float
    groups: tuple[Group, ...]
    edges: tuple[Edge, ...]
    left_out: int


def draw_map(incident: ReportedIncident) -> Map:
    """Pods by node, failing pairs as red lines, the blamed component marked."""
    pairs = incident.pairs["during"]
    chosen = _chosen(incident, pairs)
    by_node: dict[str, list[Endpoint]] = defaultdict(list)
    for end in sorted(chosen, key=str):
        by_node[end.node or _OUTSIDE].append(end)
    nodes = sorted(by_node, key=lambda name: (name == _OUTSIDE, name))
    cause = incident.cause
    ends = cause.ends if cause else ()
    blamed_nodes = {end.name for end in ends if end.kind == "node"}
    blamed = {(end.kind, end.namespace, end.name) for end in ends}

    def is_blamed(end: Endpoint) -> bool:
        workload = ("workload", end.namespace, end.workload)
        return not blamed.isdisjoint({(end.kind, end.namespace, end.name), workload})

    # A gap between nodes is as wide as one endpoint.
    places = len(chosen) + len(nodes)
    step, radius = 2 * math.pi / max(places, 1), max(130.0, places * 5.5)
    longest = max((len(str(end)) for end in chosen), default=0)
    around = radius + _LABEL_GAP + _LETTER_WIDTH * min(longest, _LABEL_LENGTH) + 14
    groups, angles = [], {}
    judged = _judged(pairs, incident.measure)
    angle = -math.pi / 2 + step
    for node in nodes:
        first = angle
        spots = []
        for end in by_node[node]:
            angles[end] = angle
            spots.append(_spot(str(end), angle, radius, is_blamed(end), judged[end]))
            angle += step
        arc = (first, angle - step)
        groups.append(_group(node, arc, radius, around, node in blamed_nodes, tuple(spots)))
        angle += step
    return Map(
        width=2 * (around + _GROUP_WIDTH),
        height=2 * (around + 16),
        groups=tuple(groups),
        edges=tuple(_edges(pairs, angles, radius, incident.measure)),
        left_out=len({end for pair in pairs for end in pair}) - len(chosen),
    )


def _at(angle: float, radius: float) -> tuple[float, float]:
    return radius * math.cos(angle), radius * math.sin(angle)


def _judged(pairs: dict[PairKey, Counts], measure: Measure) -> dict[Endpoint, list[bool]]:
    """For each endpoint, of each of its pairs with a figure, whether it fails."""
    found: dict[Endpoint, list[bool]] = defaultdict(list)
    for pair, counts in pairs.items():
        value = measure.of(counts)
        if value is not None:
            for end in {*pair}:
                found[end].append(value > measure.threshold)
    return found


def _spot(name: str, angle: float, radius: float, blamed: bool, judged: list[bool]) -> Spot:
    x, y = _at(angle, radius)
    degrees = math.degrees(angle)
    label = name if len(name) <= _LABEL_LENGTH else f"…{name[1 - _LABEL_LENGTH :]}"
    turn, anchor = (degrees + 180, "end") if math.cos(angle) < 0 else (degrees, "start")
    return Spot(name, label, x, y, turn, anchor, blamed, len(judged), sum(judged))


def _group(
    name: str,
    angles: tuple[float, float],
    radius: float,
    around: float,
    blamed: bool,
    spots: tuple[Spot, ...],
) -> Group:
    beside, spread = radius + 16, 0.06
    first, last = angles[0] - spread, angles[1] + spread
    (x1, y1), (x2, y2) = _at(first, beside), _at(last, beside)
    large = int(last - first > math.pi)
    arc = f"M{x1:.1f},{y1:.1f} A{beside:.1f},{beside:.1f} 0 {large} 1 {x2:.1f},{y2:.1f}"
    x, y = _at((first + last) / 2, around)
    across = x / around
    anchor = "middle" if abs(across) < 0.3 else "start" if across > 0 else "end"
    return Group(name, arc, x, y, anchor, blamed, spots)


def _chosen(incident: ReportedIncident, pairs: dict[PairKey, Counts]) -> set[Endpoint]:
    """The endpoints to draw: those of the worst pairs first, up to the limit."""
    worst = sorted(pairs.items(), key=lambda each: -(incident.measure.of(each[1]) or 0.0))
    chosen: dict[Endpoint, None] = {}
    for (src, dst), _ in sorted(worst, key=lambda each: not incident.explains(*each[0])):
        for end in (src, dst):
            if len(chosen) < _MAX_DRAWN:
                chosen[end] = None
    return set(chosen)


def _edges(
    pairs: dict[PairKey, Counts], angles: dict[Endpoint, float], radius: float, measure: Measure
) -> list[Edge]:
    both_ways: dict[frozenset[Endpoint], dict[PairKey, Counts]] = defaultdict(dict)
    for pair, counts in pairs.items():
        if (
            pair[0] != pair[1]
            and pair[0] in angles
            and pair[1] in angles
            and counts["data_segments_sent"]
        ):
            both_ways[frozenset(pair)][pair] = counts
    edges = []
    for ends, ways in both_ways.items():
        first, second = sorted(ends, key=lambda end: angles[end])
        title = ", ".join(
            f"{src} to {dst}: {measure.sentence(measure.of(counts) or 0.0, counts)}"
            for (src, dst), counts in ways.items()
        )
        bad = any((measure.of(counts) or 0.0) > measure.threshold for counts in ways.values())
        edges.append(Edge(_chord(angles[first], angles[second], radius), bad, title))
    # Failing edges are drawn last, on top of the others.
    edges.sort(key=lambda edge: edge.bad)
    return edges[-_MAX_EDGES:]


def _chord(first: float, second: float, radius: float) -> str:
    """A line across the circle, bent towards its middle."""
    (x1, y1), (x2, y2) = _at(first, radius), _at(second, radius)
    bend = 0.25
    control = f"{bend * (x1 + x2) / 2:.1f},{bend * (y1 + y2) / 2:.1f}"
    return f"M{x1:.1f},{y1:.1f} Q{control} {x2:.1f},{y2:.1f}"
