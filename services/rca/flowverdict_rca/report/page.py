"""The page: what is in it, and the template that says it."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version

from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from flowverdict_contracts.verdicts import Verdict
from flowverdict_rca.pairs import Endpoint
from flowverdict_rca.report.gather import PHASES, Incident
from flowverdict_rca.report.picture import draw_map, draw_timeline

__all__ = ["render"]

_MOST_IN_MATRIX = 24
_LEVELS = (
    (0.25, "level-5"),
    (0.1, "level-4"),
    (0.05, "level-3"),
    (0.01, "level-2"),
    (0.0, "level-1"),
)


@dataclass(frozen=True, slots=True)
class _Cell:
    """A field of a matrix: the ratio in words, its shade, and the numbers behind it."""

    text: str
    shade: str
    title: str


@dataclass(frozen=True, slots=True)
class _Matrix:
    phase: str
    rows: tuple[tuple[Endpoint, tuple[_Cell, ...]], ...]


def render(incident: Incident) -> str:
    """The HTML of a report; it needs no other file."""
    environment = Environment(
        loader=PackageLoader("flowverdict_rca.report", "."),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"percent": _percent, "clock": _clock, "number": _number}
    ends, left_out = _ends(incident)
    page: str = environment.get_template("report.html").render(
        incident=incident,
        verdict=incident.worst,
        cause=incident.cause,
        resolved=incident.resolved,
        status="resolved" if incident.resolved else "open",
        map=draw_map(incident) if incident.pairs["during"] else None,
        timeline=draw_timeline(incident),
        ends=ends,
        left_out=left_out,
        matrices=[_matrix(incident, phase, ends) for phase in PHASES if incident.pairs[phase]],
        said=list(_said(incident)),
        made_at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        version=version("flowverdict-rca"),
    )
    return page


def _said(incident: Incident) -> Iterator[Verdict]:
    """What was new: an incident found, another cause named, or resolved."""
    last: tuple[object, ...] = ()
    for verdict in incident.verdicts:
        new = (verdict.status == "resolved", *((c.kind, c.name) for c in verdict.causes[:1]))
        if new != last:
            yield verdict
        last = new


def _ends(incident: Incident) -> tuple[list[Endpoint], int]:
    """Who is in the matrices: those with the worst flows first chosen, then by name."""
    worst: dict[Endpoint, float] = {}
    for phase in PHASES:
        for (src, dst), counts in incident.pairs[phase].items():
            share = (counts.ratio or 0.0) if phase == "during" else 0.0
            for end in (src, dst):
                worst[end] = max(worst.get(end, 0.0), share)
    chosen = sorted(worst, key=lambda end: (-worst[end], end.name))[:_MOST_IN_MATRIX]
    return sorted(chosen, key=lambda end: (end.node, end.name)), len(worst) - len(chosen)


def _matrix(incident: Incident, phase: str, ends: list[Endpoint]) -> _Matrix:
    return _Matrix(
        phase, tuple((src, tuple(_cell(incident, phase, src, dst) for dst in ends)) for src in ends)
    )


def _cell(incident: Incident, phase: str, src: Endpoint, dst: Endpoint) -> _Cell:
    counts = incident.pairs[phase].get((src, dst))
    if counts is None or counts.ratio is None:
        return _Cell("", "none", "sent nothing")
    ratio = counts.ratio
    title = f"{src.name} to {dst.name}: {counts.again} of {counts.sent} segments sent again"
    shade = next((name for least, name in _LEVELS if ratio > least), "level-0")
    return _Cell(f"{100 * ratio:.0f}" if ratio >= 0.01 or ratio == 0 else "<1", shade, title)


def _percent(share: float) -> str:
    return f"{100 * share:.1f} %" if share < 0.1 else f"{100 * share:.0f} %"


def _number(value: float) -> str:
    return f"{value:.2g}"


def _clock(moment: str) -> str:
    return datetime.fromisoformat(moment).strftime("%Y-%m-%d %H:%M:%S UTC")
