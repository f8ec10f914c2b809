"""NATS for a command that connects once and exits: a check, the doctor, a report."""

import asyncio
import contextlib
import ssl
from collections.abc import AsyncIterator

import nats
from nats.aio.client import Client
from nats.errors import NoServersError

from flowverdict_runtime.nats_connection import nats_options
from flowverdict_runtime.retry import TRANSIENT_ERRORS
from flowverdict_runtime.service_settings import NatsSettings
from flowverdict_runtime.settings import redact
from flowverdict_runtime.terminal import printable

__all__ = ["NatsUnavailable", "check_nats", "connected_once"]


class NatsUnavailable(RuntimeError):
    """NATS cannot be reached or rejects us; the message says where and why.

    Attributes:
        advice: which settings to look at.
    """

    def __init__(self, url: str, errors: list[Exception]) -> None:
        why = "; ".join(dict.fromkeys(str(each) or type(each).__name__ for each in errors))
        super().__init__(f"{redact(url)}: {why}")
        if "authorization" in why.lower():
            self.advice = "check FLOWVERDICT_NATS_USER and FLOWVERDICT_NATS_PASSWORD"
        elif any(isinstance(each, ssl.SSLError) for each in errors):
            self.advice = "set FLOWVERDICT_NATS_CA to the CA certificates to verify it with"
        else:
            self.advice = "is it running? Check FLOWVERDICT_NATS_URL"


@contextlib.asynccontextmanager
async def connected_once(settings: NatsSettings, seconds: float) -> AsyncIterator[Client]:
    """A connection, closed on exit; waits at most `seconds` for it.

    Raises:
        NatsUnavailable: if there is no connection by then.
        SettingsError: if the CA certificate file cannot be read.
    """
    errors: list[Exception] = []

    async def failed(error: Exception) -> None:
        errors.append(error)

    connecting = nats.connect(
        **nats_options(settings),
        connect_timeout=2,
        # With `allow_reconnect=False`, nats-py would keep trying for minutes.
        max_reconnect_attempts=1,
        reconnect_time_wait=0.1,
        error_cb=failed,
    )
    try:
        client = await asyncio.wait_for(connecting, seconds)
    except TRANSIENT_ERRORS as error:
        # "No servers available" and our own timeout say less than the servers' own errors.
        specific = [each for each in errors if not isinstance(each, NoServersError)]
        raise NatsUnavailable(settings.nats_url, specific or [error]) from None
    try:
        yield client
    finally:
        await client.close()


async def check_nats(settings: NatsSettings) -> int:
    """Print whether NATS answers and has JetStream; returns 0 if it does, else 1."""
    url = redact(settings.nats_url)
    try:
        async with connected_once(settings, 3) as client:
            account = await client.jetstream(timeout=2).account_info()
    except NatsUnavailable as error:
        print(printable(f"broken   NATS at {error}; {error.advice}"))
        return 1
    except TRANSIENT_ERRORS as error:
        reason = error or type(error).__name__
        print(printable(f"broken   NATS at {url} answers, JetStream does not: {reason}"))
        return 1
    print(f"ok       NATS at {url}: JetStream with {account.streams} streams")
    return 0
