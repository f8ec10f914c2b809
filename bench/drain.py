"""What an interval with 65,536 flows takes: to drain the kernel's map, and the collector's memory.

A real collector publishes to a real NATS. The map that it counts in is filled from here, with flows
of different addresses and random counts. As in its image, the collector cannot import aiohttp,
which others use and which takes 13 MB.
"""

import ctypes
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

from bench.figure import CannotMeasure, Figure
from bench.processes import peak_mebibytes
from flowverdict_collector.kernel import describe, read_value, write_value
from flowverdict_collector.pins import Pins
from flowverdict_contracts.raw import KEY_BYTES, RECORD_BYTES
from flowverdict_lab.cluster import make_cluster
from flowverdict_lab.live_support import bpf_file_system, why_not_live
from flowverdict_lab.pipeline import Pipeline

__all__ = ["measure"]

_FLOWS = 65_000
_ROUNDS = 10


def _key(number: int) -> bytes:
    mapped = bytes(10) + b"\xff\xff"
    client = mapped + (0x0A000000 + number).to_bytes(4)
    return client + mapped + b"\x0a\x01\x00\x01" + b"\x01\x80\x50\x00" + bytes(4)


def _flows() -> list[tuple[Any, Any]]:
    """Keys and values of the map, with two thirds of the bytes of a value random."""
    counts, rest = random.Random(1), RECORD_BYTES - KEY_BYTES
    flows = []
    for key in map(_key, range(_FLOWS)):
        value = key + bytes(byte if at % 3 else 0 for at, byte in enumerate(counts.randbytes(rest)))
        flows.append((ctypes.create_string_buffer(key), ctypes.create_string_buffer(value)))
    return flows


def _fill(maps: dict[str, int], flows: list[tuple[Any, Any]]) -> None:
    """Give the map that is counted in these flows, as soon as it becomes that."""

    def active() -> int:
        return int(read_value(maps["active_flows"], ctypes.c_uint32(0), ctypes.c_uint32).value)

    before = active()
    while active() == before:
        time.sleep(0.01)
    both = maps["flows_even"], maps["flows_odd"]
    (filled,) = (each for each in both if describe(each)["map_id"] == active())
    for flow in flows:
        write_value(filled, *flow)


def _without_aiohttp(folder: Path) -> Path:
    hiding = folder / "hiding"
    hiding.mkdir()
    (hiding / "aiohttp").with_suffix(".py").write_text("raise ImportError\n")
    return hiding


def _metric(pipeline: Pipeline, name: str) -> float:
    """A metric of the collector."""
    lines = pipeline.page("collector", "/metrics").splitlines()
    (line,) = (each for each in lines if each.startswith(f"{name} "))
    return float(line.split()[1])


def measure() -> list[Figure]:
    """Milliseconds that the drain takes, and the most that the collector has had in memory.

    Raises:
        CannotMeasure: without eBPF.
    """
    if why := why_not_live():
        raise CannotMeasure(why)
    with (
        tempfile.TemporaryDirectory() as name,
        bpf_file_system((folder := Path(name)) / "bpf") as pinned,
        Pipeline(
            folder,
            make_cluster(4, 2).inventory(),
            environ={
                "FLOWVERDICT_PIN_DIRECTORY": str(pinned),
                "FLOWVERDICT_INTERVAL_SECONDS": "5",
                "PYTHONPATH": str(_without_aiohttp(folder)),
            },
        ) as pipeline,
    ):
        for service in pipeline.services[1:]:
            pipeline.stop(service)
        (pins,) = Pins.of_node(pinned, "lab").sets()
        maps, flows, drains = pins.get_all("map-"), _flows(), []
        for number in range(1, _ROUNDS + 1):
            _fill(maps, flows)
            deadline = time.monotonic() + 60
            while _metric(pipeline, "flowverdict_collector_flows_total") < number * _FLOWS:
                if time.monotonic() > deadline:
                    raise CannotMeasure("the collector does not publish what it was given")
                time.sleep(0.2)
            drains.append(1000 * _metric(pipeline, "flowverdict_collector_drain_seconds"))
        peak = peak_mebibytes(pipeline.pid("collector"))
        for each in maps.values():
            os.close(each)
    return [
        Figure("drain", f"{_FLOWS:,} flows", statistics.median(drains), "milliseconds"),
        Figure("drain", "most memory of the collector", peak, "MiB"),
    ]
