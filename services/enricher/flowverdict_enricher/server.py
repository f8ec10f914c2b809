"""The enricher: a source of names, then one enriched message for each raw one."""

import asyncio
import gc
import time
from pathlib import Path

from nats.aio.client import Client
from prometheus_client import Gauge

from flowverdict_contracts.subjects import FLOWS_ENRICHED, FLOWS_RAW, SUBJECT_RAW_ALL
from flowverdict_enricher import containers, inventory, kubernetes
from flowverdict_enricher.directory import Directory
from flowverdict_enricher.enriching import Enriching
from flowverdict_enricher.settings import EnricherSettings
from flowverdict_runtime.context import CannotRun, Context
from flowverdict_runtime.lifecycle import Service
from flowverdict_runtime.nats_connection import connected
from flowverdict_runtime.one_shot import check_nats
from flowverdict_runtime.settings import SettingsError

__all__ = ["SERVICE"]

_OWNERS = Gauge("flowverdict_enricher_names", "Pods, nodes and services that have an address.")
_FORGET_SECONDS = 60
_COLLECT_AFTER = 50_000, 20, 50
"""When Python looks for cycles (gc.set_threshold): names form none, but are a million objects."""


def _follow_names(
    settings: EnricherSettings, directory: Directory, context: Context
) -> asyncio.Task[None]:
    context.health.waiting("names", f"reading from {settings.names}")
    where = directory, context, settings.labels
    if settings.names == "kubernetes":
        return asyncio.create_task(kubernetes.follow(settings.kubeconfig, *where))
    if settings.names == "docker":
        return asyncio.create_task(containers.follow(settings.docker_url, *where))
    if not settings.inventory:
        raise SettingsError(
            "FLOWVERDICT_INVENTORY is not set; FLOWVERDICT_NAMES=inventory requires it"
        )
    inventory.read(Path(settings.inventory))
    return asyncio.create_task(inventory.follow(Path(settings.inventory), *where))


async def _forget(directory: Directory) -> None:
    while True:
        await asyncio.sleep(_FORGET_SECONDS)
        directory.forget(time.time_ns())


async def run(settings: EnricherSettings, context: Context) -> None:
    """Enrich every raw message until the service stops."""
    gc.set_threshold(*_COLLECT_AFTER)
    directory = Directory()
    _OWNERS.set_function(lambda: len(directory))
    names = _follow_names(settings, directory, context)
    forgetting = asyncio.create_task(_forget(directory))
    enriching = Enriching(context, directory)
    try:
        streams = (FLOWS_RAW, FLOWS_ENRICHED)

        async def hear_all(client: Client) -> None:
            await client.subscribe(SUBJECT_RAW_ALL, cb=enriching.hear)

        async with connected(settings, "enricher", context, streams, hear_all) as jetstream:
            # A flow enriched before the names are known would stay unknown.
            while "names" in context.health.reasons() and not context.stopping.is_set():
                if names.done():
                    names.result()
                await context.pause(0.1)
            if jetstream is not None:
                await enriching.all_of(jetstream)
    finally:
        forgetting.cancel()
        context.stopping.set()
        await names


async def check(settings: EnricherSettings) -> int:
    """Print whether names and NATS are available; 0 if both are."""
    broken = 0
    if settings.names == "inventory":
        try:
            found = inventory.read(Path(settings.inventory))
            print(f"ok       inventory: {len(found.pods)} pods on {len(found.nodes)} nodes")
        except CannotRun as error:
            print(f"broken   {error}")
            broken = 1
    elif settings.names == "docker":
        broken = await asyncio.to_thread(containers.check, settings.docker_url)
    else:
        broken = await asyncio.to_thread(kubernetes.check, settings.kubeconfig)
    return max(broken, await check_nats(settings))


SERVICE = Service(
    name="enricher",
    purpose="Gives the flows that collectors publish their Kubernetes names.",
    settings=EnricherSettings,
    run=run,
    check=check,
)
