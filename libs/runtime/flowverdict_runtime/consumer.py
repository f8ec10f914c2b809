"""A durable consumer: fetch, handle, acknowledge."""

import asyncio
import contextlib
import logging
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from nats.aio.msg import Msg
from nats.errors import MaxPayloadError
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from prometheus_client import Counter, Gauge

from flowverdict_contracts import MalformedMessage
from flowverdict_runtime.connection import ensure_streams
from flowverdict_runtime.logs import Throttle
from flowverdict_runtime.retry import PASSING, retry
from flowverdict_runtime.service import Context

__all__ = ["MALFORMED", "SeenSequences", "consume", "lag_watched", "reject"]

log = logging.getLogger(__name__)

MALFORMED = Counter(
    "flowverdict_messages_malformed_total",
    "Messages that are not what their subject promises.",
    ["stream"],
)
FAILED = Counter(
    "flowverdict_messages_failed_total",
    "Deliveries that the service itself failed to handle.",
    ["stream"],
)
HANDLED = Counter(
    "flowverdict_messages_handled_total",
    "Messages handled and acknowledged.",
    ["stream"],
)

PENDING = Gauge(
    "flowverdict_consumer_pending_messages",
    "Messages of a stream that this service has not been given yet.",
    ["stream"],
)

_MAX_DELIVERIES = 5
_BATCH = 64
_DISUSE_SECONDS = 300.0
_ACK_WAIT_SECONDS = 30.0
_IDLE_CHECK = 5
_LOOK_SECONDS = 5.0
_throttle = Throttle()


class SeenSequences:
    """Which stream sequences were handled, so that a second delivery counts nothing.

    Exact in memory bounded by `limit`: up to a floor everything was seen. A gap above the floor
    that `limit` later sequences have passed is a message that the stream no longer has.
    """

    def __init__(self, floor: int, limit: int = 100_000) -> None:
        self._floor = floor
        self._limit = limit
        self._above: set[int] = set()

    def __contains__(self, sequence: int) -> bool:
        return sequence <= self._floor or sequence in self._above

    def add(self, sequence: int) -> None:
        """`sequence` was handled."""
        if sequence in self:
            return
        self._above.add(sequence)
        if len(self._above) > self._limit:
            self._floor = min(self._above)
            self._above.discard(self._floor)
        while self._floor + 1 in self._above:
            self._floor += 1
            self._above.discard(self._floor)


async def reject(message: Msg, error: MalformedMessage) -> None:
    """Count and log a malformed message and end it, so that it is not delivered again."""
    MALFORMED.labels(message.metadata.stream).inc()
    held = _throttle.admit(message.subject)
    if held is not None:
        log.warning(
            "malformed message: %s",
            error,
            extra={"subject": message.subject, "bytes": len(message.data), "not_shown": held},
        )
    await message.term()


async def _settle(
    message: Msg, handle: Callable[[Msg], Awaitable[bool]], seen: SeenSequences
) -> None:
    sequence = message.metadata.sequence.stream
    try:
        if sequence not in seen:
            try:
                if not await handle(message):
                    await message.nak()
                    return
                HANDLED.labels(message.metadata.stream).inc()
            except MalformedMessage as error:
                seen.add(sequence)
                await reject(message, error)
                return
            seen.add(sequence)
        await message.ack()
    except Exception as error:
        if isinstance(error, PASSING) and not isinstance(error, MaxPayloadError):
            log.debug("left unacknowledged: %s", error)
            return
        # A fault of ours must not stop the stream: tried again, then put aside and counted.
        FAILED.labels(message.metadata.stream).inc()
        log.exception("cannot handle a message", extra={"subject": message.subject})
        deliveries = message.metadata.num_delivered
        with contextlib.suppress(*PASSING):
            if deliveries < _MAX_DELIVERIES:
                await message.nak(delay=2**deliveries)
            else:
                await reject(message, MalformedMessage(f"failed {deliveries} times: {error!r}"))


@contextlib.asynccontextmanager
async def lag_watched(
    stream: str, subscription: Callable[[], JetStreamContext.PullSubscription | None]
) -> AsyncIterator[None]:
    """While inside, a metric says how far the subscription is behind, also where it is stuck."""

    async def watch() -> None:
        while True:
            pull = subscription()
            if pull is not None:
                with contextlib.suppress(*PASSING):
                    PENDING.labels(stream).set((await pull.consumer_info()).num_pending or 0)
            await asyncio.sleep(_LOOK_SECONDS)

    watching = asyncio.create_task(watch())
    try:
        yield
    finally:
        watching.cancel()


@dataclass(slots=True)
class _Subscription:
    pull: JetStreamContext.PullSubscription
    seen: SeenSequences
    stream_created: object


async def consume(
    jetstream: JetStreamContext,
    context: Context,
    stream: str,
    durable: str,
    handle: Callable[[Msg], Awaitable[bool]],
    only_new: bool = False,
) -> None:
    """Handle every message of `stream`, until the service is to stop.

    `handle` returns True where the message is done with, False to have it delivered again, and
    raises `MalformedMessage` for one that never will be. It is not called again for a message it
    was done with, also where the acknowledgement was lost. The messages of a batch are handled
    concurrently. Several processes with the same `durable` name share the work. With `only_new` a
    consumer that does not exist yet begins with what comes, and is removed soon after its last use.
    """
    part = f"consumer of {stream}"
    for counter in (MALFORMED, FAILED, HANDLED):
        counter.labels(stream)  # a series from the start, so that its first increase is seen
    config = ConsumerConfig(
        durable_name=durable,
        ack_policy=AckPolicy.EXPLICIT,
        ack_wait=_ACK_WAIT_SECONDS,
        max_ack_pending=4096,
        deliver_policy=DeliverPolicy.NEW if only_new else DeliverPolicy.ALL,
        inactive_threshold=_DISUSE_SECONDS if only_new else None,
    )
    current: _Subscription | None = None

    async def subscribe() -> _Subscription:
        await ensure_streams(jetstream, [stream], context.stream_replicas)
        pull = await jetstream.pull_subscribe("", durable=durable, stream=stream, config=config)
        created = (await jetstream.stream_info(stream)).created
        if current is not None and current.stream_created == created:
            return _Subscription(pull, current.seen, created)
        floor = (await pull.consumer_info()).ack_floor
        return _Subscription(pull, SeenSequences(floor.stream_seq if floor else 0), created)

    current = await retry(context, part, subscribe)
    idle = 0
    async with lag_watched(stream, lambda: current.pull if current else None):
        while current is not None and not context.stopping.is_set():
            try:
                if idle >= _IDLE_CHECK:
                    idle = 0
                    await current.pull.consumer_info()
                messages = await current.pull.fetch(_BATCH, timeout=1)
            except TimeoutError:
                idle += 1
            except PASSING as error:
                reason = f"NATS does not deliver: {error or type(error).__name__}"
                context.health.waiting(part, reason)
                await context.pause(1)
                with contextlib.suppress(*PASSING):
                    await current.pull.unsubscribe()
                current = await retry(context, part, subscribe)
            else:
                idle = 0
                context.health.ready(part)
                seen = current.seen
                await asyncio.gather(*(_settle(message, handle, seen) for message in messages))
