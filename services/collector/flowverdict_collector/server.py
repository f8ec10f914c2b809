"""The collector: loads the programs, then publishes once per interval."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from nats.js import JetStreamContext
from prometheus_client import Counter

from flowverdict_collector.check import check
from flowverdict_collector.kernel import describe
from flowverdict_collector.kernel_log import KernelLog
from flowverdict_collector.loader import Loaded, Loader
from flowverdict_collector.namespaces import Namespaces
from flowverdict_collector.pins import Pins, PinsError
from flowverdict_collector.publisher import REQUIRED_MAPS, Publisher
from flowverdict_collector.removal import Removal
from flowverdict_collector.settings import CollectorSettings
from flowverdict_contracts.kernel_reports import KernelReport
from flowverdict_contracts.subjects import FLOWS_RAW
from flowverdict_runtime.context import Context
from flowverdict_runtime.lifecycle import Service
from flowverdict_runtime.nats_connection import connected

__all__ = ["SERVICE", "run"]

log = logging.getLogger(__name__)

_NOT_COUNTED = "nothing is counted while no collector runs on this node"

_SKIPPED = Counter(
    "flowverdict_collector_skipped_runs_total",
    "Runs of a program that the kernel skipped because it was already running on that CPU, known"
    " since Linux 5.12. The next event of the same connection usually makes up for it.",
    ["tracepoint"],
)


async def run(settings: CollectorSettings, context: Context, loader: Loader | None = None) -> None:
    """Publish every interval until the service stops, then whatever is left.

    Only `loader` needs privileges; without one, its process is started with those of this one.
    """
    context.health.waiting("kernel", "loading the eBPF programs")
    pins, claim = await _claimed_pins(settings, context)
    if context.stopping.is_set():
        return
    removal = await asyncio.to_thread(Removal) if pins is not None else None
    try:
        await _count(loader or Loader(), settings, context, pins, claim)
    finally:
        is_stopping = context.stopping.is_set()
        if pins and removal and is_stopping and await asyncio.to_thread(removal.is_under_way):
            pins.remove_node()
            log.info("Kubernetes is removing the collector: nothing stays pinned")


async def _count(
    loader: Loader,
    settings: CollectorSettings,
    context: Context,
    pins: Pins | None,
    claim: int | None,
) -> None:
    loaded = await asyncio.to_thread(
        loader.load,
        settings.options,
        pins,
        claim=claim,
    )
    for tracepoint, why in loaded.missing.items():
        log.warning("not attached: %s", why, extra={"tracepoint": tracepoint})
    if loaded.unpinned:
        log.warning("%s: %s", _NOT_COUNTED, loaded.unpinned)
    namespaces = Namespaces(loaded, settings.network_namespaces)
    publisher = Publisher(
        settings.node,
        loaded.maps,
        namespaces.counted,
        loaded.drain,
        lambda: sum(map(_skipped_runs, loaded.programs.values())),
        _kernel_reports(),
    )
    log.info(
        "counting" if publisher.is_new else "counting on, with what the last collector left",
        extra={
            "node": settings.node,
            "tracepoints": len(loaded.attached),
            "run_id": publisher.run_id,
        },
    )
    context.health.ready("kernel")
    async with connected(settings, f"collector {settings.node}", context, [FLOWS_RAW]) as jetstream:
        if jetstream is not None and await _publish_ended_sets(
            jetstream, context, settings.node, pins, loaded.pins, namespaces.counted
        ):
            await _publish_until_stopped(settings, context, jetstream, loaded, publisher)


async def _publish_until_stopped(
    settings: CollectorSettings,
    context: Context,
    jetstream: JetStreamContext,
    loaded: Loaded,
    publisher: Publisher,
) -> None:
    skipped = {name: _skipped_runs(each) for name, each in loaded.programs.items()}
    last, stored = False, True
    while stored and not last:
        await context.pause(_until_next(settings.interval_seconds))
        # The last interval also includes what is counted while this one is published.
        last = context.stopping.is_set()
        stored = await publisher.publish(jetstream, context)
        for tracepoint, program in loaded.programs.items():
            runs = _skipped_runs(program)
            _SKIPPED.labels(tracepoint).inc(runs - skipped[tracepoint])
            skipped[tracepoint] = runs
    if not stored:
        _say_what_is_left(publisher, loaded)


def _kernel_reports() -> Callable[[], tuple[KernelReport, ...]]:
    try:
        return KernelLog().read
    except OSError as error:
        log.info("the kernel log may not be read, so it is left out: %s", error)
        return tuple


def _skipped_runs(program: int) -> int:
    return describe(program).get("recursion_misses", 0)


def _until_next(interval_seconds: float) -> float:
    """Seconds to the next whole interval, so that all nodes' intervals line up."""
    return interval_seconds - time.time() % interval_seconds


async def _claimed_pins(
    settings: CollectorSettings, context: Context
) -> tuple[Pins | None, int | None]:
    """The node's pins, once no other collector uses them, and the claim; None if nothing can be
    pinned.
    """
    if not settings.pin_directory:
        return None, None
    try:
        pins = Pins.of_node(Path(settings.pin_directory), settings.node)
        # Held until the process ends.
        while (claim := pins.claim()) is None and not context.stopping.is_set():
            context.health.waiting("kernel", f"another collector still uses {pins.folder}")
            await context.pause(0.2)
    except PinsError as error:
        log.warning("%s: %s", _NOT_COUNTED, error)
        return None, None
    return pins, claim


async def _publish_ended_sets(
    jetstream: JetStreamContext,
    context: Context,
    node: str,
    pins: Pins | None,
    current: Pins | None,
    counted: Callable[[bytes, int], bytes],
) -> bool:
    """Publish what versions with other maps left behind, and free it; False if NATS did not
    store all.
    """
    for ended in pins.sets() if pins else ():
        if ended == current:
            continue
        maps = ended.get_all("map-")
        if maps.keys() >= REQUIRED_MAPS | {"control"}:  # or else they were never counted into
            publisher = Publisher(node, maps, counted)
            if not await publisher.publish_all(jetstream, context):
                return False
            log.info(
                "published what an earlier version counted", extra={"run_id": publisher.run_id}
            )
        for descriptor in maps.values():
            os.close(descriptor)
        ended.remove_all()
    return True


def _say_what_is_left(publisher: Publisher, loaded: Loaded) -> None:
    extra = {"flows": publisher.unpublished()}
    if loaded.pins is None:
        log.error("stopping with counts that NATS did not store", extra=extra)
    else:
        log.warning("NATS did not store these counts: the next collector will", extra=extra)


SERVICE = Service(
    name="collector",
    purpose="Counts this node's TCP flows in the kernel with eBPF and publishes them to NATS.",
    settings=CollectorSettings,
    run=run,
    check=check,
)
