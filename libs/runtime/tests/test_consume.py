"""A durable consumer on a real NATS server."""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from unittest.mock import AsyncMock, Mock

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from conftest import NatsServer, eventually, running
from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.subjects import FLOWS_ENRICHED, SUBJECT_ENRICHED
from flowverdict_runtime.consumer import (
    MALFORMED,
    SeenSequences,
    _EachAcknowledged,
    consume_each,
)
from flowverdict_runtime.context import Context
from flowverdict_runtime.nats_connection import connected
from flowverdict_runtime.retry import TRANSIENT_ERRORS
from flowverdict_runtime.service_settings import NatsSettings
from flowverdict_runtime.settings import load, redact
from flowverdict_runtime.streams import ensure_streams, publish_until_stored


def settings_of(server: NatsServer) -> NatsSettings:
    return load(NatsSettings, {"FLOWVERDICT_NATS_URL": server.url})


@contextlib.asynccontextmanager
async def consuming(
    server: NatsServer, handle: Callable[[Msg], Awaitable[bool]]
) -> AsyncIterator[Context]:
    context = Context()
    context.health.ready("start")

    async def live() -> None:
        async with connected(settings_of(server), "test", context, [FLOWS_ENRICHED]) as jetstream:
            assert jetstream is not None
            await consume_each(jetstream, context, FLOWS_ENRICHED, "test", handle)

    async with running(context, live()):
        yield context


async def test_every_message_is_handled_once_also_over_a_restart_of_the_service(
    nats_server: NatsServer, nats_client: Client
) -> None:
    handled: Counter[bytes] = Counter()

    async def handle(message: Msg) -> bool:
        handled[message.data] += 1
        return True

    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    for number in range(200):
        await jetstream.publish(SUBJECT_ENRICHED, b"%d" % number)
    async with consuming(nats_server, handle):
        await eventually(lambda: len(handled) == 200)
    await jetstream.publish(SUBJECT_ENRICHED, b"one more")
    async with consuming(nats_server, handle):
        await eventually(lambda: len(handled) == 201)
    assert set(handled.values()) == {1}


async def test_a_message_whose_acknowledgement_was_lost_is_not_handled_again(
    nats_server: NatsServer, nats_client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    handled: Counter[bytes] = Counter()
    acknowledged: list[int] = []
    real_ack = Msg.ack

    async def flaky_ack(self: Msg) -> None:
        if not acknowledged:
            acknowledged.append(1)
            await self.nak()
            return
        acknowledged.append(1)
        await real_ack(self)

    async def handle(message: Msg) -> bool:
        handled[message.data] += 1
        return True

    monkeypatch.setattr(Msg, "ack", flaky_ack)
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    await jetstream.publish(SUBJECT_ENRICHED, b"x")
    async with consuming(nats_server, handle):
        await eventually(lambda: len(acknowledged) == 2)
    assert handled == {b"x": 1}


async def test_a_malformed_message_is_counted_and_never_comes_back_and_the_next_is_handled(
    nats_server: NatsServer, nats_client: Client
) -> None:
    seen: Counter[bytes] = Counter()

    async def handle(message: Msg) -> bool:
        seen[message.data] += 1
        if message.data == b"bad":
            raise MalformedMessage("it is bad")
        return True

    before = MALFORMED.labels(FLOWS_ENRICHED)._value.get()
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    await jetstream.publish(SUBJECT_ENRICHED, b"bad")
    await jetstream.publish(SUBJECT_ENRICHED, b"good")
    async with consuming(nats_server, handle):
        await eventually(lambda: seen[b"good"])

        async def nothing_left() -> bool:
            info = await jetstream.consumer_info(FLOWS_ENRICHED, "test")
            return not info.num_ack_pending and not info.num_pending

        await eventually(nothing_left)
    assert seen == {b"bad": 1, b"good": 1}
    assert MALFORMED.labels(FLOWS_ENRICHED)._value.get() == before + 1


async def test_a_fault_of_the_service_leaves_the_message_for_another_try(
    nats_server: NatsServer, nats_client: Client
) -> None:
    tries: list[bytes] = []

    async def handle(message: Msg) -> bool:
        tries.append(message.data)
        if len(tries) == 1:
            raise KeyError("a bug")
        return True

    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    await jetstream.publish(SUBJECT_ENRICHED, b"x")
    async with consuming(nats_server, handle):
        await eventually(lambda: len(tries) == 2)


async def test_nats_may_go_away_and_come_back_and_nothing_is_lost_or_doubled(
    nats_server: NatsServer, nats_client: Client
) -> None:
    handled: Counter[bytes] = Counter()
    stored: list[bool] = []

    async def handle(message: Msg) -> bool:
        handled[message.data] += 1
        return True

    async with consuming(nats_server, handle) as context:
        await eventually(lambda: not context.health.reasons())
        publisher = Context()
        async with connected(
            settings_of(nats_server), "publisher", publisher, [FLOWS_ENRICHED]
        ) as jetstream:
            assert jetstream is not None

            async def publish(number: int) -> None:
                headers = {"Nats-Msg-Id": str(number)}
                body = b"%d" % number
                stored.append(
                    await publish_until_stored(
                        jetstream, publisher, SUBJECT_ENRICHED, body, headers
                    )
                )

            await publish(0)
            await eventually(lambda: handled)
            nats_server.stop()
            await eventually(lambda: "nats" in context.health.reasons())
            away = asyncio.create_task(publish(1))
            await eventually(lambda: "publish flows.enriched" in publisher.health.reasons())
            nats_server.start()
            await away
            await publish(2)
            await eventually(lambda: len(handled) == 3)
            await eventually(lambda: not context.health.reasons())
    assert stored == [True] * 3
    assert handled == {b"0": 1, b"1": 1, b"2": 1}


async def test_a_nats_that_comes_back_without_its_data_is_set_up_again(
    nats_server: NatsServer, nats_client: Client
) -> None:
    handled: list[bytes] = []

    async def handle(message: Msg) -> bool:
        handled.append(message.data)
        return True

    async with consuming(nats_server, handle):
        jetstream = nats_client.jetstream()
        await eventually(lambda: _has_consumer(nats_client))
        await jetstream.publish(SUBJECT_ENRICHED, b"before")
        await eventually(lambda: handled == [b"before"])
        nats_server.stop()
        nats_server.forget()
        nats_server.start()
        await eventually(lambda: _has_consumer(nats_client), 60)
        await jetstream.publish(SUBJECT_ENRICHED, b"after")
        await eventually(lambda: handled == [b"before", b"after"])


async def _has_consumer(client: Client) -> bool:
    try:
        await client.jetstream(timeout=1).consumer_info(FLOWS_ENRICHED, "test")
    except TRANSIENT_ERRORS:
        return False
    return True


def test_a_password_in_the_address_of_nats_is_never_shown() -> None:
    assert redact("nats://user:secret@host:4222") == "nats://host:4222"
    assert redact("nats://user:se@cret@host:1,nats://u:p@other:2") == "nats://host:1,nats://other:2"
    assert redact("nats://host:4222") == "nats://host:4222"


async def test_a_message_that_nobody_ever_finishes_is_left_out_and_holds_up_no_other(
    nats_server: NatsServer, nats_client: Client
) -> None:
    """As one of which each service dies without a word: it is delivered again and again."""
    handled: Counter[bytes] = Counter()
    malformed = MALFORMED.labels(FLOWS_ENRICHED)
    before = malformed._value.get()

    async def handle(message: Msg) -> bool:
        handled[message.data] += 1
        return message.data != b"poison"

    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    for body in (b"poison", b"good"):
        await jetstream.publish(SUBJECT_ENRICHED, body)
    async with consuming(nats_server, handle):
        await eventually(lambda: malformed._value.get() == before + 1)
    assert handled == {b"poison": 20, b"good": 1}


class Killed(BaseException):
    """As the process would be."""


@pytest.mark.parametrize("seed", range(10))
async def test_only_the_message_that_kills_its_reader_is_left_out_of_those_read_with_it(
    seed: int,
) -> None:
    """Whoever is killed has all of a batch in hand, and is given it again."""
    random.seed(seed)
    poison = seed * 7
    deliveries = Counter(dict.fromkeys(range(64), 0))
    finished, left_out = set[int](), set[int]()

    async def handle(message: Msg) -> bool:
        if message.data == b"poison":
            raise Killed
        return True

    def delivered(number: int) -> Msg:
        deliveries[number] += 1
        message = AsyncMock(spec=Msg, data=b"poison" if number == poison else b"", subject="")
        message.metadata = Mock(num_delivered=deliveries[number], stream="poisoned")
        message.metadata.sequence.stream = number + 1
        message.ack.side_effect = lambda: finished.add(number)
        message.term.side_effect = lambda: left_out.add(number)
        return message

    while open_now := sorted(set(deliveries) - finished - left_out):
        reading = _EachAcknowledged(Mock(), handle, SeenSequences(0), None)
        with contextlib.suppress(Killed):
            await reading.take([delivered(number) for number in open_now])
    assert left_out == {poison}
