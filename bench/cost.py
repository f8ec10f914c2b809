"""What a node's traffic loses while it is counted: round trips and bulk throughput, on and off.

Two of the lab's pods on different nodes exchange 64 bytes, then stream, for a quarter of a second
each. The programs are attached and detached between, so that whatever else slows the machine down
hits every mode alike. All of it runs on one processor: on two, how they are placed makes more of a
difference than anything else. A mode's figure is the median over the rounds of its loss within the
round. The lab's segments are not joined into larger packets, so this is what the most packets cost.
"""

import contextlib
import ctypes
import os
import statistics
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from bench.figure import CannotMeasure, Figure
from flowverdict_collector.loader import Loader, LoadError
from flowverdict_collector.source import Options
from flowverdict_lab.cluster import make_cluster
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import Network
from flowverdict_runtime.ebpf import bpf

__all__ = ["measure"]

_MAX_FLOWS = 65536
_ROUNDS = 60
_MODES = {"TCP": False, "TCP and DNS lookups": True}
_OPEN = 17
_SECONDS = 0.25

_SERVER = """
import os, socket, sys
os.sched_setaffinity(0, {0})
server = socket.create_server((sys.argv[1], 9000))
print("ready", flush=True)
while True:
    with server.accept()[0] as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if connection.recv(1) == b"e":
            while data := connection.recv(64):
                connection.sendall(data)
        else:
            while connection.recv(1 << 20):
                pass
"""
_CLIENT = """
import os, socket, sys, time
os.sched_setaffinity(0, {0})
data = b"x" * int(sys.argv[3])
echoes = sys.argv[2] == "e"
with socket.create_connection((sys.argv[1], 9000)) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(sys.argv[2].encode())
    count, end = 0, time.monotonic() + float(sys.argv[4])
    while time.monotonic() < end:
        connection.sendall(data)
        if echoes:
            connection.recv(64)
        count += 1
print(count)
"""
_TRAFFIC = {
    "round trips of 64 bytes": ("e", "64", str(_SECONDS)),
    "bulk throughput": ("b", "262144", str(_SECONDS)),
}


class _RawTracepoint(ctypes.Structure):
    """The part of union bpf_attr that BPF_RAW_TRACEPOINT_OPEN reads."""

    _fields_ = (("name", ctypes.c_uint64), ("program", ctypes.c_uint32))


@contextlib.contextmanager
def _attached(programs: Mapping[str, int]) -> Iterator[None]:
    """Programs run at their tracepoints."""
    opened = []
    for tracepoint, program in programs.items():
        name = ctypes.create_string_buffer(tracepoint.encode())
        opened.append(bpf(_OPEN, _RawTracepoint(ctypes.addressof(name), program)))
    try:
        yield
    finally:
        for each in opened:
            os.close(each)


def _loaded(lookups: bool) -> dict[str, int]:
    """The programs, attached nowhere, by their tracepoints."""
    try:
        with contextlib.closing(Loader()) as loader:
            loaded = loader.load(Options(_MAX_FLOWS, lookups=lookups))
    except LoadError as error:
        raise CannotMeasure(str(error)) from None
    for each in loaded.attached.values():
        os.close(each)
    return loaded.programs


def measure() -> list[Figure]:
    """Round trips and chunks a second without the programs, and what they cost, in thousandths."""
    if why := why_not_live():
        raise CannotMeasure(why)
    cluster = make_cluster(4, 2)
    client, server = cluster.pods[0], cluster.pods[-1]
    with tempfile.TemporaryDirectory() as logs, Network(cluster, Path(logs)) as network:
        network.start_inside(server.name, [sys.executable, "-c", _SERVER, str(server.ipv4)])

        def counts() -> dict[str, int]:
            return {
                name: int(
                    network.inside(
                        client.name, [sys.executable, "-c", _CLIENT, str(server.ipv4), *how]
                    )
                )
                for name, how in _TRAFFIC.items()
            }

        modes = {mode: _loaded(lookups) for mode, lookups in _MODES.items()}
        counts()
        without: list[dict[str, int]] = []
        with_it: dict[str, list[dict[str, int]]] = {mode: [] for mode in _MODES}
        for _ in range(_ROUNDS):
            without.append(counts())
            for mode, programs in modes.items():
                with _attached(programs):
                    with_it[mode].append(counts())
    figures = []
    for name in _TRAFFIC:
        alone = statistics.median(each[name] for each in without) / _SECONDS
        figures.append(Figure("cost", f"{name}, not counted", alone, "per second"))
        for mode, those in with_it.items():
            lost = statistics.median(
                1 - here[name] / there[name] for here, there in zip(those, without, strict=True)
            )
            figures.append(Figure("cost", f"{name}, {mode}", 1000 * lost, "thousandths lost"))
    return figures
