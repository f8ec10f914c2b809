"""Times as text: RFC 3339, in UTC."""

from datetime import UTC, datetime

__all__ = ["from_rfc3339", "to_rfc3339"]


def to_rfc3339(ns: int) -> str:
    """UTC nanoseconds as `2026-01-31T12:00:00.000Z`, truncated to milliseconds."""
    text = datetime.fromtimestamp(ns / 1e9, UTC).isoformat(timespec="milliseconds")
    return text.replace("+00:00", "Z")


def from_rfc3339(text: str) -> int:
    """UTC nanoseconds of what `to_rfc3339` wrote, to the millisecond."""
    return int(datetime.fromisoformat(text).timestamp() * 1e9)
