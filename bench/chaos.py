"""Ten minutes in which a service is killed every few seconds; the kernel's counters are the judge.

The lab runs with 20% loss at one pod. Every few seconds the collector, the enricher, the exporter,
the RCA worker or NATS is killed with SIGKILL and started again. In the end the kernel, the raw
messages, the enriched ones and the exporter's page must have the same number of retransmissions.
"""

import asyncio
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

from nats.js import JetStreamContext

from bench.figure import CannotMeasure, Figure
from flowverdict_contracts import verdicts
from flowverdict_contracts.subjects import RCA_VERDICTS
from flowverdict_lab.cluster import make_cluster
from flowverdict_lab.faults import parse_fault
from flowverdict_lab.live_support import bpf_file_system, why_not_live
from flowverdict_lab.network import Network
from flowverdict_lab.pipeline import Pipeline
from tests.kernel_counts import (
    enriched_retransmissions,
    exported_retransmissions,
    jetstream_of,
    of_the_lab,
    read_all,
    records_of,
)

__all__ = ["measure"]

_SECONDS = 600
_PAUSE_SECONDS = (2.0, 6.0)
_SETTLED_SECONDS = 180


async def _until_equal(asked: Callable[[], Awaitable[tuple[int, ...]]]) -> tuple[int, ...]:
    """The numbers once they are all the same, or when there has been time enough."""
    deadline = time.monotonic() + _SETTLED_SECONDS
    while True:
        numbers = await asked()
        if len(set(numbers)) == 1 or time.monotonic() > deadline:
            return numbers
        await asyncio.sleep(1)


def _kill_at_random(pipeline: Pipeline, network: Network) -> dict[str, int]:
    chooser = random.Random(1)
    names = [*pipeline.services, "nats"]
    kills = dict.fromkeys(names, 0)
    fault = parse_fault("pod-loss", "pod-b", 20, network.cluster)
    network.start_traffic(10)
    fault.inject(network)
    end = time.monotonic() + _SECONDS
    while (left := end - time.monotonic()) > 0:
        time.sleep(min(left, chooser.uniform(*_PAUSE_SECONDS)))
        name = chooser.choice(names)
        pipeline.kill(name)
        if name == "nats":
            pipeline.start_nats()
        else:
            pipeline.start(name)
        kills[name] += 1
        text = ", ".join(f"{each} {count}" for each, count in kills.items())
        print(f"\r{max(0, left):4.0f} s left; killed: {text}", end="", file=sys.stderr, flush=True)
    print(file=sys.stderr)
    fault.remove(network)
    network.stop_traffic()
    pipeline.wait_ready()
    while network.tcp_total("CurrEstab"):
        time.sleep(0.1)
    return kills


async def _compare(pipeline: Pipeline, network: Network) -> list[Figure]:
    async with jetstream_of(pipeline) as jetstream:
        return await _figures(jetstream, pipeline, network)


async def _figures(
    jetstream: JetStreamContext, pipeline: Pipeline, network: Network
) -> list[Figure]:
    async def numbers() -> tuple[int, ...]:
        records = of_the_lab(await records_of(jetstream), network)
        return (
            network.tcp_total("RetransSegs"),
            int(records["retransmitted_segments"].sum()),
            await enriched_retransmissions(jetstream),
            int(exported_retransmissions(pipeline)),
        )

    of_kernel, raw, named, exported = await _until_equal(numbers)
    ids = [verdicts.decode(message.data).id for message in await read_all(jetstream, RCA_VERDICTS)]
    return [
        Figure("chaos", "retransmissions, by the kernel", of_kernel, "segments"),
        Figure("chaos", "in the raw messages", raw, "segments"),
        Figure("chaos", "in the enriched messages", named, "segments"),
        Figure("chaos", "on the exporter's page", exported, "segments"),
        Figure("chaos", "verdicts", len(ids), "verdicts"),
        Figure("chaos", "verdicts stored twice", len(ids) - len(set(ids)), "verdicts"),
    ]


def measure() -> list[Figure]:
    """Retransmissions by the kernel and at each stage, after ten minutes of kills.

    Raises:
        CannotMeasure: if this machine cannot run the lab.
    """
    if why := why_not_live():
        raise CannotMeasure(why)
    with (
        tempfile.TemporaryDirectory() as name,
        bpf_file_system(Path(name) / "bpf") as pins,
        Network(make_cluster(4, 2), Path(tempfile.mkdtemp(dir=name))) as network,
        Pipeline(
            Path(name),
            network.cluster.inventory(),
            namespaces=network.namespaces(),
            environ={"FLOWVERDICT_PIN_DIRECTORY": str(pins)},
        ) as pipeline,
    ):
        kills = _kill_at_random(pipeline, network)
        figures = asyncio.run(_compare(pipeline, network))
    return [
        *(Figure("chaos", f"{service} killed", count, "times") for service, count in kills.items()),
        *figures,
    ]
