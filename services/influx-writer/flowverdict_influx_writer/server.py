"""The influx-writer: writes every enriched message and every verdict, then acknowledges it."""

import asyncio

from nats.aio.msg import Msg
from prometheus_client import Counter

from flowverdict_contracts import enriched, verdicts
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.subjects import FLOWS_ENRICHED, RCA_VERDICTS
from flowverdict_influx_writer.check import check_database
from flowverdict_influx_writer.database import Database
from flowverdict_influx_writer.points import FlowPoints, verdict_point
from flowverdict_influx_writer.settings import InfluxWriterSettings
from flowverdict_influx_writer.store_size import watch_store
from flowverdict_influx_writer.written import WrittenVerdicts
from flowverdict_runtime.consumer import consume_each
from flowverdict_runtime.context import Context
from flowverdict_runtime.following import follow
from flowverdict_runtime.lifecycle import Service
from flowverdict_runtime.nats_connection import connected
from flowverdict_runtime.one_shot import check_nats
from flowverdict_runtime.stored_messages import StoredMessage

__all__ = ["SERVICE"]

_DURABLE = "influx-writer"
_ROWS = Counter("flowverdict_influx_rows_total", "Flow rows received.")


async def run(settings: InfluxWriterSettings, context: Context) -> None:
    """Write until the service stops."""
    points = FlowPoints()
    database = Database(settings, context)

    async def write_flows(message: Msg) -> bool:
        header = IntervalHeader.decode(message.headers, enriched.SCHEMA)
        batch = enriched.decode(message.data)
        stored = await database.store(*points.lines(header, batch))
        if stored:
            _ROWS.inc(batch.num_rows)
        return stored

    try:
        async with connected(settings, _DURABLE, context, [FLOWS_ENRICHED]) as jetstream:
            if jetstream is None:
                return
            written = WrittenVerdicts(jetstream, context.streams.stream_replicas)

            async def write_verdict(message: StoredMessage) -> bool:
                point = verdict_point(verdicts.decode(message.data))
                if not await database.store(point, 1):
                    return False
                await written.written(message.sequence)
                return True

            await asyncio.gather(
                consume_each(jetstream, context, FLOWS_ENRICHED, _DURABLE, write_flows),
                follow(jetstream, context, RCA_VERDICTS, written.next_sequence, write_verdict),
                watch_store(settings, context),
            )
    finally:
        database.close()


async def check(settings: InfluxWriterSettings) -> int:
    """Print whether NATS and InfluxDB are available; 0 if both are."""
    nats_status = await check_nats(settings)
    return max(nats_status, await asyncio.to_thread(check_database, settings))


SERVICE = Service(
    name="influx-writer",
    purpose="Writes named flows by pair of addresses, and verdicts, to InfluxDB 2.",
    settings=InfluxWriterSettings,
    run=run,
    check=check,
)
