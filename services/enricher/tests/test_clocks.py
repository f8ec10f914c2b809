"""The enricher as a process, and collectors whose clocks are wrong."""

import asyncio
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nats.aio.client import Client
from nats.js import JetStreamContext

from conftest import NatsServer, eventually, running_enricher
from flowverdict_contracts import enriched, raw
from flowverdict_contracts.interval_header import SENT, IntervalHeader
from flowverdict_contracts.raw_records import RECORD
from flowverdict_contracts.subjects import FLOWS_ENRICHED, raw_subject
from flowverdict_runtime.streams import ensure_streams

SECOND = 1_000_000_000


@pytest.fixture
def log(nats_server: NatsServer, tmp_path: Path) -> Iterator[Path]:
    with running_enricher(nats_server.url, {"pods": []}, tmp_path / "enricher.log") as log:
        yield log


async def sent(jetstream: JetStreamContext, sequence: int, *, behind: int, waited: int) -> None:
    """Publish an interval of a second from a node whose clock is `behind` seconds, `waited` seconds
    after it ended.
    """
    now = time.time_ns() - behind * SECOND
    end = now - waited * SECOND
    header = IntervalHeader("n1", "run", sequence, end - SECOND, end)
    headers = header.encode(raw.SCHEMA) | {SENT: str(now)}
    await jetstream.publish(raw_subject("n1"), np.zeros(1, RECORD).tobytes(), headers=headers)


async def enriched_header(jetstream: JetStreamContext, number: int) -> IntervalHeader:
    """That of the message with this number."""

    async def stored() -> bool:
        return (await jetstream.stream_info(FLOWS_ENRICHED)).state.last_seq >= number

    await eventually(stored)
    message = await jetstream.get_msg(FLOWS_ENRICHED, number)
    return IntervalHeader.decode(message.headers, enriched.SCHEMA)


@pytest.mark.parametrize(("behind", "words"), [(120, "behind"), (-3600, "ahead of")])
async def test_what_a_node_with_a_wrong_clock_counts_is_dated_by_nats_and_the_node_is_named(
    log: Path, nats_client: Client, behind: int, words: str
) -> None:
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    for sequence in range(1, 6):
        await sent(jetstream, sequence, behind=behind, waited=0)
    header = await enriched_header(jetstream, 5)
    assert abs(header.end_ns - time.time_ns()) < 60 * SECOND
    assert header.end_ns - header.start_ns == SECOND
    assert round(header.clock_behind_ns / SECOND) == behind
    sentence = f"the clock of node n1 is {abs(behind)} s {words} that of NATS"
    await eventually(lambda: sentence in log.read_text())


async def test_an_interval_that_nats_could_not_take_at_once_keeps_its_time(
    log: Path, nats_client: Client
) -> None:
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    for sequence in range(1, 7):
        await sent(jetstream, sequence, behind=0, waited=300)
    header = await enriched_header(jetstream, 6)
    assert header.clock_behind_ns == 0
    assert time.time_ns() - header.end_ns > 299 * SECOND
    assert "clock" not in log.read_text()


async def test_messages_that_take_long_do_not_make_a_clock_wrong(
    log: Path, nats_client: Client
) -> None:
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    # What is stored 20 s after it was sent looks as what a clock sends that is 20 s behind.
    for sequence, took in enumerate((20, 18, 15, 12, 0, 0, 0), 1):
        await sent(jetstream, sequence, behind=took, waited=0)
        header = await enriched_header(jetstream, sequence)
        assert header.clock_behind_ns == 0
    assert "clock" not in log.read_text()


async def test_a_clock_that_was_ahead_and_is_right_again_dates_its_next_interval_itself(
    log: Path, nats_client: Client
) -> None:
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    for sequence, behind in enumerate((-120, -120, 0, 0), 1):
        await sent(jetstream, sequence, behind=behind, waited=0)
        header = await enriched_header(jetstream, sequence)
        assert round(header.clock_behind_ns / SECOND) == behind
        assert abs(header.end_ns - time.time_ns()) < 60 * SECOND


async def test_a_clock_that_is_set_back_costs_no_interval(log: Path, nats_client: Client) -> None:
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    for sequence, behind in enumerate((0, 0, 120, 120), 1):
        await sent(jetstream, sequence, behind=behind, waited=0)
        header = await enriched_header(jetstream, sequence)
        assert round(header.clock_behind_ns / SECOND) == behind
        assert abs(header.end_ns - time.time_ns()) < 60 * SECOND


async def test_the_clock_of_a_sender_that_does_not_say_when_it_sends_is_known_by_its_intervals(
    log: Path, nats_client: Client
) -> None:
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    for sequence in range(1, 7):
        end = time.time_ns() - 90 * SECOND
        header = IntervalHeader("n1", "run", sequence, end - SECOND, end)
        body = np.zeros(1, RECORD).tobytes()
        await jetstream.publish(raw_subject("n1"), body, headers=header.encode(raw.SCHEMA))
        await asyncio.sleep(0.7)  # as fast as its own clock, or it could be what was left behind
    header = await enriched_header(jetstream, 6)
    assert round(header.clock_behind_ns / SECOND) == 90
    await eventually(lambda: "the clock of node n1 is 90 s behind that of NATS" in log.read_text())
