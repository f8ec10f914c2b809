"""The messages currently in a stream, read without a consumer.

A consumer delivers to whatever subject its creator names, also into another stream. So the NATS
user for people may not create one, and can read what is stored nevertheless.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import RawStreamMsg
from nats.js.errors import NotFoundError

__all__ = ["StoredMessage", "newest_messages", "stored_messages", "stored_ns"]

_AT_ONCE = 64


@dataclass(frozen=True, slots=True)
class StoredMessage:
    """A message of a stream.

    Attributes:
        sequence: its number in the stream.
        stored_ns: when it was stored, by the clock of NATS, UTC nanoseconds.
        subject: what it was published on.
        headers: its headers.
        data: its body.
    """

    sequence: int
    stored_ns: int
    subject: str
    headers: Mapping[str, str] = field(default_factory=dict)
    data: bytes = b""


def stored_ns(message: Msg) -> int:
    """When its stream stored a message, by the clock of NATS, UTC nanoseconds."""
    return int(message.metadata.timestamp.timestamp() * 1e9)


async def stored_messages(
    jetstream: JetStreamContext,
    stream: str,
    *,
    since_ns: int | None = None,
    since_sequence: int = 0,
) -> AsyncIterator[StoredMessage]:
    """The messages of `stream` in order, excluding those published in the meantime.

    Starts with the first one stored at `since_ns` (UTC nanoseconds) or later, or with
    `since_sequence`.

    Raises:
        NatsError: if JetStream does not answer or has no such stream.
    """
    state = (await jetstream.stream_info(stream)).state
    first, last = max(state.first_seq, since_sequence), state.last_seq
    if since_ns is not None:
        first = await _first_since(jetstream, stream, first, last, since_ns)
    while first <= last:
        end = min(first + _AT_ONCE, last + 1)
        for message in await _from_each(jetstream, stream, range(first, end)):
            end = max(end, message.sequence + 1)
            if message.sequence <= last:
                yield message
        first = end


async def newest_messages(jetstream: JetStreamContext, stream: str) -> AsyncIterator[StoredMessage]:
    """The messages of `stream`, the newest first, excluding those published in the meantime.

    Raises:
        NatsError: if JetStream does not answer or has no such stream.
    """
    state = (await jetstream.stream_info(stream)).state
    for end in range(state.last_seq + 1, state.first_seq, -_AT_ONCE):
        wanted = range(max(state.first_seq, end - _AT_ONCE), end)
        for message in reversed(await _from_each(jetstream, stream, wanted)):
            if message.sequence < end:
                yield message


async def _from_each(
    jetstream: JetStreamContext, stream: str, numbers: range
) -> list[StoredMessage]:
    """The messages with these numbers; in the place of one that is missing, the next one."""
    found = await asyncio.gather(*(_next(jetstream, stream, number) for number in numbers))
    messages = {each.sequence: each for each in found if each is not None}
    return [messages[sequence] for sequence in sorted(messages)]


async def _next(jetstream: JetStreamContext, stream: str, sequence: int) -> StoredMessage | None:
    """The first message with that number or a later one; None if there is none."""
    try:
        found = await jetstream.get_msg(stream, seq=sequence, subject=">", next=True)
    except NotFoundError:
        return None
    return _stored(found)


def _stored(message: RawStreamMsg) -> StoredMessage:
    assert message.seq is not None
    assert message.time is not None
    return StoredMessage(
        sequence=message.seq,
        stored_ns=int(message.time.timestamp() * 1e9),
        subject=message.subject or "",
        headers=message.headers or {},
        data=message.data or b"",
    )


async def _first_since(
    jetstream: JetStreamContext, stream: str, first: int, last: int, since_ns: int
) -> int:
    """The number of the first message stored at that time or later; `last` + 1 if none was."""
    end = last + 1
    while first < end:
        middle = (first + end) // 2
        found = await _next(jetstream, stream, middle)
        if found is None or found.stored_ns >= since_ns:
            end = middle
        else:
            first = found.sequence + 1
    return end
