"""The exporter: adds up every enriched message and tracks the open incidents."""

import asyncio
import time

from prometheus_client import REGISTRY

from flowverdict_contracts import verdicts
from flowverdict_contracts.subjects import FLOWS_ENRICHED, RCA_VERDICTS
from flowverdict_exporter.adding import Adding, Totals
from flowverdict_exporter.incidents import Incidents
from flowverdict_exporter.lookups import Lookups
from flowverdict_exporter.nats_servers import NatsServers
from flowverdict_exporter.nodes import Nodes
from flowverdict_exporter.series import PairSeries
from flowverdict_exporter.services import Services
from flowverdict_exporter.settings import ExporterSettings
from flowverdict_runtime.consumer import consume
from flowverdict_runtime.context import Context
from flowverdict_runtime.following import Reader, follow
from flowverdict_runtime.lifecycle import Service
from flowverdict_runtime.nats_connection import connected
from flowverdict_runtime.one_shot import check_nats
from flowverdict_runtime.retry import Unavailable
from flowverdict_runtime.stored_messages import StoredMessage

__all__ = ["SERVICE"]


async def run(settings: ExporterSettings, context: Context) -> None:
    """Add up every enriched message until the service stops."""
    incidents, nodes = Incidents(), Nodes()
    lookups, services = Lookups(settings.expire_seconds), Services(settings.expire_seconds)
    series = PairSeries(
        settings.series_budget,
        settings.expire_seconds,
        histograms=settings.pair_histograms == "on",
    )
    totals = Totals(series, nodes, lookups, services, incidents)
    context.health.more_metrics = totals.text
    for each in (incidents, nodes, lookups, services):
        REGISTRY.register(each)

    async def add_verdict(message: StoredMessage) -> bool:
        incidents.next_sequence = message.sequence + 1
        age_seconds = max(0.0, time.time() - message.stored_ns / 1e9)
        incidents.add(verdicts.decode(message.data), age_seconds)
        return True

    servers = NatsServers()
    REGISTRY.register(servers)
    async with connected(
        settings, "exporter", context, [FLOWS_ENRICHED], servers.listen
    ) as jetstream:
        if jetstream is not None:

            async def subscribe(before: Adding | None) -> Adding:
                return await Adding.open(jetstream, context, totals, before)

            async def next_verdict() -> int:
                if not totals.restored.is_set():
                    raise Unavailable("waiting for the totals that were kept")
                return incidents.next_sequence

            reader = Reader(next_verdict, add_verdict, incidents.caught_up, incidents.renewed)
            await asyncio.gather(
                consume(jetstream, context, FLOWS_ENRICHED, subscribe),
                follow(jetstream, context, RCA_VERDICTS, reader),
                servers.ask(context),
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
