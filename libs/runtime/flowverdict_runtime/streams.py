"""JetStream's streams: create them, publish until stored."""

import logging
import time
from collections.abc import Iterable, Mapping

from nats.js import JetStreamContext
from nats.js.api import PubAck, StreamConfig
from nats.js.errors import NoStreamResponseError, NotFoundError

from flowverdict_contracts.interval_header import SENT
from flowverdict_contracts.subjects import STREAMS, stream_of
from flowverdict_runtime.context import Context
from flowverdict_runtime.retry import retry

__all__ = ["ensure_streams", "publish_until_stored"]

log = logging.getLogger(__name__)


async def ensure_streams(
    jetstream: JetStreamContext, streams: Iterable[str] = tuple(STREAMS), replicas: int = 1
) -> bool:
    """Create any of `streams` that do not exist, with `replicas` replicas; leave existing ones as
    the operator configured them.

    Raises:
        NatsError: if JetStream does not answer or refuses.
    """
    for name in streams:
        await _ensure_stream(jetstream, STREAMS[name].evolve(num_replicas=replicas))
    return True


async def _ensure_stream(jetstream: JetStreamContext, config: StreamConfig) -> None:
    try:
        await jetstream.stream_info(str(config.name))
    except NotFoundError:
        await jetstream.add_stream(config)
        log.info("created stream %s", config.name)


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
    """

    async def publish() -> PubAck:
        try:
            sent = {SENT: str(time.time_ns())}
            return await jetstream.publish(subject, body, headers=dict(headers) | sent)
        except NoStreamResponseError:
            # NATS restarted without its data.
            await ensure_streams(jetstream, [stream_of(subject)], context.stream_replicas)
            raise

    return await retry(context, f"publish {subject}", publish, give_up_seconds) is not None
