"""Half an hour of 20 nodes and 4,000 rows a second, with pods that come and go.

Raw messages as 20 collectors would send them; every ten seconds some of the 200 pods are replaced
by others with new names and addresses. In the end each row must have been enriched and added up
once, and descriptors, threads, consumers and memory of each service must be what they were.
"""

import asyncio
import json
import sys
import tempfile
import time
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path

import nats
import numpy as np
import numpy.typing as npt
from nats.js import JetStreamContext

from bench.figure import Figure
from bench.processes import resident_mebibytes
from flowverdict_contracts import raw_records
from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.raw import ROLES, SCHEMA
from flowverdict_contracts.subjects import STREAMS, raw_subject
from flowverdict_lab.pipeline import Pipeline

__all__ = ["measure"]

_SECONDS = 1800
_WARM_SECONDS = 300
"""Until the windows and caches are as full as they get."""
_NODES, _PODS, _ROWS_OF_NODE = 20, 200, 200
_REPLACED, _REPLACED_EVERY_SECONDS = 5, 10
_HOUR = 3600


class _Pods:
    """The pods that exist now, and how the inventory describes them."""

    def __init__(self) -> None:
        self._numbers = count()
        self._pods = [next(self._numbers) for _ in range(_PODS)]
        self._chooser = np.random.default_rng(1)

    def replace_some(self) -> None:
        for at in self._chooser.choice(_PODS, _REPLACED, replace=False).tolist():
            self._pods[at] = next(self._numbers)

    def inventory(self) -> str:
        pods = [
            {
                "namespace": "shop",
                "name": f"web-{number}",
                "addresses": [_address(number)],
                "node": f"n{at % _NODES}",
                "workload": "web",
                "workload_kind": "Deployment",
            }
            for at, number in enumerate(self._pods)
        ]
        nodes = [{"name": f"n{at}", "addresses": [f"192.168.0.{at + 1}"]} for at in range(_NODES)]
        return json.dumps({"nodes": nodes, "pods": pods})

    def records(self, node: int) -> npt.NDArray[np.void]:
        """What the collector of a node counts: its pods' flows to all others."""
        own = [number for at, number in enumerate(self._pods) if at % _NODES == node]
        records = np.zeros(_ROWS_OF_NODE, raw_records.RECORD)
        for at in range(_ROWS_OF_NODE):
            target = self._pods[at % _PODS]
            records[at]["src"] = np.void(to_bytes(_address(own[at % len(own)])))
            records[at]["dst"] = np.void(to_bytes(_address(target)))
        records["src_port"], records["dst_port"] = np.arange(_ROWS_OF_NODE) + 30_000, 8080
        records["role"] = ROLES.index("client")
        for name in ("segments_sent", "data_segments_sent", "segments_received"):
            records[name] = self._chooser.integers(50, 150, _ROWS_OF_NODE)
        records["bytes_sent"] = 1000 * records["data_segments_sent"].astype(np.uint64)
        records["rtt_us"] = self._chooser.integers(100, 1000, _ROWS_OF_NODE)
        return records


def _address(number: int) -> str:
    return f"10.{100 + (number >> 16)}.{number >> 8 & 255}.{number & 255}"


@dataclass(slots=True)
class _Watched:
    """A process over time.

    Attributes:
        descriptors: open ones.
        threads: running ones.
        mebibytes: its memory, by when it was looked at in seconds.
    """

    descriptors: list[int] = field(default_factory=list)
    threads: list[int] = field(default_factory=list)
    mebibytes: list[tuple[float, float]] = field(default_factory=list)

    def look(self, pid: int, now: float) -> None:
        self.descriptors.append(len(list(Path(f"/proc/{pid}/fd").iterdir())))
        self.threads.append(len(list(Path(f"/proc/{pid}/task").iterdir())))
        self.mebibytes.append((now, resident_mebibytes(pid)))

    def figures(self, name: str) -> list[Figure]:
        times, values = np.array(self.mebibytes).T
        slope = float(np.polyfit(times, values, 1)[0]) * _HOUR
        return [
            Figure("soak", f"{name}: memory at the end", values[-1], "MiB"),
            Figure("soak", f"{name}: memory grows by", slope, "MiB an hour"),
            Figure("soak", f"{name}: descriptors more", _growth(self.descriptors), "descriptors"),
            Figure("soak", f"{name}: threads more", _growth(self.threads), "threads"),
        ]


def _growth(values: list[int]) -> float:
    """How much more there are in the last third than in the first."""
    third = max(1, len(values) // 3)
    return float(np.median(values[-third:]) - np.median(values[:third]))


async def _consumers(jetstream: JetStreamContext) -> int:
    infos = [await jetstream.stream_info(name) for name in STREAMS]
    return sum(info.state.consumer_count for info in infos)


async def _run(pipeline: Pipeline) -> list[Figure]:
    client = await nats.connect(pipeline.nats_url)
    jetstream = client.jetstream(timeout=10)
    pods, sent, consumers = _Pods(), 0, list[int]()
    inventory = pipeline.folder / "inventory.json"
    inventory.write_text(pods.inventory())
    watched = {name: _Watched() for name in (*pipeline.services, "nats")}
    began = time.monotonic()
    for second in range(1, _SECONDS + 1):
        if second % _REPLACED_EVERY_SECONDS == 0:
            pods.replace_some()
            inventory.write_text(pods.inventory())
        end_ns = time.time_ns()
        for node in range(_NODES):
            body = pods.records(node).tobytes()
            start_ns = end_ns - 10**9
            header = IntervalHeader(f"n{node}", "soak", second, start_ns, end_ns)
            await jetstream.publish(raw_subject(f"n{node}"), body, headers=header.encode(SCHEMA))
            sent += _ROWS_OF_NODE
        if second > _WARM_SECONDS and second % 10 == 0:
            consumers.append(await _consumers(jetstream))
            for name, each in watched.items():
                each.look(pipeline.pid(name), second)
            print(f"\r{_SECONDS - second:5} s left", end="", file=sys.stderr, flush=True)
        await asyncio.sleep(max(0, began + second - time.monotonic()))
    print(file=sys.stderr)
    await client.close()
    enriched, added = await asyncio.to_thread(_rows, pipeline, sent)
    figures = [
        Figure("soak", "rows sent", sent, "rows"),
        Figure("soak", "rows enriched", enriched, "rows"),
        Figure("soak", "rows added up by the exporter", added, "rows"),
        Figure("soak", "rows read by the RCA worker", _of_rca(pipeline), "rows"),
        Figure("soak", "consumers more", _growth(consumers), "consumers"),
    ]
    for name, each in watched.items():
        figures += each.figures(name)
    return figures


def _of_rca(pipeline: Pipeline) -> float:
    return pipeline.metric("rca", "flowverdict_rca_rows_total")


def _rows(pipeline: Pipeline, sent: int) -> tuple[float, float]:
    deadline = time.monotonic() + 60
    while True:
        enriched = pipeline.metric("enricher", "flowverdict_enricher_rows_total")
        added = pipeline.metric("exporter", "flowverdict_exporter_rows_total")
        if (enriched, added, _of_rca(pipeline)) == (sent,) * 3 or time.monotonic() > deadline:
            return enriched, added
        time.sleep(0.5)


def measure() -> list[Figure]:
    """Rows in and out, and what each service took at the end and by how much that grew."""
    with (
        tempfile.TemporaryDirectory() as folder,
        Pipeline(Path(folder), _Pods().inventory(), collector=False) as pipeline,
    ):
        return asyncio.run(_run(pipeline))
