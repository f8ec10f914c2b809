"""A message that kills whoever handles it is left out in the end, and no other."""

import pytest
from nats.aio.client import Client
from nats.js.kv import KeyValue

from flowverdict_runtime.kept_state import state_bucket
from flowverdict_runtime.unfinished import Unfinished

POISON = 7


@pytest.fixture
async def bucket(nats_client: Client) -> KeyValue:
    return await state_bucket(nats_client.jetstream(), "some_state", 1)


async def killed_at(bucket: KeyValue, poison: int, start: int = 1) -> int | None:
    """Reads from `start` on; returns the message at which it is killed, None if at none."""
    unfinished = await Unfinished.open(bucket, start)
    for sequence in range(start, 20):
        if not await unfinished.may_handle(sequence):
            assert sequence == poison
            continue
        if sequence == poison:
            return sequence
        await unfinished.handled()
    return None


async def test_a_message_that_kills_its_reader_each_time_is_left_out(bucket: KeyValue) -> None:
    deaths = 0
    while await killed_at(bucket, POISON) is not None:
        deaths += 1
        assert deaths < 10
    assert deaths == 6, "three before it is noted, three noted"


async def test_no_message_is_left_out_for_deaths_at_others(bucket: KeyValue) -> None:
    for poison in (3, 5, 9, 11, 3, 5, 9, 11):
        assert await killed_at(bucket, poison) == poison


async def test_after_progress_a_reader_is_no_longer_cautious(bucket: KeyValue) -> None:
    for _ in range(6):
        await killed_at(bucket, POISON)
    unfinished = await Unfinished.open(bucket, 1)
    assert not await unfinished.may_handle(POISON)
    await unfinished.progress(POISON + 1)
    before = await bucket.status()
    for sequence in range(POISON + 1, POISON + 5):
        assert await unfinished.may_handle(sequence)
        await unfinished.handled()
    assert (await bucket.status()).values == before.values
    assert await killed_at(bucket, 0, POISON + 1) is None


async def test_what_else_is_in_its_place_does_no_harm(bucket: KeyValue) -> None:
    await bucket.put("unfinished", b"{")
    assert await (await Unfinished.open(bucket, 1)).may_handle(1)
