"""Messages of a position, on a real NATS server."""

import asyncio

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js.api import KeyValueConfig

from conftest import NatsServer
from flowverdict_contracts.subjects import FLOWS_ENRICHED, SUBJECT_ENRICHED
from flowverdict_runtime.kept_state import InOrder, pull_from_sequence
from flowverdict_runtime.streams import ensure_streams
from flowverdict_runtime.unfinished import Unfinished


async def test_messages_that_never_arrived_are_missed_even_if_none_follows(
    nats_server: NatsServer, nats_client: Client
) -> None:
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream, [FLOWS_ENRICHED])
    bucket = await jetstream.create_key_value(KeyValueConfig(bucket="state"))
    in_order = InOrder(await Unfinished.open(bucket, 1))
    pull = await pull_from_sequence(jetstream, FLOWS_ENRICHED, "test", 1, 100)
    for number in range(3):
        await jetstream.publish(SUBJECT_ENRICHED, b"%d" % number)
    (first,) = await pull.fetch(1)
    assert not await in_order.has_all(pull), "it has not been handled"
    assert await in_order.handle(first, lambda _: None)
    assert await in_order.has_all(pull), "what was not delivered is not missing"
    other = await jetstream.pull_subscribe_bind("test", FLOWS_ENRICHED)
    assert len(await other.fetch(2)) == 2
    assert not await in_order.has_all(pull), "they may be on their way"
    with pytest.raises(NatsError, match="2 messages were delivered and did not arrive"):
        await asyncio.wait_for(in_order.has_all(pull), 10)
