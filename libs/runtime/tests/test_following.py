"""A stream followed without a consumer, on a real NATS server."""

import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable

from nats.aio.client import Client
from nats.js.api import StreamConfig
from prometheus_client import REGISTRY

from conftest import NatsServer, eventually, running
from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.subjects import RCA_VERDICTS, SUBJECT_VERDICTS
from flowverdict_runtime.context import Context
from flowverdict_runtime.following import Reader, follow
from flowverdict_runtime.nats_connection import connected
from flowverdict_runtime.service_settings import NatsSettings
from flowverdict_runtime.settings import load
from flowverdict_runtime.stored_messages import StoredMessage
from flowverdict_runtime.streams import ensure_streams


@contextlib.asynccontextmanager
async def following(
    server: NatsServer, handle: Callable[[StoredMessage], Awaitable[bool]], start: int = 1
) -> AsyncIterator[Context]:
    context = Context()
    context.health.ready("start")
    context.health.waiting(f"reader of {RCA_VERDICTS}", "starting")
    settings = load(NatsSettings, {"FLOWVERDICT_NATS_URL": server.url})

    async def first() -> int:
        return start

    async def live() -> None:
        async with connected(settings, "test", context, []) as jetstream:
            assert jetstream is not None
            await follow(jetstream, context, RCA_VERDICTS, Reader(first, handle))

    async with running(context, live()):
        yield context


class Handled:
    """Collects messages, and does as told with some of them."""

    def __init__(self) -> None:
        self.numbers: list[bytes] = []
        self.attempts: list[bytes] = []

    async def __call__(self, message: StoredMessage) -> bool:
        self.attempts.append(message.data)
        if message.data == b"malformed":
            raise MalformedMessage("it is")
        if message.data == b"bug":
            raise ZeroDivisionError
        if message.data == b"later" and self.attempts.count(b"later") < 3:
            return False
        self.numbers.append(message.data)
        return True


async def publish(client: Client, *bodies: bytes) -> None:
    for each in bodies:
        await client.jetstream().publish(SUBJECT_VERDICTS, each)


def counted(name: str) -> float:
    labels = {"stream": RCA_VERDICTS}
    return REGISTRY.get_sample_value(f"flowverdict_{name}", labels) or 0.0


async def test_every_message_from_a_position_on_is_handled_once_and_in_order(
    nats_server: NatsServer, nats_client: Client
) -> None:
    await ensure_streams(nats_client.jetstream(), [RCA_VERDICTS])
    numbers = [b"%d" % number for number in range(1, 301)]
    await publish(nats_client, *numbers[:200])
    handled = Handled()
    async with following(nats_server, handled, 11) as context:
        await eventually(lambda: len(handled.numbers) == 190)
        await publish(nats_client, *numbers[200:])
        await eventually(lambda: len(handled.numbers) == 290)
        await eventually(lambda: not context.health.reasons())
    assert handled.attempts == numbers[10:]
    assert counted("consumer_pending_messages") == 0


async def test_from_position_zero_only_what_comes_is_handled(
    nats_server: NatsServer, nats_client: Client
) -> None:
    await ensure_streams(nats_client.jetstream(), [RCA_VERDICTS])
    await publish(nats_client, b"old")
    handled = Handled()
    async with following(nats_server, handled, 0) as context:
        await eventually(lambda: not context.health.reasons())
        await publish(nats_client, b"new")
        await eventually(lambda: handled.numbers)
    assert handled.numbers == [b"new"]


async def test_a_stream_that_comes_later_or_begins_anew_is_read_from_its_start(
    nats_server: NatsServer, nats_client: Client
) -> None:
    handled = Handled()
    jetstream = nats_client.jetstream()
    async with following(nats_server, handled, 0) as context:
        await eventually(lambda: not context.health.reasons())
        await ensure_streams(jetstream, [RCA_VERDICTS])
        await publish(nats_client, b"1", b"2", b"3")
        await eventually(lambda: len(handled.numbers) == 3)
        await jetstream.delete_stream(RCA_VERDICTS)
        await ensure_streams(jetstream, [RCA_VERDICTS])
        await publish(nats_client, *(b"new %d" % number for number in range(8)))
        await eventually(lambda: len(handled.numbers) == 11)
    assert handled.numbers[3:] == [b"new %d" % number for number in range(8)]


async def test_what_is_malformed_or_meets_a_bug_is_counted_and_holds_nothing_up(
    nats_server: NatsServer, nats_client: Client
) -> None:
    await ensure_streams(nats_client.jetstream(), [RCA_VERDICTS])
    await publish(nats_client, b"malformed", b"later", b"bug", b"last")
    malformed, failed = counted("messages_malformed_total"), counted("messages_failed_total")
    handled = Handled()
    async with following(nats_server, handled):
        await eventually(lambda: b"last" in handled.numbers)
    assert handled.numbers == [b"later", b"last"]
    assert handled.attempts.count(b"later") == 3
    assert counted("messages_malformed_total") == malformed + 2
    assert counted("messages_failed_total") == failed + 5


async def test_while_nats_is_away_it_is_not_ready_and_then_goes_on(
    nats_server: NatsServer, nats_client: Client
) -> None:
    await ensure_streams(nats_client.jetstream(), [RCA_VERDICTS])
    handled = Handled()
    async with following(nats_server, handled) as context:
        await publish(nats_client, b"1")
        await eventually(lambda: handled.numbers)
        nats_server.stop()
        await eventually(lambda: f"reader of {RCA_VERDICTS}" in context.health.reasons())
        nats_server.start()
        await eventually(lambda: nats_client.is_connected)
        await publish(nats_client, b"2")
        await eventually(lambda: len(handled.numbers) == 2)
        await eventually(lambda: not context.health.reasons())


async def test_a_stream_of_that_name_that_is_something_else_is_said_to_be(
    nats_server: NatsServer, nats_client: Client
) -> None:
    await nats_client.jetstream().add_stream(StreamConfig(name=RCA_VERDICTS, subjects=["other"]))
    async with following(nats_server, Handled()) as context:
        part = f"reader of {RCA_VERDICTS}"
        await eventually(lambda: "other" in context.health.reasons().get(part, ""))
