"""Logs: one JSON object a line on stderr, so that a cluster's log store can search them."""

import json
import logging
import sys
import time
from datetime import UTC, datetime

__all__ = ["Throttle", "configure"]

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _JsonLines(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC)
        line = {
            "time": moment.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
            "level": record.levelname.lower(),
            "service": self._service,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(service: str, level: str) -> None:
    """Send this process's logs to stderr as JSON lines, from `level` (INFO, DEBUG …) up.

    Fields given as `extra=` become fields of the line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(service))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # nats-py logs what its callbacks already tell us.
    logging.getLogger("nats").setLevel(logging.CRITICAL)


class Throttle:
    """Lets a repeating fault through once a minute a key, with how many were held back."""

    def __init__(self, every_seconds: float = 60.0) -> None:
        self._every = every_seconds
        self._last: dict[str, float] = {}
        self._held: dict[str, int] = {}

    def admit(self, key: str) -> int | None:
        """How many were held back since the last one let through, or None to hold this one."""
        now = time.monotonic()
        if now - self._last.get(key, -self._every) < self._every:
            self._held[key] = self._held.get(key, 0) + 1
            return None
        if len(self._last) > 1000:
            self._last.clear()
        self._last[key] = now
        return self._held.pop(key, 0)
