"""What a service keeps in NATS to go on where it was: a bucket, and a position in a stream."""

import contextlib
import logging
from collections.abc import Callable

from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy, KeyValueConfig
from nats.js.errors import (
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NoStreamResponseError,
    NotFoundError,
)
from nats.js.kv import KeyValue

from flowverdict_contracts import MalformedMessage
from flowverdict_runtime.consumer import pull_from, reject
from flowverdict_runtime.context import CannotRun
from flowverdict_runtime.retry import TRANSIENT_ERRORS
from flowverdict_runtime.unfinished import KILLS, Unfinished

__all__ = ["InOrder", "KeptEntry", "after_acknowledged", "pull_from_sequence", "state_bucket"]

log = logging.getLogger(__name__)

_ACK_WAIT_SECONDS = 3600


class InOrder:
    """Handles the messages of `pull_from_sequence`, in order, and notices if some are missing.

    NATS counts what it wrote to a connection that was just breaking as delivered, and what another
    reader of the same consumer got. Neither would come again before its acknowledgement is overdue.

    Args:
        unfinished: which message this service died of.
    """

    def __init__(self, unfinished: Unfinished) -> None:
        self._unfinished = unfinished
        self._expected = 1
        self._waited_for = 0

    async def has_all(self, pull: JetStreamContext.PullSubscription) -> bool:
        """Whether all that NATS has delivered has arrived.

        Raises:
            NatsError: if it had not the last time either (read again from a position), or if NATS
                does not answer.
        """
        delivered = (await pull.consumer_info()).delivered
        missing = (delivered.consumer_seq if delivered else 0) - self._expected + 1
        if missing <= 0:
            return True
        if self._waited_for == self._expected:
            raise NatsError(f"{missing} messages were delivered and did not arrive")
        self._waited_for = self._expected  # they may have come since the last fetch
        return False

    async def handle(self, message: Msg, add: Callable[[Msg], None]) -> bool:
        """Call `add`; False if the message cannot be handled and has been rejected.

        Raises:
            NatsError: if messages before this one are missing (read again from a position), or if
                NATS does not answer.
        """
        metadata = message.metadata
        if metadata.sequence.consumer != self._expected:
            missing = metadata.sequence.consumer - self._expected
            raise NatsError(f"{missing} messages were delivered and did not arrive")
        self._expected += 1
        try:
            if not await self._unfinished.may_handle(metadata.sequence.stream):
                raise MalformedMessage(KILLS)
            add(message)
            await self._unfinished.handled()
        except MalformedMessage as error:
            await reject(message, error)
        except TRANSIENT_ERRORS:
            raise
        except Exception as error:  # a bug of ours must not stop the service
            log.exception("cannot read a message")
            await reject(message, MalformedMessage(f"cannot be read: {error!r}"))
        else:
            return True
        return False


async def state_bucket(jetstream: JetStreamContext, name: str, replicas: int) -> KeyValue:
    """The bucket, created with `replicas` replicas if it does not exist.

    Raises:
        NatsError: if JetStream does not answer or refuses.
    """
    try:
        return await jetstream.key_value(name)
    except NotFoundError:
        return await jetstream.create_key_value(KeyValueConfig(bucket=name, replicas=replicas))


class KeptEntry:
    """An entry of a bucket that one process keeps; any other stops when it next keeps its own.

    Attributes:
        bucket: where it is, once it has been read.
        revision: changes whenever it is kept.
    """

    bucket: KeyValue

    def __init__(
        self, jetstream: JetStreamContext, bucket: str, key: str, replicas: int, keeper: str
    ) -> None:
        """`keeper` is what keeps it, in words, such as "RCA worker"."""
        self.revision = 0
        self._jetstream = jetstream
        self._name = bucket
        self._key = key
        self._replicas = replicas
        self._keeper = keeper

    async def read(self) -> bytes | None:
        """What is kept, None if nothing is; the bucket is created if it does not exist.

        Raises:
            NatsError: if NATS does not answer or refuses.
        """
        self.bucket = await state_bucket(self._jetstream, self._name, self._replicas)
        try:
            entry = await self.bucket.get(self._key)
        except KeyNotFoundError as missing:
            self.revision = (missing.entry.revision if missing.entry else 0) or 0
            return None
        self.revision = entry.revision or 0
        return entry.value or b""

    async def keep(self, value: bytes) -> None:
        """Keep `value`.

        Raises:
            CannotRun: if another process has kept its own since this one last read or kept it.
            NatsError: if NATS does not answer or refuses.
        """
        try:
            self.revision = await self.bucket.update(self._key, value, last=self.revision)
        except KeyWrongLastSequenceError:
            entry = await self.bucket.get(self._key)
            if entry.value != value:
                raise CannotRun(f"another {self._keeper} is already running; stopping") from None
            # It was stored; only the response was lost.
            self.revision = entry.revision or 0
        except NoStreamResponseError:
            # Somebody removed the bucket, or NATS restarted without its data.
            self.bucket = await state_bucket(self._jetstream, self._name, self._replicas)
            self.revision = 0
            raise


async def after_acknowledged(jetstream: JetStreamContext, stream: str, durable: str) -> int:
    """Number of the first message that is not acknowledged; 1 if there is no such consumer.

    Raises:
        NatsError: if JetStream does not answer.
    """
    try:
        floor = (await jetstream.consumer_info(stream, durable)).ack_floor
    except NotFoundError:
        return 1
    return floor.stream_seq + 1 if floor else 1


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
