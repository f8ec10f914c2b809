"""The layout of the report's chart over time, in SVG units; the template draws it."""

import math
from dataclasses import dataclass
from datetime import UTC, datetime

from flowverdict_contracts.timestamps import from_rfc3339
from flowverdict_rca.report.gather import ReportedIncident

__all__ = ["Timeline", "draw_timelines"]

_WIDTHS = {"wide": 760, "narrow": 330}
_TICKS = {"wide": 4, "narrow": 2}
_HEIGHT = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 46, 12, 26, 26


@dataclass(frozen=True, slots=True)
class Timeline:
    """What the report is about, over time.

    Attributes:
        size: "wide" or "narrow", as on a phone.
        explained, others: points of the lines, in SVG syntax.
        bands: each phase's name, left edge and width.
        marks: when the incident opened and was resolved: label and x.
        grid: values as text, and their y.
        times: clock times, and their x.
    """

    size: str
    explained: str
    others: str
    bands: tuple[tuple[str, float, float], ...]
    marks: tuple[tuple[str, float], ...]
    grid: tuple[tuple[str, float], ...]
    times: tuple[tuple[str, float], ...]
    width: int
    height: int = _HEIGHT
    left: int = _LEFT
    bottom: int = _HEIGHT - _BOTTOM


def draw_timelines(incident: ReportedIncident) -> list[Timeline]:
    """The chart, for each width of a page; none if no flows are stored any more."""
    return [_draw(incident, size) for size in _WIDTHS] if incident.timeline else []


def _draw(incident: ReportedIncident, size: str) -> Timeline:
    width, ticks = _WIDTHS[size], _TICKS[size]
    steps = sorted(incident.timeline)
    start, end = steps[0], max(steps[-1], steps[0] + 1)
    measure = incident.measure
    highest = max(
        [measure.threshold * 2]
        + [measure.of(counts) or 0.0 for both in incident.timeline.values() for counts in both]
    )
    top = _rounded_up(highest)

    def x(ns: float) -> float:
        share = (min(max(ns, start), end) - start) / (end - start)
        return _LEFT + share * (width - _LEFT - _RIGHT)

    def y(value: float) -> float:
        return _HEIGHT - _BOTTOM - value / top * (_HEIGHT - _TOP - _BOTTOM)

    def line(which: int) -> str:
        points = ((at, measure.of(incident.timeline[at][which])) for at in steps)
        return " ".join(f"{x(at):.1f},{y(v):.1f}" for at, v in points if v is not None)

    bands = [
        (name, x(first), x(last) - x(first)) for name, (first, last) in incident.phases.items()
    ]
    marks = [("opened", x(from_rfc3339(incident.verdicts[0].opened_at)))]
    if incident.resolved is not None:
        marks.append(("resolved", x(from_rfc3339(incident.resolved.window.end))))
    return Timeline(
        size=size,
        width=width,
        explained=line(0) if incident.cause else "",
        others=line(1),
        bands=tuple(bands),
        marks=tuple(marks),
        grid=tuple((measure.shown(top * part / 4), y(top * part / 4)) for part in range(5)),
        times=tuple(
            (_clock(start + (end - start) * part / ticks), x(start + (end - start) * part / ticks))
            for part in range(ticks + 1)
        ),
    )


def _rounded_up(value: float) -> float:
    """To one of 1, 2, 4, 6, 8 times a power of ten: quarters of it are short as text."""
    power = 10.0 ** math.floor(math.log10(value)) if value > 0 else 1.0
    return next(times * power for times in (1, 2, 4, 6, 8, 10) if times * power >= value)


def _clock(ns: float) -> str:
    return datetime.fromtimestamp(ns / 1e9, UTC).strftime("%H:%M:%S")
