"""Which network namespaces a collector counts on a kernel that several nodes share."""

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from nats.aio.client import Client

from conftest import COLLECTOR, Collector, NatsServer, eventually
from flowverdict_lab.live_support import why_not_live

REASON = why_not_live()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no eBPF: {REASON}")

NODE = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc"]
CONTAINER = ["unshare", "--pid", "--fork", "--kill-child"]
SHUT = 100
CALLS = f"SHUT = {SHUT}\n" + textwrap.dedent("""
    import socket, subprocess, sys, time
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    closed = "127.0.0.1", int(sys.argv[1]) + SHUT
    for number in range(10**9):
        socket.socket().connect_ex(closed)  # refused by the kernel, with no socket
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as peer:
            client.sendall(b"hello")
            peer.recv(5)
        print(number, flush=True)
        time.sleep(0.02)
""")


def process_of(port: int) -> int:
    """The process of a pod that connects to that port."""
    found = subprocess.run(
        ["pgrep", "-f", f"^{sys.executable} .*{port}$"], capture_output=True, text=True, check=True
    )
    return int(found.stdout.split()[0])


def network_of(process: int) -> int:
    return Path(f"/proc/{process}/ns/net").stat().st_ino


class Pod:
    """Connections in a network namespace of its own, by a process of a node of its own."""

    def __init__(self, port: int, *node: str, network: tuple[str, ...] = ("--net",)) -> None:
        self.port = port
        argv = [*node, *CONTAINER, *network, sys.executable, "-c", CALLS, str(port)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def made(self, more: int) -> None:
        """Wait until it has made that many more connections."""
        assert self.process.stdout is not None
        for _ in range(more):
            assert self.process.stdout.readline()

    def inode(self) -> int:
        return network_of(process_of(self.port))

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


def new_namespace(kind: str) -> int:
    """Move this thread into a new namespace; returns a file that keeps it."""
    flags = {"net": 0x40000000, "uts": 0x04000000}  # include/uapi/linux/sched.h
    if ctypes.CDLL(None, use_errno=True).unshare(flags[kind]) != 0:
        raise OSError(ctypes.get_errno(), f"unshare {kind}")
    return os.open(f"/proc/thread-self/ns/{kind}", os.O_RDONLY)


@contextlib.contextmanager
def network_with_number(number: int) -> Iterator[str]:
    """A new network namespace with the inode number of one that is being deleted.

    The kernel gives each new one the lowest number that is free, so all below are taken first.
    """
    files: list[int] = []

    def made() -> str:
        deadline = time.monotonic() + 30
        while True:
            files.append(new_namespace("uts"))
            if (inode := os.fstat(files[-1]).st_ino) == number:
                files.append(new_namespace("uts"))  # leave the one with the number
                os.close(files.pop(-2))
                files.append(new_namespace("net"))
                if os.fstat(files[-1]).st_ino == number:
                    return f"/proc/{os.getpid()}/fd/{files[-1]}"
            elif inode > number:
                time.sleep(0.05)
            assert time.monotonic() < deadline, f"number {number} is still in use"

    try:
        with ThreadPoolExecutor(1) as thread:
            yield thread.submit(made).result()
    finally:
        for file in files:
            os.close(file)


@pytest.fixture
def pods() -> Iterator[list[Pod]]:
    """Those that a test starts."""
    started: list[Pod] = []
    yield started
    for pod in started:
        pod.end()


class NodesCollector(Collector):
    """A collector in a container, on a node that also runs a pod."""

    def __init__(self, server: NatsServer, folder: Path, port: int) -> None:
        pod = f"{' '.join([*CONTAINER, '--net'])} {sys.executable} -c '{CALLS}' {port}"
        script = folder / "node.sh"
        script.write_text(f"{pod} >/dev/null &\n{' '.join(CONTAINER)} {COLLECTOR}\n")
        script.chmod(0o700)
        super().__init__(
            server, folder, [*NODE, "sh", str(script)], FLOWVERDICT_NETWORK_NAMESPACES=""
        )


async def counts_only(
    port: int, collector: Collector, nats_client: Client, *, but_not: Pod
) -> None:
    """Fails unless the connections to `port` are counted, and none of another pod."""
    try:
        await collector.listen(nats_client)
        but_not.made(50)
        before = len(collector.headers)
        await eventually(lambda: len(collector.headers) >= before + 3)
        for each in (0, SHUT):
            assert collector.of_port(port + each)
            assert not collector.of_port(but_not.port + each)
    finally:
        collector.stop()


async def test_a_collector_counts_its_own_nodes_pods_and_no_other_nodes(
    nats_server: NatsServer, tmp_path: Path, pods: list[Pod], nats_client: Client
) -> None:
    pods.append(other := Pod(20_002, *NODE))
    other.made(5)
    collector = NodesCollector(nats_server, tmp_path, 20_001)
    await counts_only(20_001, collector, nats_client, but_not=other)


async def test_a_namespace_that_gets_the_number_of_a_deleted_pods_is_told_from_it(
    nats_server: NatsServer, tmp_path: Path, pods: list[Pod], nats_client: Client
) -> None:
    collector = NodesCollector(nats_server, tmp_path, 20_006)
    try:
        await collector.listen(nats_client)
        await eventually(lambda: collector.of_port(20_006))
        deleted = process_of(20_006)
        number = network_of(deleted)
        os.kill(deleted, signal.SIGKILL)
        with network_with_number(number) as network:
            pods.append(other := Pod(20_007, "nsenter", f"--net={network}", *NODE, network=()))
            other.made(50)
            before = len(collector.headers)
            await eventually(lambda: len(collector.headers) >= before + 3)
            assert not collector.of_port(20_007)
    finally:
        collector.stop()


async def test_a_collector_that_is_told_namespaces_counts_only_those(
    nats_server: NatsServer, tmp_path: Path, pods: list[Pod], nats_client: Client
) -> None:
    pods += [told := Pod(20_003), other := Pod(20_004)]
    told.made(1)
    other.made(1)
    collector = Collector(nats_server, tmp_path, FLOWVERDICT_NETWORK_NAMESPACES=str(told.inode()))
    await counts_only(20_003, collector, nats_client, but_not=other)


async def test_a_collector_in_a_container_of_the_only_node_counts_every_namespace(
    nats_server: NatsServer, tmp_path: Path, pods: list[Pod], nats_client: Client
) -> None:
    pods.append(anywhere := Pod(20_005))
    anywhere.made(1)
    collector = Collector(
        nats_server, tmp_path, [*CONTAINER, COLLECTOR], FLOWVERDICT_NETWORK_NAMESPACES=""
    )
    try:
        await collector.listen(nats_client)
        await eventually(lambda: collector.of_port(20_005))
    finally:
        collector.stop()
