"""What a service keeps in NATS to go on where it was: a bucket, and a position in a stream."""

import contextlib

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, KeyValueConfig
from nats.js.errors import NotFoundError
from nats.js.kv import KeyValue

from flowverdict_runtime.consumer import pull_from

__all__ = ["InOrder", "pull_from_sequence", "state_bucket"]

_ACK_WAIT_SECONDS = 3600


class InOrder:
    """Notices messages that a consumer of `pull_from_sequence` delivered, but not to this reader.

    NATS counts what it wrote to a connection that was just breaking as delivered, and what another
    reader of the same consumer got. Neither would come again before its acknowledgement is overdue.
    """

    def __init__(self) -> None:
        self._expected = 1

    def check(self, message: Msg) -> None:
        """Raises NatsError if messages before this one are missing: read again from a position."""
        found = message.metadata.sequence.consumer
        if found != self._expected:
            missing = found - self._expected
            raise NatsError(f"{missing} messages were delivered and did not arrive")
        self._expected += 1


async def state_bucket(jetstream: JetStreamContext, name: str, replicas: int) -> KeyValue:
    """The bucket, created with `replicas` replicas if it does not exist.

    Raises:
        NatsError: if JetStream does not answer or refuses.
    """
    try:
        return await jetstream.key_value(name)
    except NotFoundError:
        return await jetstream.create_key_value(KeyValueConfig(bucket=name, replicas=replicas))


async def pull_from_sequence(
    jetstream: JetStreamContext, stream: str, durable: str, start: int, max_ack_pending: int
) -> JetStreamContext.PullSubscription:
    """Subscribe to `stream` from a message on, whatever was acknowledged before.

    The consumer is durable only so that its lag is visible.

    Raises:
        Unavailable: if NATS refuses to create it; the message says why.
        NatsError: if JetStream does not answer.
    """
    with contextlib.suppress(NotFoundError):
        await jetstream.delete_consumer(stream, durable)
    config = ConsumerConfig(
        durable_name=durable,
        deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
        opt_start_seq=start,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=_ACK_WAIT_SECONDS,
        max_ack_pending=max_ack_pending,
    )
    return await pull_from(jetstream, stream, config)
