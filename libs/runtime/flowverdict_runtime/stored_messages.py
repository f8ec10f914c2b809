"""The messages currently in a stream."""

import contextlib
import uuid
from collections.abc import AsyncIterator
from datetime import UTC, datetime

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy

from flowverdict_runtime.retry import TRANSIENT_ERRORS

__all__ = ["stored_messages", "stored_ns"]

_BATCH = 256
_INACTIVE_SECONDS = 60.0


def stored_ns(message: Msg) -> int:
    """When its stream stored a message, by the clock of NATS, UTC nanoseconds."""
    return int(message.metadata.timestamp.timestamp() * 1e9)


async def stored_messages(
    jetstream: JetStreamContext,
    stream: str,
    *,
    since_ns: int | None = None,
    since_sequence: int | None = None,
    headers_only: bool = False,
) -> AsyncIterator[Msg]:
    """The messages of `stream` in order, excluding those published in the meantime.

    Starts with the first one stored at `since_ns` (UTC nanoseconds) or later, or with
    `since_sequence`.

    Raises:
        NatsError: if JetStream does not answer or has no such stream.
    """
    last = (await jetstream.stream_info(stream)).state.last_seq
    name = f"reader-{uuid.uuid4().hex}"
    config = ConsumerConfig(
        name=name,
        ack_policy=AckPolicy.NONE,
        inactive_threshold=_INACTIVE_SECONDS,
        headers_only=headers_only,
    )
    if since_ns is not None:
        config.deliver_policy = DeliverPolicy.BY_START_TIME
        config.opt_start_time = datetime.fromtimestamp(since_ns / 1e9, UTC)
    if since_sequence is not None:
        config.deliver_policy = DeliverPolicy.BY_START_SEQUENCE
        config.opt_start_seq = since_sequence
    await jetstream.add_consumer(stream, config)
    subscription = await jetstream.pull_subscribe_bind(name, stream)
    sequence = 0
    try:
        while sequence < last:
            try:
                messages = await subscription.fetch(_BATCH, timeout=1)
            except TimeoutError:
                if not (await subscription.consumer_info()).num_pending:
                    break  # the last ones have expired in the meantime, or are older
                continue
            for message in messages:
                sequence = message.metadata.sequence.stream
                if sequence <= last:
                    yield message
    finally:
        with contextlib.suppress(*TRANSIENT_ERRORS):
            await subscription.unsubscribe()
            await jetstream.delete_consumer(stream, name)
