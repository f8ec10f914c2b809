"""The influx-writer as its tests run it, and what they publish."""

import asyncio
import contextlib
from collections.abc import AsyncIterator

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from conftest import enriched_batch, flow_row, header
from flowverdict_contracts import enriched
from flowverdict_contracts.subjects import FLOWS_ENRICHED, SUBJECT_ENRICHED
from flowverdict_influx_writer import server
from flowverdict_influx_writer.settings import InfluxWriterSettings
from flowverdict_runtime.context import Context
from flowverdict_runtime.streams import ensure_streams

__all__ = ["acknowledged", "publish", "writing"]


@contextlib.asynccontextmanager
async def writing(settings: InfluxWriterSettings) -> AsyncIterator[Context]:
    """The service, until the block ends; then it must end, too."""
    context = Context()
    context.health.ready("start")
    task = asyncio.create_task(server.run(settings, context))
    try:
        yield context
    finally:
        context.stopping.set()
        await asyncio.wait_for(task, 20)


async def publish(client: Client, first: int, count: int, second: float = 1_000_000) -> None:
    """Messages with one pair each; the n-th has n segments, and is of n seconds after `second`."""
    jetstream = client.jetstream()
    await ensure_streams(jetstream)
    for number in range(first, first + count):
        batch = enriched_batch(flow_row("pod-a", f"pod-{number % 3}", segments_sent=number))
        headers = header(second + number, number).encode(enriched.SCHEMA)
        await jetstream.publish(SUBJECT_ENRICHED, enriched.encode(batch), headers=headers)


async def acknowledged(client: Client) -> bool:
    """Whether the influx-writer has acknowledged all that was published."""
    try:
        info = await client.jetstream().consumer_info(FLOWS_ENRICHED, "influx-writer")
    except NotFoundError:
        return False
    return (info.num_pending, info.num_ack_pending) == (0, 0)
