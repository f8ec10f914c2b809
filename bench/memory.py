"""Memory of each service under load: proportional set size, from /proc/PID/smaps_rollup.

A recording of a real run is replayed through the services. If eBPF is available, the collector is
measured too.
"""

import asyncio
import tempfile
from pathlib import Path

from bench.figure import Figure
from bench.processes import resident_mebibytes
from flowverdict_lab import recording
from flowverdict_lab.demo import SHIPPED_RECORDING
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.phases import Outcome, listening, until_judged
from flowverdict_lab.pipeline import Pipeline

__all__ = ["measure"]


async def _replay(pipeline: Pipeline, messages: object) -> None:
    async with listening(pipeline, Outcome("", ())) as jetstream:
        end_ns = await recording.replay(jetstream, messages)  # type: ignore[arg-type]
        await until_judged(pipeline, end_ns)


def measure() -> list[Figure]:
    """Mebibytes used by each service after a recording has been replayed through them."""
    about, messages = recording.read(SHIPPED_RECORDING)
    with tempfile.TemporaryDirectory() as folder:
        live = why_not_live() is None
        with Pipeline(Path(folder), about.inventory, collector=live) as pipeline:
            asyncio.run(_replay(pipeline, messages))
            return [
                Figure("memory", name, resident_mebibytes(pipeline.pid(name)), "MiB")
                for name in (*pipeline.services, "nats")
            ]
