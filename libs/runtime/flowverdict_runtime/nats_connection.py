"""NATS: connect, and stay connected."""

import asyncio
import contextlib
import logging
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Collection
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext

from flowverdict_runtime.context import Context
from flowverdict_runtime.logs import Throttle
from flowverdict_runtime.retry import TRANSIENT_ERRORS, retry
from flowverdict_runtime.service_settings import NatsSettings
from flowverdict_runtime.settings import SettingsError, redact
from flowverdict_runtime.streams import ensure_streams

__all__ = ["connected", "nats_options"]

log = logging.getLogger(__name__)
_throttle = Throttle()

PART = "nats"


def nats_options(settings: NatsSettings) -> dict[str, Any]:
    """Arguments for `nats.connect` besides callbacks: servers, credentials, CA certificates.

    Replies arrive under `_INBOX_<user>`: a user allowed to subscribe only to its own inbox cannot
    read another's (deploy/nats/users.conf).

    Raises:
        SettingsError: if the CA certificate file cannot be read.
    """
    options: dict[str, Any] = {"servers": [each.strip() for each in settings.nats_url.split(",")]}
    if settings.nats_user:
        options |= {"user": settings.nats_user, "password": settings.nats_password}
        options["inbox_prefix"] = f"_INBOX_{settings.nats_user}"
    if settings.nats_ca:
        try:
            options["tls"] = ssl.create_default_context(cafile=settings.nats_ca)
        except OSError as error:
            raise SettingsError(
                f"FLOWVERDICT_NATS_CA is {settings.nats_ca!r}: {error.strerror or error}"
            ) from None
    return options


async def _open(settings: NatsSettings, name: str, context: Context) -> Client:
    url = settings.nats_url

    async def lost() -> None:
        if not context.stopping.is_set():
            context.health.waiting(PART, f"lost {redact(url)}, reconnecting")

    async def closed() -> None:
        # nats-py does not reconnect after some errors, such as refused credentials.
        if not context.stopping.is_set():
            context.fail(f"NATS at {redact(url)} rejected this service: {client.last_error}")

    async def reconnected() -> None:
        context.health.ready(PART)

    async def failed(error: Exception) -> None:
        if "permissions violation" in str(error).lower():
            _throttle.warn(
                log, str(error), "NATS does not allow what this service needs: %s", error
            )
        log.debug("nats: %s", error)
        if not client.is_connected and not context.stopping.is_set():
            why = str(error) or type(error).__name__
            context.health.waiting(PART, f"{redact(url)}: {why}, reconnecting")

    client = Client()
    await client.connect(
        **nats_options(settings),
        name=name,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        connect_timeout=2,
        ping_interval=10,
        # Nothing is buffered while disconnected: the publisher gets an error and retries.
        pending_size=0,
        disconnected_cb=lost,
        reconnected_cb=reconnected,
        closed_cb=closed,
        error_cb=failed,
    )
    return client


@contextlib.asynccontextmanager
async def connected(
    settings: NatsSettings,
    name: str,
    context: Context,
    streams: Collection[str],
    prepare: Callable[[Client], Awaitable[object]] | None = None,
) -> AsyncIterator[JetStreamContext | None]:
    """JetStream, closed on exit; None if the service is stopped before NATS responds.

    The `streams` the service reads or writes exist by the time this yields. Waits for NATS
    indefinitely. `prepare` is called with the connection before that, once; it stays subscribed to
    what `prepare` subscribes to.

    Raises:
        SettingsError: if the CA certificate file cannot be read.
    """
    context.health.waiting(PART, f"connecting to {redact(settings.nats_url)}")
    opening = asyncio.create_task(_open(settings, name, context))
    stopping = asyncio.create_task(context.stopping.wait())
    await asyncio.wait({opening, stopping}, return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    if not opening.done():
        opening.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await opening
        yield None
        return
    client = opening.result()
    try:
        jetstream = client.jetstream(timeout=5)
        created = await retry(
            context, "streams", lambda: ensure_streams(jetstream, streams, settings)
        )
        if created is None:
            yield None
            return
        if prepare is not None:
            await prepare(client)
        context.health.ready(PART)
        yield jetstream
    finally:
        with contextlib.suppress(*TRANSIENT_ERRORS):
            await asyncio.wait_for(client.flush(), 2)
        await client.close()
