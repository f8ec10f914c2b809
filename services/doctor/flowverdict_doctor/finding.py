"""What the doctor reports: one finding per line."""

from dataclasses import dataclass

__all__ = ["BROKEN", "OK", "WARNING", "Finding", "broken", "ok", "warning"]

OK, WARNING, BROKEN = "ok", "warning", "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """The result of one check, printed as one line.

    Attributes:
        level: `ok`, `warning` (works only in part, or may soon fail) or `broken`.
        what: what was checked, for example `NATS`.
        detail: what was found.
        advice: how to fix it; empty if it is ok.
    """

    level: str
    what: str
    detail: str
    advice: str = ""


def ok(what: str, detail: str) -> Finding:
    """A finding about something that works."""
    return Finding(OK, what, detail)


def warning(what: str, detail: str, advice: str) -> Finding:
    """A finding about something that works only in part, or may soon fail."""
    return Finding(WARNING, what, detail, advice)


def broken(what: str, detail: str, advice: str) -> Finding:
    """A finding about something that does not work."""
    return Finding(BROKEN, what, detail, advice)
