"""What keeps a service from being ready, and whether it is alive."""

import logging
import time
from collections.abc import Callable
from logging import INFO, WARNING

__all__ = ["Health"]

log = logging.getLogger(__name__)

_STUCK_SECONDS = 60.0


class Health:
    """What keeps a service from being ready, and whether its event loop is still running.

    Attributes:
        more_metrics: returns further lines of /metrics, for a service with so many series that it
            writes them itself; called with True for OpenMetrics, False for Prometheus' text format.
    """

    def __init__(self) -> None:
        self.more_metrics: Callable[[bool], str] = lambda _: ""
        self._waiting: dict[str, str] = {"start": "starting"}
        self._was_ready: set[str] = set()
        self._beat = time.monotonic()

    def ready(self, part: str) -> None:
        """`part` is working."""
        self._was_ready.add(part)
        if self._waiting.pop(part, None) is not None:
            log.info("ready: %s", part)

    def waiting(self, part: str, why: str) -> None:
        """`part` cannot work now, and `why`; logged if the reason is new."""
        if self._waiting.get(part) != why:
            # Waiting is normal at startup; later it means that something has failed.
            log.log(WARNING if part in self._was_ready else INFO, "waiting: %s: %s", part, why)
        self._waiting[part] = why

    def beat(self) -> None:
        """The event loop is alive."""
        self._beat = time.monotonic()

    def reasons(self) -> dict[str, str]:
        """The reason for each part that keeps the service from being ready."""
        return dict(self._waiting)

    def alive(self) -> bool:
        """False if the event loop has been blocked for a minute."""
        return time.monotonic() - self._beat < _STUCK_SECONDS
