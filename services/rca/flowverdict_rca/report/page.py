"""The page: the data for its template."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from flowverdict_contracts.verdicts import Verdict
from flowverdict_flows.endpoint import Endpoint
from flowverdict_rca.report.gather import PHASES, ReportedIncident
from flowverdict_rca.report.map import draw_map
from flowverdict_rca.report.next_steps import affected, commands
from flowverdict_rca.report.timeline import draw_timelines
from flowverdict_rca.summary import percent
from flowverdict_runtime.terminal import printable

__all__ = ["render"]

_MAX_IN_MATRIX = 24
_LEVELS = ((5, "level-5"), (2, "level-4"), (1, "level-3"), (0.2, "level-2"), (0, "level-1"))
"""Shades of a matrix, each with the multiple of the threshold it starts above."""


@dataclass(frozen=True, slots=True)
class _Cell:
    """A cell of a matrix: a value as text, its shade, and the numbers behind it."""

    text: str
    shade: str
    title: str


@dataclass(frozen=True, slots=True)
class _Matrix:
    phase: str
    rows: tuple[tuple[Endpoint, tuple[_Cell, ...]], ...]


def render(incident: ReportedIncident) -> str:
    """The HTML of a report, in a single self-contained file."""
    environment = Environment(
        loader=PackageLoader("flowverdict_rca.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": percent, "clock": _clock, "number": _number}
    ends, left_out = _ends(incident)
    page: str = environment.get_template("report.html").render(
        incident=incident,
        verdict=incident.worst,
        measure=incident.measure,
        cause=incident.cause,
        resolved=incident.resolved,
        status="resolved" if incident.resolved else "open",
        map=draw_map(incident) if incident.pairs.get("during") else None,
        timelines=draw_timelines(incident),
        ends=ends,
        left_out=left_out,
        matrices=[_matrix(incident, phase, ends) for phase in PHASES if incident.pairs.get(phase)],
        changes=list(_changes(incident)),
        affected=affected(incident.worst),
        commands=commands(incident.worst),
        created_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("flowverdict-rca"),
    )
    # Nothing in it steers a terminal, if somebody looks at the file on one.
    return "\n".join(map(printable, page.split("\n")))


def _changes(incident: ReportedIncident) -> Iterator[Verdict]:
    """The verdicts with something new: opened, another cause, resolved."""
    last: tuple[object, ...] = ()
    for verdict in incident.verdicts:
        new = (verdict.status == "resolved", *((c.kind, c.name) for c in verdict.causes[:1]))
        if new != last:
            yield verdict
        last = new


def _ends(incident: ReportedIncident) -> tuple[list[Endpoint], int]:
    """The worst endpoints for the matrices, by node and name, and how many are left out."""
    worst: dict[Endpoint, float] = {}
    for phase in PHASES:
        for (src, dst), counts in incident.pairs.get(phase, {}).items():
            share = (incident.measure.of(counts) or 0.0) if phase == "during" else 0.0
            for end in (src, dst):
                worst[end] = max(worst.get(end, 0.0), share)
    chosen = sorted(worst, key=lambda end: (-worst[end], str(end)))[:_MAX_IN_MATRIX]
    return sorted(chosen, key=lambda end: (end.node, str(end))), len(worst) - len(chosen)


def _matrix(incident: ReportedIncident, phase: str, ends: list[Endpoint]) -> _Matrix:
    return _Matrix(
        phase, tuple((src, tuple(_cell(incident, phase, src, dst) for dst in ends)) for src in ends)
    )


def _cell(incident: ReportedIncident, phase: str, src: Endpoint, dst: Endpoint) -> _Cell:
    counts, measure = incident.pairs[phase].get((src, dst)), incident.measure
    value = measure.of(counts) if counts else None
    if counts is None or value is None:
        return _Cell("", "none", "sent no data")
    title = f"{src} to {dst}: {measure.sentence(value, counts)}"
    levels = ((times * measure.threshold, name) for times, name in _LEVELS)
    shade = next((name for least, name in levels if value > least), "level-0")
    return _Cell(measure.short(value), shade, title)


def _number(value: float) -> str:
    return f"{value:.2g}"


def _clock(time: str) -> str:
    return datetime.fromisoformat(time).strftime("%Y-%m-%d %H:%M:%S UTC")
