"""The collector: loads the programs, then drains and publishes once per interval."""

import asyncio
import logging
import time
import uuid
from dataclasses import dataclass, field

from nats.js import JetStreamContext
from prometheus_client import Counter, Gauge

from flowverdict_collector.check import check
from flowverdict_collector.intervals import Intervals
from flowverdict_collector.kernel import FlowMaps, Lost, statistics
from flowverdict_collector.loader import load
from flowverdict_collector.namespaces import Namespaces
from flowverdict_collector.settings import CollectorSettings
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.raw import RECORD_BYTES, SCHEMA
from flowverdict_contracts.subjects import FLOWS_RAW, raw_subject
from flowverdict_runtime.context import Context
from flowverdict_runtime.lifecycle import Service
from flowverdict_runtime.nats_connection import connected
from flowverdict_runtime.streams import publish_until_stored

__all__ = ["SERVICE"]

log = logging.getLogger(__name__)

PART_RECORDS = 2048
"""Records per message: once enriched, it is still below NATS' default limit of 1 MB."""

_FLOWS = Counter("flowverdict_collector_flows_total", "Flow records published.")
_INTERVALS = Counter("flowverdict_collector_intervals_total", "Intervals published.")
_LOST = Counter(
    "flowverdict_collector_lost_total", "Items that did not fit in the kernel maps.", ["what"]
)
_SKIPPED = Counter(
    "flowverdict_collector_skipped_runs_total",
    "Runs of a program that the kernel skipped because it was already running on that CPU, known"
    " since Linux 5.12. The next event of the same connection usually makes up for it.",
    ["tracepoint"],
)
_INTERVAL = Gauge(
    "flowverdict_collector_interval_seconds",
    "Length of the last interval; grows while NATS is unavailable and the kernel keeps counting.",
)
_DRAIN = Gauge("flowverdict_collector_drain_seconds", "Time the last drain of the kernel map took.")


@dataclass(slots=True)
class Run:
    """One run of the collector: its id, its intervals, and the number of its last message."""

    node: str
    id: str
    sequence: int = 0
    intervals: Intervals = field(default_factory=Intervals)
    lost: Lost = Lost(0, 0)
    skipped: dict[str, int] = field(default_factory=dict)


async def run(settings: CollectorSettings, context: Context) -> None:
    """Publish every interval until the service stops, then whatever is left."""
    context.health.waiting("kernel", "loading the eBPF programs")
    loaded = await asyncio.to_thread(load, settings.max_flows, settings.max_flows)
    namespaces = Namespaces(loaded, settings.network_namespaces)
    maps = FlowMaps(loaded, namespaces.counted)
    this_run = Run(settings.node, uuid.uuid4().hex[:12])
    for tracepoint, why in loaded.missing.items():
        log.warning("not attached: %s", why, extra={"tracepoint": tracepoint})
    log.info(
        "counting",
        extra={"node": settings.node, "tracepoints": len(loaded.attached), "run_id": this_run.id},
    )
    context.health.ready("kernel")
    name = f"collector {settings.node}"
    async with connected(settings, name, context, [FLOWS_RAW]) as jetstream:
        if jetstream is None:
            return
        last, stored = False, True
        while stored and not last:
            await context.pause(_until_next(settings.interval_seconds))
            # The last interval also includes what is counted while this one is published.
            last = context.stopping.is_set()
            # While NATS is unavailable this does not return, and the kernel map keeps counting.
            stored = await _publish_interval(jetstream, context, maps, this_run)
            _count_skipped(loaded.programs, this_run)


def _count_skipped(programs: dict[str, int], this_run: Run) -> None:
    for tracepoint, program in programs.items():
        skipped = statistics(program).get("recursion_misses", 0)
        _SKIPPED.labels(tracepoint).inc(skipped - this_run.skipped.get(tracepoint, 0))
        this_run.skipped[tracepoint] = skipped


def _until_next(interval_seconds: float) -> float:
    """Seconds to the next whole interval, so that all nodes' intervals line up."""
    return interval_seconds - time.time() % interval_seconds


async def _publish_interval(
    jetstream: JetStreamContext, context: Context, maps: FlowMaps, this_run: Run
) -> bool:
    """Drain and publish; False if the service is stopping and NATS has not stored it."""
    began = time.monotonic()
    body = await asyncio.to_thread(maps.drain)
    start_ns, end_ns = this_run.intervals.next()
    lost = maps.lost()
    newly_lost, this_run.lost = lost - this_run.lost, lost
    _DRAIN.set(time.monotonic() - began)
    _LOST.labels("flow_updates").inc(newly_lost.flow_updates)
    _LOST.labels("sockets").inc(newly_lost.sockets)

    size = PART_RECORDS * RECORD_BYTES
    bodies = [body[at : at + size] for at in range(0, len(body), size)] or [b""]
    for number, part in enumerate(bodies, 1):
        this_run.sequence += 1
        header = IntervalHeader(
            node=this_run.node,
            run_id=this_run.id,
            sequence=this_run.sequence,
            start_ns=start_ns,
            end_ns=end_ns,
            part=number,
            parts=len(bodies),
            lost_flow_updates=newly_lost.flow_updates if number == 1 else 0,
            lost_sockets=newly_lost.sockets if number == 1 else 0,
        )
        subject = raw_subject(this_run.node)
        if not await publish_until_stored(jetstream, context, subject, part, header.encode(SCHEMA)):
            log.error(
                "stopping with counts that NATS did not store",
                extra={
                    "flows": sum(map(len, [*bodies[number - 1 :], maps.drain()])) // RECORD_BYTES
                },
            )
            return False
        _FLOWS.inc(len(part) // RECORD_BYTES)
    _INTERVALS.inc()
    _INTERVAL.set((end_ns - start_ns) / 1e9)
    return True


SERVICE = Service(
    name="collector",
    purpose="Counts this node's TCP flows in the kernel with eBPF and publishes them to NATS.",
    settings=CollectorSettings,
    run=run,
    check=check,
)
