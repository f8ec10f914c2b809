"""The influx-writer as its tests run it, and what they publish."""

import contextlib
import json
import zlib
from collections.abc import AsyncIterator

from nats.aio.client import Client
from nats.js.errors import NotFoundError

from conftest import enriched_batch, flow_row, header, running
from flowverdict_contracts import enriched
from flowverdict_contracts.signals import SLOT_SECONDS
from flowverdict_contracts.subjects import (
    FLOWS_ENRICHED,
    INFLUX_WRITER_STATE_BUCKET,
    SUBJECT_ENRICHED,
)
from flowverdict_influx_writer import server
from flowverdict_influx_writer.settings import InfluxWriterSettings
from flowverdict_runtime.context import Context
from flowverdict_runtime.streams import ensure_streams

__all__ = ["HOLD", "all_written", "publish", "writing"]


HOLD = "flowverdict_influx_writer.writing._HOLD_SECONDS"
"""How long slots stay open, which most tests make short."""


@contextlib.asynccontextmanager
async def writing(settings: InfluxWriterSettings) -> AsyncIterator[Context]:
    """The service, until the block ends; then it must end, too."""
    context = Context()
    context.health.ready("start")
    async with running(context, server.run(settings, context)):
        yield context


async def publish(client: Client, first: int, count: int, second: float = 1_000_000) -> None:
    """Messages with one pair each; the n-th has n segments, in the n-th slot after `second`."""
    jetstream = client.jetstream()
    await ensure_streams(jetstream)
    for number in range(first, first + count):
        batch = enriched_batch(flow_row("pod-a", f"pod-{number % 3}", segments_sent=number))
        headers = header(second + SLOT_SECONDS * number, number).encode(enriched.SCHEMA)
        await jetstream.publish(SUBJECT_ENRICHED, enriched.encode(batch), headers=headers)


async def all_written(client: Client) -> bool:
    """Whether the influx-writer has noted all flows that were published as written."""
    jetstream = client.jetstream()
    try:
        bucket = await jetstream.key_value(INFLUX_WRITER_STATE_BUCKET)
        kept = json.loads(zlib.decompress((await bucket.get("flows")).value or b""))["progress"]
        last = (await jetstream.stream_info(FLOWS_ENRICHED)).state.last_seq
    except NotFoundError:
        return False
    return kept["next"] is None and kept["resume_from"] == last + 1
