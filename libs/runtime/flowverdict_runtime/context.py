"""What a running service is handed: its health, and the signal to stop."""

import asyncio
import contextlib
from dataclasses import dataclass, field

from flowverdict_runtime.health import Health

__all__ = ["CannotRun", "Context"]


class CannotRun(RuntimeError):
    """Something that the service cannot do without is missing; the message says what to do."""


@dataclass(slots=True)
class Context:
    """A service's health, and whether it is to stop.

    Attributes:
        stopping: set once the service is to drain and return.
        failure: why it stopped by itself; empty if it was asked to.
        stream_replicas: of a stream that has to be created.
    """

    health: Health = field(default_factory=Health)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str = ""
    stream_replicas: int = 1

    def fail(self, why: str) -> None:
        """Stop the service, which then exits with an error, so that its supervisor restarts it."""
        self.failure = why
        self.stopping.set()

    async def pause(self, seconds: float) -> None:
        """Sleep, but not beyond the signal to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)
