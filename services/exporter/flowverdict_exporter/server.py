"""The exporter: adds up every enriched message and tracks the open incidents."""

import asyncio
import uuid

from nats.aio.msg import Msg
from prometheus_client import REGISTRY

from flowverdict_contracts import verdicts
from flowverdict_contracts.subjects import FLOWS_ENRICHED, RCA_VERDICTS
from flowverdict_exporter.adding import Adding, Totals
from flowverdict_exporter.incidents import Incidents
from flowverdict_exporter.lookups import Lookups
from flowverdict_exporter.nodes import Nodes
from flowverdict_exporter.series import PairSeries
from flowverdict_exporter.settings import ExporterSettings
from flowverdict_runtime.consumer import consume, consume_each
from flowverdict_runtime.context import Context
from flowverdict_runtime.lifecycle import Service
from flowverdict_runtime.nats_connection import connected
from flowverdict_runtime.one_shot import check_nats
from flowverdict_runtime.retry import Unavailable

__all__ = ["SERVICE"]


async def run(settings: ExporterSettings, context: Context) -> None:
    """Add up every enriched message until the service stops."""
    incidents, nodes, lookups = Incidents(), Nodes(), Lookups(settings.expire_seconds)
    series = PairSeries(settings.series_budget, settings.expire_seconds)
    totals = Totals(series, nodes, lookups, incidents)
    context.health.more_metrics = totals.text
    for each in (incidents, nodes, lookups):
        REGISTRY.register(each)

    async def add_verdict(message: Msg) -> bool:
        incidents.next_sequence = message.metadata.sequence.stream + 1
        incidents.add(verdicts.decode(message.data))
        return True

    streams = (FLOWS_ENRICHED, RCA_VERDICTS)
    async with connected(settings, "exporter", context, streams) as jetstream:
        if jetstream is not None:

            async def subscribe(before: Adding | None) -> Adding:
                return await Adding.open(jetstream, context, totals, before)

            def next_verdict() -> int:
                if not totals.restored.is_set():
                    raise Unavailable("waiting for the totals that were kept")
                return incidents.next_sequence

            # Every exporter needs every verdict, so each process has its own consumer.
            verdict_consumer = f"exporter-{uuid.uuid4().hex[:12]}"
            await asyncio.gather(
                consume(context, FLOWS_ENRICHED, subscribe),
                consume_each(
                    jetstream, context, RCA_VERDICTS, verdict_consumer, add_verdict, next_verdict
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
