"""Which network namespaces a collector counts on a kernel that several nodes share."""

import subprocess
import sys
import textwrap
from collections.abc import Iterator
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


class Pod:
    """Connections in a network namespace of its own, by a process of a node of its own."""

    def __init__(self, port: int, *node: str) -> None:
        self.port = port
        argv = [*node, *CONTAINER, "--net", sys.executable, "-c", CALLS, str(port)]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, text=True)

    def made(self, more: int) -> None:
        """Wait until it has made that many more connections."""
        assert self.process.stdout is not None
        for _ in range(more):
            assert self.process.stdout.readline()

    def inode(self) -> int:
        children = subprocess.run(
            ["pgrep", "-f", f"^{sys.executable} .*{self.port}$"],
            capture_output=True, text=True, check=True,
        ).stdout.split()  # fmt: skip
        return Path(f"/proc/{children[0]}/ns/net").stat().st_ino

    def end(self) -> None:
        self.process.kill()
        self.process.communicate()


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
