"""The exporter: adds up every enriched message and tracks the open incidents."""

import asyncio
import uuid

from nats.aio.msg import Msg
from prometheus_client import REGISTRY, Counter

from flowverdict_contracts import enriched, verdicts
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.subjects import FLOWS_ENRICHED, RCA_VERDICTS
from flowverdict_exporter.incidents import Incidents
from flowverdict_exporter.nodes import Nodes
from flowverdict_exporter.series import PairSeries
from flowverdict_exporter.settings import ExporterSettings
from flowverdict_runtime.consumer import consume_each
from flowverdict_runtime.context import Context
from flowverdict_runtime.lifecycle import Service
from flowverdict_runtime.nats_connection import connected
from flowverdict_runtime.one_shot import check_nats

__all__ = ["SERVICE"]

_ROWS = Counter("flowverdict_exporter_rows_total", "Flow rows added to the totals.")


async def run(settings: ExporterSettings, context: Context) -> None:
    """Add up every enriched message until the service stops."""
    series = PairSeries(settings.series_budget, settings.expire_seconds)
    incidents = Incidents()
    nodes = Nodes()
    context.health.more_metrics = series.text
    REGISTRY.register(incidents)
    REGISTRY.register(nodes)

    async def add_flows(message: Msg) -> bool:
        header = IntervalHeader.decode(message.headers, enriched.SCHEMA)
        batch = enriched.decode(message.data)
        series.add(batch)
        _ROWS.inc(batch.num_rows)
        nodes.add(header)
        return True

    async def add_verdict(message: Msg) -> bool:
        incidents.add(verdicts.decode(message.data))
        return True

    streams = (FLOWS_ENRICHED, RCA_VERDICTS)
    async with connected(settings, "exporter", context, streams) as jetstream:
        if jetstream is not None:
            # Every exporter needs every verdict, so each process has its own consumer.
            verdict_consumer = f"exporter-{uuid.uuid4().hex[:12]}"
            await asyncio.gather(
                consume_each(jetstream, context, FLOWS_ENRICHED, "exporter", add_flows),
                consume_each(
                    jetstream, context, RCA_VERDICTS, verdict_consumer, add_verdict, only_new=True
                ),
            )


async def check(settings: ExporterSettings) -> int:
    """Print whether NATS is available; 0 if it is."""
    return await check_nats(settings)


SERVICE = Service(
    name="exporter",
    purpose="Serves named flows to Prometheus, by pair of addresses.",
    settings=ExporterSettings,
    run=run,
    check=check,
)
