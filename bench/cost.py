"""What a node's traffic loses while it is counted: round trips and bulk throughput, on and off.

Two of the lab's pods on different nodes exchange 64 bytes, then stream, for a second each; the
programs are attached and detached between rounds, so that whatever else slows the machine down hits
every mode alike. A mode's figure is the median over the rounds of its loss within the round.
"""

import contextlib
import statistics
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from bench.figure import CannotMeasure, Figure
from flowverdict_collector.loader import Loader, LoadError
from flowverdict_lab.cluster import make_cluster
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import Network

__all__ = ["measure"]

_MAX_FLOWS = 65536
_ROUNDS = 15
_MODES = {"TCP": False, "TCP and DNS lookups": True}

_SERVER = """
import socket, sys
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
import socket, sys, time
data = b"x" * int(sys.argv[3])
echoes = sys.argv[2] == "e"
with socket.create_connection((sys.argv[1], 9000)) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connection.sendall(sys.argv[2].encode())
    count, end = 0, time.monotonic() + 1
    while time.monotonic() < end:
        connection.sendall(data)
        if echoes:
            connection.recv(64)
        count += 1
print(count)
"""
_TRAFFIC = {"round trips of 64 bytes": ("e", "64"), "bulk throughput": ("b", "262144")}


@contextlib.contextmanager
def _counting(lookups: bool) -> Iterator[None]:
    try:
        with contextlib.closing(Loader()) as loader:
            loaded = loader.load(_MAX_FLOWS, lookups=lookups)
    except LoadError as error:
        raise CannotMeasure(str(error)) from None
    try:
        yield
    finally:
        loaded.close()


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

        counts()
        without: list[dict[str, int]] = []
        with_it: dict[str, list[dict[str, int]]] = {mode: [] for mode in _MODES}
        for _ in range(_ROUNDS):
            without.append(counts())
            for mode, lookups in _MODES.items():
                with _counting(lookups):
                    with_it[mode].append(counts())
    figures = []
    for name in _TRAFFIC:
        alone = statistics.median(each[name] for each in without)
        figures.append(Figure("cost", f"{name}, not counted", alone, "per second"))
        for mode, those in with_it.items():
            lost = statistics.median(
                1 - here[name] / there[name] for here, there in zip(those, without, strict=True)
            )
            figures.append(Figure("cost", f"{name}, {mode}", 1000 * lost, "thousandths lost"))
    return figures
