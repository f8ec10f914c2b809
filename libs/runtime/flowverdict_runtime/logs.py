"""Logs: one JSON object per line on stderr, so that a cluster's log store can search them."""

import json
import logging
import sys
import time

from flowverdict_contracts.timestamps import to_rfc3339

__all__ = ["Throttle", "configure"]

_STANDARD = set(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}


class _JsonLines(logging.Formatter):
    def __init__(self, service: str) -> None:
        super().__init__()
        self._service = service

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": to_rfc3339(int(record.created * 1e9)),
            "level": record.levelname.lower(),
            "service": self._service,
            "message": record.getMessage(),
        }
        line |= {key: value for key, value in vars(record).items() if key not in _STANDARD}
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, default=str)


def configure(service: str, level: str) -> None:
    """Send this process's logs to stderr as JSON lines, from `level` (INFO, DEBUG …) upwards.

    Fields given as `extra=` become fields of the line.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines(service))
    logging.basicConfig(handlers=[handler], level=level, force=True)
    # nats-py logs what its callbacks report to us anyway.
    logging.getLogger("nats").setLevel(logging.CRITICAL)


class Throttle:
    """Logs a repeated fault once a minute per key, with the number suppressed in between."""

    def __init__(self, every_seconds: float = 60.0) -> None:
        self._every = every_seconds
        self._last: dict[str, float] = {}
        self._suppressed: dict[str, int] = {}

    def admits(self, key: str) -> bool:
        """Whether a fault with this key may be reported now."""
        now = time.monotonic()
        if now - self._last.get(key, -self._every) < self._every:
            self._suppressed[key] = self._suppressed.get(key, 0) + 1
            return False
        if len(self._last) > 1000:
            self._last.clear()
        self._last[key] = now
        return True

    def warn(
        self, log: logging.Logger, key: str, message: str, *args: object, **fields: object
    ) -> None:
        """Log a warning with `fields`, unless this key had one within the last minute."""
        if self.admits(key):
            fields["suppressed"] = self._suppressed.pop(key, 0)
            log.warning(message, *args, extra=fields)
