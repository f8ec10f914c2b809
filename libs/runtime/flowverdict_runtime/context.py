"""What a running service is given: its health, and the signal to stop."""

import asyncio
import contextlib
from dataclasses import dataclass, field

from flowverdict_runtime.health import Health
from flowverdict_runtime.service_settings import DEFAULT_STREAMS, StreamSettings

__all__ = ["CannotRun", "Context"]


class CannotRun(RuntimeError):
    """Something the service requires is missing; the message says what to do."""


@dataclass(slots=True)
class Context:
    """A service's health, and whether it should stop.

    Attributes:
        stopping: set when the service should drain and return.
        failure: why it stopped on its own; empty if it was asked to.
        streams: how streams and consumers are created that do not exist.
    """

    health: Health = field(default_factory=Health)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str = ""
    streams: StreamSettings = DEFAULT_STREAMS

    def fail(self, why: str) -> None:
        """Stop the service, which then exits with an error, so that its supervisor restarts it."""
        self.failure = why
        self.stopping.set()

    async def pause(self, seconds: float) -> None:
        """Sleep, but return early on the signal to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)
