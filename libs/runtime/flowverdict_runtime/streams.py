"""JetStream's streams: create them, publish until stored."""

import logging
import time
from collections.abc import Iterable, Mapping

from nats.errors import MaxPayloadError
from nats.js import JetStreamContext
from nats.js.api import PubAck, StreamConfig
from nats.js.errors import APIError, NoStreamResponseError, NotFoundError

from flowverdict_contracts.interval_header import SENT
from flowverdict_contracts.subjects import RCA_VERDICTS, STREAMS, stream_of
from flowverdict_runtime.context import Context
from flowverdict_runtime.retry import Unavailable, retry
from flowverdict_runtime.service_settings import DEFAULT_STREAMS, StreamSettings
from flowverdict_runtime.stream_faults import faults_of, why_refused

__all__ = ["TooLarge", "ensure_streams", "publish_until_stored"]

log = logging.getLogger(__name__)

_MESSAGE_EXCEEDS_MAXIMUM = 10054
"""JSStreamMessageExceedsMaximumErr (nats-server, server/jetstream_errors_generated.go)."""


class TooLarge(Exception):
    """NATS will never accept a message of this size."""


async def ensure_streams(
    jetstream: JetStreamContext,
    streams: Iterable[str] = tuple(STREAMS),
    settings: StreamSettings = DEFAULT_STREAMS,
) -> bool:
    """Create any of `streams` that do not exist; leave existing ones as the operator configured
    them.

    Raises:
        Unavailable: if one is not what it should be or cannot be created; the message says why.
        NatsError: if JetStream does not answer or refuses.
    """
    for name in streams:
        await _ensure_stream(jetstream, _config(name, settings))
    return True


def _config(name: str, settings: StreamSettings) -> StreamConfig:
    config = STREAMS[name]
    size = settings.stream_bytes // 4 if name == RCA_VERDICTS else settings.stream_bytes
    window = min(config.duplicate_window, settings.duplicate_window_seconds)
    return config.evolve(
        num_replicas=settings.stream_replicas, max_bytes=size, duplicate_window=window
    )


async def _ensure_stream(jetstream: JetStreamContext, config: StreamConfig) -> None:
    try:
        info = await jetstream.stream_info(str(config.name))
    except NotFoundError:
        try:
            await jetstream.add_stream(config)
        except APIError as error:
            raise Unavailable(await why_refused(jetstream, config, error)) from None
        log.info("created stream %s", config.name)
        return
    for fault in faults_of(info.config, config):
        raise Unavailable(fault)


async def publish_until_stored(
    jetstream: JetStreamContext,
    context: Context,
    subject: str,
    body: bytes,
    headers: Mapping[str, str],
    give_up_seconds: float = 5,
) -> bool:
    """Publish until a stream has stored the message, deduplicated by its `Nats-Msg-Id`.

    Each attempt says when it was sent, so that readers can compare this clock with that of NATS.
    False if the service is stopping and NATS has still not stored it after `give_up_seconds`.

    Raises:
        TooLarge: if it is larger than the server's `max_payload` or the stream's `max_msg_size`.
    """

    async def publish() -> PubAck:
        try:
            sent = {SENT: str(time.time_ns())}
            return await jetstream.publish(subject, body, headers=dict(headers) | sent)
        except NoStreamResponseError:
            # NATS restarted without its data.
            await ensure_streams(jetstream, [stream_of(subject)], context.streams)
            raise
        except MaxPayloadError:
            raise TooLarge(f"{len(body)} bytes exceed NATS' max_payload") from None
        except APIError as error:
            if error.err_code != _MESSAGE_EXCEEDS_MAXIMUM:
                raise
            raise TooLarge(f"{len(body)} bytes exceed max_msg_size of the stream") from None

    return await retry(context, f"publish {subject}", publish, give_up_seconds) is not None
