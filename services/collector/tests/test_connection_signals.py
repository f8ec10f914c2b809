"""What a connection goes through, against what the kernel reports to the program that uses it."""

import asyncio
import contextlib
import ctypes
import os
import socket
import struct
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from nats.aio.client import Client

from conftest import Collector, NatsServer, eventually
from flowverdict_lab.cluster import Pod
from flowverdict_lab.faults import parse_fault
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import Network
from flowverdict_runtime.ebpf import BTF

REASON = why_not_live()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no eBPF: {REASON}")

PORT = 7007
SMALL = b"x" * 100


@pytest.fixture
async def collector(
    network: Network, nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> AsyncIterator[Collector]:
    namespaces = {"FLOWVERDICT_NETWORK_NAMESPACES": ",".join(map(str, network.namespaces()))}
    running = Collector(nats_server, tmp_path, **namespaces)
    await running.listen(nats_client)
    yield running
    running.stop()


@contextlib.contextmanager
def inside(network: Network, pod: Pod) -> Iterator[None]:
    """Sockets made here belong to the network of this pod."""

    def enter(path: str) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            assert ctypes.CDLL(None).setns(descriptor, 0) == 0
        finally:
            os.close(descriptor)

    ours = f"/proc/{os.getpid()}/ns/net"
    before = os.open(ours, os.O_RDONLY)
    try:
        enter(f"/proc/{network.pid(pod.name)}/ns/net")
        yield
    finally:
        enter(f"/proc/self/fd/{before}")
        os.close(before)


@dataclass(frozen=True, slots=True)
class TcpInfo:
    """Some of struct tcp_info (include/uapi/linux/tcp.h)."""

    path_mtu_bytes: int
    minimum_rtt_us: int
    spurious_retransmissions: int
    out_of_order_segments: int

    @classmethod
    def of(cls, connection: socket.socket) -> "TcpInfo":
        info = connection.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 256)
        return cls(*(struct.unpack_from("<I", info, at)[0] for at in (60, 148, 216, 224)))


@dataclass(frozen=True, slots=True)
class Connection:
    """Both ends of a connection between two pods."""

    network: Network
    client: socket.socket
    server: socket.socket

    def exchange(self, rounds: int) -> None:
        """Ten segments each way, `rounds` times."""
        for _ in range(rounds):
            for sender, receiver in ((self.client, self.server), (self.server, self.client)):
                for _ in range(10):
                    sender.sendall(SMALL)
                receiver.recv(10 * len(SMALL), socket.MSG_WAITALL)

    def ends(self) -> tuple[TcpInfo, TcpInfo]:
        """What the kernel knows about the client's end and the server's."""
        return TcpInfo.of(self.client), TcpInfo.of(self.server)


@contextlib.contextmanager
def opened(network: Network) -> Iterator[Connection]:
    """A connection of the second pod to the first."""
    one, other, *_ = network.cluster.pods
    with contextlib.ExitStack() as sockets:
        with inside(network, other):
            listener = sockets.enter_context(socket.create_server((str(other.ipv4), PORT)))
        with inside(network, one):
            client = sockets.enter_context(socket.create_connection((str(other.ipv4), PORT)))
        server = sockets.enter_context(listener.accept()[0])
        for each in (client, server):
            each.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            each.settimeout(60)
        yield Connection(network, client, server)


@pytest.fixture
def connection(network: Network, collector: Collector) -> Iterator[Connection]:
    assert collector.headers  # it counts before the connection is opened
    with opened(network) as connection:
        yield connection


async def test_spurious_retransmissions_and_reordering_are_those_of_tcp_info(
    connection: Connection, collector: Collector
) -> None:
    network = connection.network
    fault = parse_fault("pod-loss", "pod-b", 20, network.cluster)
    signals = ("spurious_retransmissions", "out_of_order_segments")
    connection.exchange(5)
    fault.inject(network)
    async with asyncio.timeout(120):
        while not all(any(getattr(end, signal) for end in connection.ends()) for signal in signals):
            await asyncio.to_thread(connection.exchange, 10)
    fault.remove(network)
    connection.exchange(5)

    def equal() -> bool:
        return all(
            collector.total(PORT, role, name) == getattr(info, name)
            for role, info in zip(("client", "server"), connection.ends(), strict=True)
            for name in signals
        )

    await eventually(equal)


def send_small(connection: Connection) -> None:
    connection.exchange(40)


def send_large(connection: Connection) -> None:
    """Each way, as much as makes the kernel keep many segments in one packet."""
    for sender, receiver in (
        (connection.client, connection.server),
        (connection.server, connection.client),
    ):
        thread = threading.Thread(target=sender.sendall, args=(b"x" * 1_000_000,))
        thread.start()
        left = 1_000_000
        while left:
            left -= len(receiver.recv(65536))
        thread.join()


@pytest.mark.parametrize(("send", "percent"), [(send_small, 10), (send_large, 10)])
async def test_what_one_end_sent_and_the_other_did_not_receive_is_what_was_dropped(
    network: Network,
    collector: Collector,
    send: Callable[[Connection], None],
    percent: int,
) -> None:
    for pod in network.cluster.pods:
        network.inside(pod.name, ["ip", "link", "set", "eth0", "gso_max_segs", "65535"])
    fault = parse_fault("pod-loss", "pod-b", percent, network.cluster)
    with opened(network) as connection:
        fault.inject(network)
        send(connection)
        fault.remove(network)
        # An ACK is counted with its sender's next event, at the latest with its end.
        for sender, receiver in (
            (connection.client, connection.server),
            (connection.server, connection.client),
        ):
            sender.shutdown(socket.SHUT_WR)
            while receiver.recv(65536):
                pass

    def lost_and_dropped(sender: str, receiver: str) -> tuple[int, int]:
        port = "dst_port" if receiver == "server" else "src_port"
        sent = collector.total(PORT, sender, "segments_sent")
        rows = [each for each in collector.of_port(PORT) if each[port] == PORT]
        dropped = [int(each["drops_netfilter"]) for each in rows]
        assert [int(each["drop_reason_netfilter_drop"]) for each in rows] == dropped
        received = collector.total(PORT, receiver, "segments_received")
        return sent - received, sum(dropped)

    def agree() -> bool:
        both_ways = lost_and_dropped("client", "server"), lost_and_dropped("server", "client")
        return all(lost == dropped > 0 for lost, dropped in both_ways)

    await eventually(agree)


async def test_the_shortest_round_trip_and_the_path_mtu_are_those_of_tcp_info(
    connection: Connection, collector: Collector
) -> None:
    connection.exchange(10)

    def last(name: str) -> int:
        readings = [each[name] for each in collector.of_port(PORT) if each["role"] == 1]
        return int(readings[-1]) if readings else 0

    def agree() -> bool:
        connection.exchange(1)
        info = TcpInfo.of(connection.client)
        ours = (last("path_mtu_bytes"), last("minimum_rtt_us"))
        return ours == (info.path_mtu_bytes, info.minimum_rtt_us) and all(ours)

    await eventually(agree)


async def test_the_time_that_a_connect_took_is_known_at_the_clients_end(
    connection: Connection, collector: Collector
) -> None:
    connection.exchange(1)
    await eventually(lambda: collector.total(PORT, "client", "opens") == 1)
    took = collector.total(PORT, "client", "connect_us")
    assert 0 < took < 10_000_000
    assert collector.total(PORT, "server", "connect_us") == 0


async def test_a_path_mtu_that_becomes_smaller_is_counted_once(
    connection: Connection, collector: Collector
) -> None:
    connection.exchange(1)
    network = connection.network
    one, other, *_ = network.cluster.pods
    route = f"ip route replace {other.ipv4}/32 dev eth0 mtu 900"
    network.inside(one.name, route.split())
    connection.exchange(3)
    assert TcpInfo.of(connection.client).path_mtu_bytes == 900

    def counted() -> bool:
        connection.exchange(1)
        return collector.total(PORT, "client", "path_mtu_reductions") > 0

    await eventually(counted)
    connection.exchange(3)
    assert collector.total(PORT, "client", "path_mtu_reductions") == 1
    assert collector.total(PORT, "server", "path_mtu_reductions") == 0


async def test_a_receiver_that_does_not_read_closes_its_window(
    connection: Connection, collector: Collector
) -> None:
    connection.exchange(3)
    await eventually(lambda: collector.total(PORT, "client", "opens") == 1)
    assert collector.total(PORT, "client", "zero_windows_received") == 0
    sent, client = 0, connection.client
    client.settimeout(1)
    with contextlib.suppress(TimeoutError):  # the receiver has no more room
        while True:
            sent += client.send(b"x" * 65536)
    client.settimeout(60)
    while sent:
        sent -= len(connection.server.recv(1 << 20))
    connection.exchange(3)
    await eventually(lambda: collector.total(PORT, "client", "zero_windows_received") > 0)
    assert collector.total(PORT, "server", "zero_windows_received") == 0


@pytest.fixture
def full(network: Network) -> Iterator[tuple[str, int]]:
    """A server in the second pod that accepts nobody, and has no room for more to wait."""
    one, other, *_ = network.cluster.pods
    with socket.socket() as unused, contextlib.ExitStack() as opened:
        del unused
        with inside(network, other):
            server = opened.enter_context(socket.socket())
        server.bind((str(other.ipv4), PORT))
        server.listen(0)
        with inside(network, one):
            waiting = opened.enter_context(socket.socket())
        waiting.connect(server.getsockname())
        yield server.getsockname()


def connecting(network: Network, address: tuple[str, int]) -> socket.socket:
    """A connect from the first pod that nobody answers."""
    with inside(network, network.cluster.pods[0]):
        client = socket.socket()
    client.setblocking(False)
    with contextlib.suppress(BlockingIOError):
        client.connect(address)
    return client


async def test_a_connect_that_its_program_cancels_has_not_failed(
    collector: Collector, network: Network, full: tuple[str, int]
) -> None:
    def total(name: str) -> int:
        return collector.total(PORT, "client", name)

    attempts = 0
    while not total("cancelled_opens"):  # again, should this process be held up between the two
        connecting(network, full).close()
        attempts += 1
        await eventually(lambda n=attempts: total("cancelled_opens") + total("failed_opens") == n)
        assert attempts < 10


async def test_a_connect_given_up_before_its_syn_is_sent_again_has_timed_out(
    collector: Collector, network: Network, full: tuple[str, int]
) -> None:
    with inside(network, network.cluster.pods[0]):
        client = socket.socket()
    with client:
        client.settimeout(0.3)
        with pytest.raises(TimeoutError):
            client.connect(full)
    await eventually(lambda: collector.total(PORT, "client", "timed_out_opens") == 1)
    assert collector.total(PORT, "client", "cancelled_opens") == 0


async def test_a_connect_given_up_after_its_syn_was_sent_again_has_timed_out(
    collector: Collector, network: Network, full: tuple[str, int]
) -> None:
    client = connecting(network, full)
    await eventually(lambda: collector.total(PORT, "client", "retransmitted_syns") > 0)
    client.close()
    await eventually(lambda: collector.total(PORT, "client", "timed_out_opens") == 1)
    assert collector.total(PORT, "client", "failed_opens") == 1
    assert collector.total(PORT, "client", "cancelled_opens") == 0


async def test_a_host_that_is_not_there_is_unreachable(
    collector: Collector, network: Network
) -> None:
    address = network.cluster.pods[1].ipv4
    nobody = f"{str(address).rpartition('.')[0]}.199"
    client = connecting(network, (nobody, PORT))
    await eventually(lambda: collector.total(PORT, "client", "unreachable_opens") == 1, 20)
    client.close()
    assert collector.total(PORT, "client", "failed_opens") == 1


async def test_connections_that_find_the_accept_queue_full_are_drops_of_the_listen_queue(
    collector: Collector, network: Network
) -> None:
    if b"TCP_LISTEN_OVERFLOW" not in Path(BTF).read_bytes():
        pytest.skip("this kernel has no drop reason for it")
    one, other, *_ = network.cluster.pods
    hold = """table ip hold { chain answers {
        type filter hook input priority 0; tcp flags & (syn | ack) == syn | ack drop; }; }"""
    with contextlib.ExitStack() as opened:
        with inside(network, other):
            server = opened.enter_context(socket.socket())
        server.bind((str(other.ipv4), PORT))
        server.listen(4)
        waiting = [connecting(network, server.getsockname()) for _ in range(3)]
        await eventually(lambda: collector.total(PORT, "server", "opens") == 3)
        network.inside(one.name, ["nft", "-f", "-"], hold)
        waiting += [connecting(network, server.getsockname()) for _ in range(4)]
        # All of them had room when their SYN came, but not what completes their handshakes.
        network.inside(one.name, ["nft", "delete", "table", "ip", "hold"])
        for each in waiting:
            opened.enter_context(each)

        def dropped() -> int:
            return sum(int(each["drops_listen_queue"]) for each in collector.of_port(PORT))

        await eventually(dropped, 20)
