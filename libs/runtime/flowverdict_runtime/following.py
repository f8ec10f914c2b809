"""Follows a stream without a consumer: every message in order, one after the other.

For those who may read a stream and create nothing in its account, since a consumer delivers to
whatever subject it is given.
"""

import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.subjects import STREAMS
from flowverdict_runtime.consumer import FAILED, HANDLED, LAG, MALFORMED, PENDING, note_malformed
from flowverdict_runtime.context import Context
from flowverdict_runtime.retry import TRANSIENT_ERRORS, Unavailable, retry
from flowverdict_runtime.stored_messages import StoredMessage, stored_messages
from flowverdict_runtime.stream_faults import faults_of
from flowverdict_runtime.stream_size import note_size

__all__ = ["Reader", "follow"]

log = logging.getLogger(__name__)

_POLL_SECONDS = 1.0
_MOST_FAILURES = 5


@dataclass(frozen=True, slots=True)
class Reader:
    """Whoever follows a stream.

    Attributes:
        first: returns the number of the message to begin with, or 0 for the next one to come. It is
            the first one if the stream is not there yet, or is another than it was.
        handle: returns True if it has finished with the message, False to get it again, and raises
            `MalformedMessage` for one that can never be handled.
        caught_up: called whenever all there are have been handled.
        renewed: called when the stream is another than it was.
    """

    first: Callable[[], Awaitable[int]]
    handle: Callable[[StoredMessage], Awaitable[bool]]
    caught_up: Callable[[], None] = lambda: None
    renewed: Callable[[], None] = lambda: None


async def follow(
    jetstream: JetStreamContext, context: Context, stream: str, reader: Reader
) -> None:
    """Have `reader` handle every message of `stream` until the service stops; look for new ones
    each second.
    """
    part = f"reader of {stream}"
    for counter in (FAILED, HANDLED, MALFORMED):
        counter.labels(stream)  # start the series at 0, so that its first increase is visible
    context.health.waiting(part, "not read yet")
    start = await retry(context, f"position in {stream}", reader.first)
    if start is None:
        return
    following = _Following(jetstream, context, stream, start, reader)
    while not context.stopping.is_set():
        try:
            if await following.read():
                reader.caught_up()
            context.health.ready(part)
        except Unavailable as error:
            context.health.waiting(part, str(error))
        except TRANSIENT_ERRORS as error:
            context.health.waiting(part, f"NATS: {error or type(error).__name__}")
        await context.pause(_POLL_SECONDS)


class _Following:
    """How far a stream has been read."""

    def __init__(
        self,
        jetstream: JetStreamContext,
        context: Context,
        stream: str,
        start: int,
        reader: Reader,
    ) -> None:
        self._jetstream = jetstream
        self._context = context
        self._stream = stream
        self._next = start
        self._created: datetime | None = None
        self._reader = reader
        self._failures = 0

    async def read(self) -> bool:
        """Handle what has come; whether that was all.

        Raises:
            Unavailable: if the stream is not what it should be; the message says why.
            NatsError: if JetStream does not answer.
        """
        try:
            info = await self._jetstream.stream_info(self._stream)
        except NotFoundError:
            self._next = 1
            return True
        for fault in faults_of(info.config, STREAMS[self._stream]):
            raise Unavailable(fault)
        note_size(info)
        last = info.state.last_seq
        if self._next > last + 1 or self._created not in (None, info.created):
            log.warning("%s is a new stream: reading it from the start", self._stream)
            self._reader.renewed()
            self._next = 1
        self._created = info.created
        self._next = self._next or last + 1
        async for message in stored_messages(
            self._jetstream, self._stream, since_sequence=self._next
        ):
            self._behind(last + 1 - message.sequence, message.stored_ns)
            if self._context.stopping.is_set() or not await self._is_finished(message):
                return False
            self._next = message.sequence + 1
        self._behind(0, 0)
        return True

    def _behind(self, messages: int, stored_ns: int) -> None:
        PENDING.labels(self._stream).set(max(0, messages))
        LAG.labels(self._stream).set(max(0, time.time() - stored_ns / 1e9) if messages else 0)

    async def _is_finished(self, message: StoredMessage) -> bool:
        try:
            if not await self._reader.handle(message):
                return False
            HANDLED.labels(self._stream).inc()
        except MalformedMessage as error:
            note_malformed(self._stream, message.subject, message.data, error)
        except TRANSIENT_ERRORS:
            raise
        except Exception as error:  # a bug of ours must not stop the service
            FAILED.labels(self._stream).inc()
            log.exception("cannot handle a message", extra={"subject": message.subject})
            self._failures += 1
            if self._failures < _MOST_FAILURES:
                return False
            why = f"failed {self._failures} times: {error!r}"
            note_malformed(self._stream, message.subject, message.data, why)
        self._failures = 0
        return True
