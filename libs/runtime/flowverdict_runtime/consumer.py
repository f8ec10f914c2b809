"""A durable consumer: fetch, handle, acknowledge."""

import asyncio
import contextlib
import functools
import logging
import random
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Protocol, TypeVar

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import APIError, NotFoundError
from prometheus_client import Counter, Gauge

from flowverdict_contracts import MalformedMessage
from flowverdict_runtime.context import Context
from flowverdict_runtime.logs import Throttle
from flowverdict_runtime.retry import TRANSIENT_ERRORS, Unavailable, retry
from flowverdict_runtime.stream_size import note_size
from flowverdict_runtime.streams import TooLarge, ensure_streams

__all__ = [
    "MALFORMED",
    "Delivery",
    "SeenSequences",
    "check_delivers",
    "consume",
    "consume_each",
    "finish",
    "note_malformed",
    "pull_from",
    "reject",
]

log = logging.getLogger(__name__)

MALFORMED = Counter(
    "flowverdict_messages_malformed_total",
    "Messages that do not match the schema of their subject.",
    ["stream"],
)
FAILED = Counter(
    "flowverdict_messages_failed_total",
    "Deliveries that this service failed to handle.",
    ["stream"],
)
HANDLED = Counter(
    "flowverdict_messages_handled_total",
    "Messages handled and acknowledged.",
    ["stream"],
)

TOO_LARGE = Counter(
    "flowverdict_messages_too_large_total",
    "Messages left out because what follows from them exceeds the limits of NATS.",
    ["stream"],
)

PENDING = Gauge(
    "flowverdict_consumer_pending_messages",
    "Messages in a stream not yet delivered to this service.",
    ["stream"],
)

LAG = Gauge(
    "flowverdict_consumer_lag_seconds",
    "How long ago the last message that was read had been stored, if there are others; else 0.",
    ["stream"],
)

_MAX_DELIVERIES = 5
"""If handling fails with an error of ours."""
_MAX_UNFINISHED = 20
"""If nothing is said at all, as by a service that is killed for its memory."""
_BATCH = 64
_ACK_WAIT_SECONDS = 30.0
_IDLE_CHECK = 5
_REPORT_SECONDS = 5.0
_throttle = Throttle()


class SeenSequences:
    """Which stream sequences were handled, so that a redelivery is not counted again.

    Exact, with memory bounded by `limit`: everything up to a floor was seen. Once `limit` sequences
    above the floor were seen, the gap below them is a message the stream no longer has.
    """

    def __init__(self, floor: int, limit: int = 100_000) -> None:
        self._floor = floor
        self._limit = limit
        self._above: set[int] = set()

    def __contains__(self, sequence: int) -> bool:
        return sequence <= self._floor or sequence in self._above

    def add(self, sequence: int) -> None:
        """Mark `sequence` as handled."""
        if sequence in self:
            return
        self._above.add(sequence)
        if len(self._above) > self._limit:
            self._floor = min(self._above)
            self._above.discard(self._floor)
        while self._floor + 1 in self._above:
            self._floor += 1
            self._above.discard(self._floor)


def note_malformed(stream: str, subject: str, data: bytes, why: object) -> None:
    """Count and log a malformed message."""
    MALFORMED.labels(stream).inc()
    _throttle.warn(log, subject, "malformed message: %s", why, subject=subject, bytes=len(data))


async def reject(message: Msg, error: MalformedMessage) -> None:
    """Count, log and terminate a malformed message, so that it is not redelivered."""
    note_malformed(message.metadata.stream, message.subject, message.data, error)
    await message.term()


async def finish(message: Msg) -> None:
    """Count and acknowledge a message that has been handled."""
    HANDLED.labels(message.metadata.stream).inc()
    with contextlib.suppress(*TRANSIENT_ERRORS):
        await message.ack()


async def _settle(
    message: Msg, handle: Callable[[Msg], Awaitable[bool]], seen: SeenSequences
) -> None:
    sequence = message.metadata.sequence.stream
    try:
        if sequence not in seen:
            try:
                if message.metadata.num_delivered > _MAX_UNFINISHED:
                    raise MalformedMessage("services were killed each time they handled it")
                if not await handle(message):
                    await message.nak()
                    return
                HANDLED.labels(message.metadata.stream).inc()
            except MalformedMessage as error:
                seen.add(sequence)
                await reject(message, error)
                return
            except TooLarge as error:
                seen.add(sequence)
                TOO_LARGE.labels(message.metadata.stream).inc()
                _throttle.warn(log, message.subject, "left out: %s", error, subject=message.subject)
                await message.term()
                return
            seen.add(sequence)
        await message.ack()
    except Exception as error:
        if isinstance(error, TRANSIENT_ERRORS):
            log.debug("left unacknowledged: %s", error)
            return
        # A bug of ours must not block the stream: retry, then discard and count the message.
        FAILED.labels(message.metadata.stream).inc()
        log.exception("cannot handle a message", extra={"subject": message.subject})
        deliveries = message.metadata.num_delivered
        with contextlib.suppress(*TRANSIENT_ERRORS):
            if deliveries < _MAX_DELIVERIES:
                await message.nak(delay=2**deliveries)
            else:
                await reject(message, MalformedMessage(f"failed {deliveries} times: {error!r}"))


class Delivery(Protocol):
    """How a consumer handles and acknowledges the messages of a subscription."""

    @property
    def pull(self) -> JetStreamContext.PullSubscription:
        """The subscription to fetch messages from."""

    async def take(self, messages: list[Msg]) -> None:
        """Handle a batch, and acknowledge the messages that are finished."""

    async def check(self) -> None:
        """Raise if the subscription is no longer valid or delivers nothing; called when idle for a
        while.
        """


D = TypeVar("D", bound=Delivery)


async def consume(
    jetstream: JetStreamContext,
    context: Context,
    stream: str,
    subscribe: Callable[[D | None], Awaitable[D]],
) -> None:
    """Consume every message of `stream` until the service stops.

    `subscribe` is called at the start and after each failure, with the previous delivery, which is
    not used again.
    """
    part = f"consumer of {stream}"
    MALFORMED.labels(stream)  # start the series at 0, so that its first increase is visible
    current = await retry(context, part, functools.partial(subscribe, None))
    idle, newest = 0, time.time()
    async with _state_reported(jetstream, stream, lambda: current, lambda: newest):
        while current is not None and not context.stopping.is_set():
            try:
                if idle >= _IDLE_CHECK:
                    idle = 0
                    await current.check()
                    context.health.ready(part)
                messages = await current.pull.fetch(_BATCH, timeout=1)
                if not messages:  # NATS was faster to say that there are none
                    raise TimeoutError
                context.health.ready(part)
                idle = 0
                newest = messages[-1].metadata.timestamp.timestamp()
                await current.take(messages)
            except TimeoutError:
                idle += 1
            except Unavailable as error:
                context.health.waiting(part, str(error))
            except TRANSIENT_ERRORS as error:
                reason = f"NATS is not delivering: {error or type(error).__name__}"
                context.health.waiting(part, reason)
                await context.pause(1)
                with contextlib.suppress(*TRANSIENT_ERRORS):
                    await current.pull.unsubscribe()
                current = await retry(context, part, functools.partial(subscribe, current))


@contextlib.asynccontextmanager
async def _state_reported(
    jetstream: JetStreamContext,
    stream: str,
    current: Callable[[], Delivery | None],
    newest: Callable[[], float],
) -> AsyncIterator[None]:
    """Keep the metrics of lag and size up to date, even while the consumer is stuck.

    `newest` is when the last message that was read had been stored.
    """

    async def watch() -> None:
        while True:
            delivery = current()
            if delivery is not None:
                with contextlib.suppress(*TRANSIENT_ERRORS):
                    info = await delivery.pull.consumer_info()
                    pending = info.num_pending or 0
                    PENDING.labels(stream).set(pending)
                    LAG.labels(stream).set(max(0, time.time() - newest()) if pending else 0)
                    note_size(await jetstream.stream_info(stream))
            await asyncio.sleep(_REPORT_SECONDS)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


@dataclass(frozen=True, slots=True)
class _EachAcknowledged:
    """Acknowledges each message once `handle` is done with it."""

    pull: JetStreamContext.PullSubscription
    handle: Callable[[Msg], Awaitable[bool]]
    seen: SeenSequences
    stream_created: object

    async def take(self, messages: list[Msg]) -> None:
        """What has been delivered before comes last, one after the other and in any order: one of
        them may be what kills this service, and the others are to be finished before it.
        """
        again = [each for each in messages if each.metadata.num_delivered > 1]
        new = [each for each in messages if each.metadata.num_delivered <= 1]
        await asyncio.gather(*(_settle(message, self.handle, self.seen) for message in new))
        random.shuffle(again)
        for message in again:
            await _settle(message, self.handle, self.seen)

    async def check(self) -> None:
        await check_delivers(self.pull)


async def check_delivers(pull: JetStreamContext.PullSubscription) -> None:
    """Check a consumer from which nothing has come for a while.

    Raises:
        Unavailable: if messages wait for it nevertheless; the message says why.
        NotFoundError: if it does not exist any more.
    """
    info = await pull.consumer_info()
    if not info.num_pending:
        return
    what = f"consumer {info.name} of {info.stream_name} delivers nothing"
    if info.paused:
        resume = f"nats consumer resume {info.stream_name} {info.name}"
        raise Unavailable(f"{what}: it is paused; {resume}")
    raise Unavailable(
        f"{what}, though messages wait: {info.num_ack_pending} are in hand elsewhere, until "
        "they are acknowledged or delivered again"
    )


async def pull_from(
    jetstream: JetStreamContext, stream: str, config: ConsumerConfig
) -> JetStreamContext.PullSubscription:
    """Subscribe to the durable consumer of this configuration, created if it does not exist.

    Raises:
        Unavailable: if NATS refuses to create it; the message says why.
        NatsError: if JetStream does not answer.
    """
    durable = str(config.durable_name)
    try:
        return await jetstream.pull_subscribe("", durable=durable, stream=stream, config=config)
    except NotFoundError:
        raise
    except APIError as error:
        text = f"NATS refuses consumer {durable} of {stream}: {error.description}"
        if "ack pending" in str(error.description):
            wanted = config.max_ack_pending
            text += f"; it would be {wanted}, and FLOWVERDICT_MAX_ACK_PENDING makes it fewer"
        raise Unavailable(text) from None


async def consume_each(
    jetstream: JetStreamContext,
    context: Context,
    stream: str,
    durable: str,
    handle: Callable[[Msg], Awaitable[bool]],
) -> None:
    """Handle and acknowledge every message of `stream` until the service stops.

    `handle` returns True if it has finished with the message, False to have it redelivered, and
    raises `MalformedMessage` for one that can never be handled. It is not called again for a
    message it has finished with, even if the acknowledgement was lost. The messages of a batch are
    handled concurrently, but for those that have been delivered before. Several processes with the
    same `durable` name share the work.
    """
    for counter in (FAILED, HANDLED, TOO_LARGE):
        counter.labels(stream)
    config = ConsumerConfig(
        durable_name=durable,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=_ACK_WAIT_SECONDS,
        max_ack_pending=context.streams.max_ack_pending,
        deliver_policy=DeliverPolicy.ALL,
    )

    async def subscribe(before: _EachAcknowledged | None) -> _EachAcknowledged:
        await ensure_streams(jetstream, [stream], context.streams)
        pull = await pull_from(jetstream, stream, config)
        created = (await jetstream.stream_info(stream)).created
        if before is not None and before.stream_created == created:
            return _EachAcknowledged(pull, handle, before.seen, created)
        floor = (await pull.consumer_info()).ack_floor
        seen = SeenSequences(floor.stream_seq if floor else 0)
        return _EachAcknowledged(pull, handle, seen, created)

    await consume(jetstream, context, stream, subscribe)
