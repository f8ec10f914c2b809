"""Retries while something external is unavailable."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from nats.errors import Error as NatsError
from nats.errors import MaxPayloadError
from prometheus_client import Counter

from flowverdict_runtime.context import Context

__all__ = ["TRANSIENT_ERRORS", "Unavailable", "retry"]

TRANSIENT_ERRORS = (NatsError, OSError, TimeoutError)
"""What the NATS client raises if the server is unavailable or busy."""

_RETRIES = Counter(
    "flowverdict_retries_total",
    "Attempts that failed because an external dependency was unavailable.",
    ["what"],
)

_LONGEST_PAUSE = 5.0

T = TypeVar("T")


class Unavailable(RuntimeError):
    """Something other than NATS is unavailable for now; the message says what and why.

    Attributes:
        after_seconds: how long it asks clients to wait.
    """

    def __init__(self, why: str, after_seconds: float = 0.0) -> None:
        super().__init__(why)
        self.after_seconds = after_seconds


async def retry(
    context: Context, what: str, action: Callable[[], Awaitable[T]], give_up_seconds: float = 0
) -> T | None:
    """The result of `action`, retried until it succeeds.

    Pauses grow, with jitter, up to 5 s, or to what an `Unavailable` asks for. None if the service
    is stopping and another `give_up_seconds` have passed.

    Raises:
        MaxPayloadError: if the server will never accept a message.
    """
    _RETRIES.labels(what)  # start the series at 0, so that its first increase is visible
    loop = asyncio.get_running_loop()
    pause, deadline = 0.1, float("inf")
    while True:
        if context.stopping.is_set():
            deadline = min(deadline, loop.time() + give_up_seconds)
            if loop.time() >= deadline:
                return None
        try:
            result = await action()
        except MaxPayloadError:
            raise
        except Unavailable as error:
            _RETRIES.labels(what).inc()
            context.health.waiting(what, str(error))
            pause = max(pause, error.after_seconds)
        except TRANSIENT_ERRORS as error:
            _RETRIES.labels(what).inc()
            reason = str(error) or type(error).__name__
            context.health.waiting(what, f"NATS: {reason}")
        else:
            context.health.ready(what)
            return result
        if context.stopping.is_set():
            await asyncio.sleep(min(pause, 0.5))
        else:
            await context.pause(pause * random.uniform(0.5, 1.5))
        pause = min(pause * 2, _LONGEST_PAUSE)
