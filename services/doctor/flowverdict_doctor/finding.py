"""What the doctor reports: one finding per line."""

from dataclasses import dataclass

from flowverdict_runtime.settings import redact

__all__ = [
    "BROKEN",
    "OK",
    "SKIPPED",
    "WARNING",
    "Finding",
    "broken",
    "ok",
    "skipped",
    "warning",
]

OK, WARNING, BROKEN, SKIPPED = "ok", "warning", "broken", "skipped"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, printed as one line.

    Attributes:
        level: `ok`, `warning` (works only in part, or may soon fail), `broken`, or `skipped` if it
            was not looked at.
        what: what was checked, for example `NATS`.
        detail: what was found.
        advice: how to fix it, or to have it looked at; empty if it is ok.
    """

    level: str
    what: str
    detail: str
    advice: str = ""


def ok(what: str, detail: str) -> Finding:
    """A finding about something that works."""
    return Finding(OK, what, redact(detail))


def skipped(what: str, detail: str, advice: str = "") -> Finding:
    """A finding about something that was not looked at, and why."""
    return Finding(SKIPPED, what, redact(detail), advice)


def warning(what: str, detail: str, advice: str) -> Finding:
    """A finding about something that works only in part, or may soon fail."""
    return Finding(WARNING, what, redact(detail), advice)


def broken(what: str, detail: str, advice: str) -> Finding:
    """A finding about something that does not work."""
    return Finding(BROKEN, what, redact(detail), advice)
