"""What the doctor finds: one line each."""

from dataclasses import dataclass

__all__ = ["BROKEN", "OK", "WARNING", "Finding", "broken", "ok", "warning"]

OK, WARNING, BROKEN = "ok", "warning", "broken"


@dataclass(frozen=True, slots=True)
class Finding:
    """One line.

    Attributes:
        level: `ok`, `warning` (it works, but not all of it, or not for long) or `broken`.
        what: the part, for example `NATS`.
        said: how it is.
        advice: what to do; empty if it is ok.
    """

    level: str
    what: str
    said: str
    advice: str = ""


def ok(what: str, said: str) -> Finding:
    """It is well."""
    return Finding(OK, what, said)


def warning(what: str, said: str, advice: str) -> Finding:
    """It works, but not all of it, or not for long."""
    return Finding(WARNING, what, said, advice)


def broken(what: str, said: str, advice: str) -> Finding:
    """It does not work."""
    return Finding(BROKEN, what, said, advice)
