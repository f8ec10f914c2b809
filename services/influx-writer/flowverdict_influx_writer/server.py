"""The influx-writer: writes what enriched messages count, and every verdict."""

import asyncio

from flowverdict_contracts import verdicts
from flowverdict_contracts.subjects import FLOWS_ENRICHED, RCA_VERDICTS
from flowverdict_influx_writer.check import check_database
from flowverdict_influx_writer.database import Database
from flowverdict_influx_writer.points import verdict_point
from flowverdict_influx_writer.progress import ProgressStore
from flowverdict_influx_writer.settings import InfluxWriterSettings
from flowverdict_influx_writer.store_size import watch_store
from flowverdict_influx_writer.writing import Writing
from flowverdict_influx_writer.written import WrittenVerdicts
from flowverdict_runtime.consumer import consume
from flowverdict_runtime.context import Context
from flowverdict_runtime.following import Reader, follow
from flowverdict_runtime.lifecycle import Service
from flowverdict_runtime.nats_connection import connected
from flowverdict_runtime.one_shot import check_nats
from flowverdict_runtime.stored_messages import StoredMessage

__all__ = ["SERVICE"]


async def run(settings: InfluxWriterSettings, context: Context) -> None:
    """Write until the service stops."""
    database = Database(settings, context)
    try:
        async with connected(settings, "influx-writer", context, [FLOWS_ENRICHED]) as jetstream:
            if jetstream is None:
                return
            replicas = context.streams.stream_replicas
            progress = ProgressStore(jetstream, replicas)
            written = WrittenVerdicts(jetstream, replicas)

            async def subscribe(before: Writing | None) -> Writing:
                return await Writing.open(jetstream, context, database, progress, before)

            async def write_verdict(message: StoredMessage) -> bool:
                point = verdict_point(verdicts.decode(message.data))
                if not await database.store(point, 1):
                    return False
                await written.written(message.sequence)
                return True

            await asyncio.gather(
                consume(jetstream, context, FLOWS_ENRICHED, subscribe),
                follow(
                    jetstream, context, RCA_VERDICTS, Reader(written.next_sequence, write_verdict)
                ),
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
