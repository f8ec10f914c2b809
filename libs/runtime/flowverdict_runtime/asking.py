"""NATS for a command that asks once and ends: a check, the doctor, a report."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import nats
from nats.aio.client import Client
from nats.errors import NoServersError

from flowverdict_runtime.connection import nats_options, shown
from flowverdict_runtime.retry import PASSING
from flowverdict_runtime.service import NatsSettings

__all__ = ["NatsAway", "asking", "check_nats"]


class NatsAway(RuntimeError):
    """NATS does not let us in; the message says where and why.

    Attributes:
        advice: which settings to look at.
    """

    def __init__(self, url: str, errors: list[Exception]) -> None:
        why = "; ".join(dict.fromkeys(str(each) or type(each).__name__ for each in errors))
        super().__init__(f"{shown(url)}: {why}")
        if "authorization" in why.lower():
            self.advice = "FLOWVERDICT_NATS_USER and FLOWVERDICT_NATS_PASSWORD say who asks"
        elif any(isinstance(each, ssl.SSLError) for each in errors):
            self.advice = "FLOWVERDICT_NATS_CA names the authorities that vouch for it"
        else:
            self.advice = "is it running? FLOWVERDICT_NATS_URL says where it is"


@contextlib.asynccontextmanager
async def asking(settings: NatsSettings, seconds: float) -> AsyncIterator[Client]:
    """A connection, closed on leaving, for which `seconds` are waited.

    Raises:
        NatsAway: where there is none by then.
        SettingsError: where the file of certificates cannot be read.
    """
    errors: list[Exception] = []

    async def failed(error: Exception) -> None:
        errors.append(error)

    connecting = nats.connect(
        **nats_options(settings),
        connect_timeout=2,
        # nats-py takes `allow_reconnect=False` to mean: try for minutes.
        max_reconnect_attempts=1,
        reconnect_time_wait=0.1,
        error_cb=failed,
    )
    try:
        client = await asyncio.wait_for(connecting, seconds)
    except PASSING as error:
        # "No servers available" and our own deadline say less than what each server said.
        told = [each for each in errors if not isinstance(each, NoServersError)]
        raise NatsAway(settings.nats_url, told or [error]) from None
    try:
        yield client
    finally:
        await client.close()


async def check_nats(settings: NatsSettings) -> int:
    """Print whether NATS answers and has JetStream; 0 where it does, else 1."""
    url = shown(settings.nats_url)
    try:
        async with asking(settings, 3) as client:
            account = await client.jetstream(timeout=2).account_info()
    except NatsAway as error:
        print(f"broken   NATS at {error}; {error.advice}")
        return 1
    except PASSING as error:
        reason = error or type(error).__name__
        print(f"broken   NATS at {url} answers, JetStream does not: {reason}")
        return 1
    print(f"ok       NATS at {url}: JetStream with {account.streams} streams")
    return 0
