"""NATS: connect and stay connected, make the streams, publish until stored."""

import asyncio
import contextlib
import logging
import re
import ssl
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from typing import Any

from nats.aio.client import Client
from nats.js import JetStreamContext
from nats.js.api import PubAck, StreamConfig
from nats.js.errors import NoStreamResponseError, NotFoundError

from flowverdict_contracts.subjects import STREAMS, stream_of
from flowverdict_runtime.retry import PASSING, retry
from flowverdict_runtime.service import Context, NatsSettings
from flowverdict_runtime.settings import SettingsError

__all__ = [
    "connected",
    "ensure_streams",
    "nats_options",
    "publish_until_stored",
    "shown",
]

log = logging.getLogger(__name__)

PART = "nats"


def shown(url: str) -> str:
    """`url` without the user and password that it may hold."""
    return re.sub(r"//[^/]*@", "//", url)


def nats_options(settings: NatsSettings) -> dict[str, Any]:
    """What `nats.connect` is to be given besides callbacks: where, who, and whom to trust.

    Answers come below `_INBOX_<user>`, so that users who may only hear their own cannot hear
    each other's (deploy/nats/nats.conf).

    Raises:
        SettingsError: where the file of certificates cannot be read.
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
            context.health.waiting(PART, f"lost {shown(url)}, connecting again")

    async def closed() -> None:
        # nats-py does not connect again after some errors, such as refused credentials.
        if not context.stopping.is_set():
            context.fail(f"NATS at {shown(url)} refuses this service: {client.last_error}")

    async def back() -> None:
        context.health.ready(PART)

    async def failed(error: Exception) -> None:
        log.debug("nats: %s", error)
        if not client.is_connected and not context.stopping.is_set():
            why = str(error) or type(error).__name__
            context.health.waiting(PART, f"{shown(url)}: {why}, connecting again")

    client = Client()
    await client.connect(
        **nats_options(settings),
        name=name,
        max_reconnect_attempts=-1,
        reconnect_time_wait=1,
        connect_timeout=2,
        ping_interval=10,
        # Nothing is held back while disconnected: who publishes hears of it and tries again.
        pending_size=0,
        disconnected_cb=lost,
        reconnected_cb=back,
        closed_cb=closed,
        error_cb=failed,
    )
    return client


@contextlib.asynccontextmanager
async def connected(
    settings: NatsSettings, name: str, context: Context, streams: Collection[str]
) -> AsyncIterator[JetStreamContext | None]:
    """JetStream, closed on leaving; None where the service is to stop before it answers.

    The `streams` that the service reads or writes exist when this yields. Waits for NATS as long as
    it takes.

    Raises:
        SettingsError: where the file of certificates cannot be read.
    """
    context.stream_replicas = settings.stream_replicas
    context.health.waiting(PART, f"connecting to {shown(settings.nats_url)}")
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
        made = await retry(
            context, "streams", lambda: ensure_streams(jetstream, streams, settings.stream_replicas)
        )
        if made is None:
            yield None
            return
        context.health.ready(PART)
        yield jetstream
    finally:
        with contextlib.suppress(*PASSING):
            await asyncio.wait_for(client.flush(), 2)
        await client.close()


async def ensure_streams(
    jetstream: JetStreamContext, streams: Iterable[str] = tuple(STREAMS), replicas: int = 1
) -> bool:
    """Make those of `streams` that do not exist, of so many copies; leave those that do as the
    operator has them.

    Raises:
        NatsError: where JetStream does not answer or refuses.
    """
    for name in streams:
        await _ensure_stream(jetstream, STREAMS[name].evolve(num_replicas=replicas))
    return True


async def _ensure_stream(jetstream: JetStreamContext, config: StreamConfig) -> None:
    try:
        await jetstream.stream_info(str(config.name))
    except NotFoundError:
        await jetstream.add_stream(config)
        log.info("made stream %s", config.name)


async def publish_until_stored(
    jetstream: JetStreamContext,
    context: Context,
    subject: str,
    body: bytes,
    headers: Mapping[str, str],
    give_up_seconds: float = 5,
) -> bool:
    """Publish until a stream has stored the message; its `Nats-Msg-Id` keeps it single.

    False where the service is to stop and NATS still did not take it `give_up_seconds` later.
    """

    async def publish() -> PubAck:
        try:
            return await jetstream.publish(subject, body, headers=dict(headers))
        except NoStreamResponseError:
            # NATS came back without its storage.
            await ensure_streams(jetstream, [stream_of(subject)], context.stream_replicas)
            raise

    return await retry(context, f"publish {subject}", publish, give_up_seconds) is not None
