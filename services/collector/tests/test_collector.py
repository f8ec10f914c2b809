"""The collector as a process, on this machine's kernel."""

import contextlib
import os
import platform
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from nats.aio.client import Client

from conftest import COLLECTOR, Collector, NatsServer, eventually
from flowverdict_collector.btf import KernelTypes
from flowverdict_collector.limits import kernel_version
from flowverdict_contracts import raw, raw_records
from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_lab.free_port import free_port
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.pipeline import stop_process
from flowverdict_runtime.ebpf import CAPABILITIES, can_compare_and_swap

IPPROTO_MPTCP = 262

REASON = why_not_live()
live = pytest.mark.skipif(REASON is not None, reason=f"no eBPF: {REASON}")


def command(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [COLLECTOR, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **environ},
        check=False,
    )


def test_help_names_every_setting() -> None:
    printed = command("--help").stdout
    for name in ("NATS_URL", "NODE", "INTERVAL_SECONDS", "MAX_FLOWS", "LISTEN", "LOG_LEVEL"):
        assert f"FLOWVERDICT_{name}" in printed


@pytest.mark.parametrize(
    ("name", "value"),
    [("INTERVAL_SECONDS", "0"), ("NODE", "a b"), ("MAX_FLOWS", "many"), ("LISTEN", "9192")],
)
def test_a_wrong_setting_ends_it_at_once_and_is_named(name: str, value: str) -> None:
    done = command(**{f"FLOWVERDICT_{name}": value})
    assert done.returncode == 2
    assert f"FLOWVERDICT_{name} is {value!r}; it takes " in done.stderr
    assert "Traceback" not in done.stderr


@live
@pytest.mark.parametrize(
    "settings", [{}, {"FLOWVERDICT_DNS": "on", "FLOWVERDICT_FOLD_CLIENT_PORTS": "on"}]
)
def test_the_check_attaches_everything_and_says_what_is_broken(settings: dict[str, str]) -> None:
    done = command("--check", FLOWVERDICT_NATS_URL="nats://127.0.0.1:1", **settings)
    assert done.returncode == 1
    assert "ok       tcp_retransmit_skb (raw tracepoint): retransmissions" in done.stdout
    assert "broken   NATS at nats://127.0.0.1:1" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr


@live
def test_without_capabilities_it_says_which_are_missing() -> None:
    done = subprocess.run(
        ["setpriv", "--bounding-set", "-all", "--inh-caps", "-all", COLLECTOR, "--check"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "needs CAP_PERFMON and CAP_BPF" in done.stdout


def has_bpf_mem_alloc() -> bool:
    with KernelTypes() as types:
        return types.has_struct("bpf_mem_alloc")


@pytest.fixture
def collector(nats_server: NatsServer, tmp_path: Path) -> Iterator[Collector]:
    running = Collector(nats_server, tmp_path)
    yield running
    stop_process(running.process)


RESTRICTED = Path("/proc/sys/kernel/dmesg_restrict").read_text() == "1\n"
TO_READ_THE_LOG = 1 << 34 if RESTRICTED else 0
"""CAP_SYSLOG (include/uapi/linux/capability.h)."""


def exchange(family: socket.AddressFamily, host: str, size: int) -> int:
    """Send `size` bytes over one connection of this machine; returns the server's port."""
    with socket.socket(family) as server:
        server.bind((host, 0))
        server.listen()

        def answer() -> None:
            peer, _ = server.accept()
            with peer:
                while peer.recv(65536):
                    pass  # until the FIN, which a socket that is already closed would not count

        thread = threading.Thread(target=answer)
        thread.start()
        with socket.create_connection(server.getsockname()[:2]) as client:
            client.sendall(b"x" * size)
        thread.join()
        port: int = server.getsockname()[1]
    return port


@live
@pytest.mark.parametrize(
    ("release", "kept"),
    [("5.10.0-44-amd64", 1 << CAPABILITIES["CAP_BPF"]), ("5.19", 0), ("6.18.5", 0), ("7.2", 0)],
)
def test_on_kernels_that_read_no_map_without_it_one_capability_is_kept(
    release: str, kept: int
) -> None:
    text = (
        "import pathlib; from flowverdict_collector.privileges import drop_capabilities;"
        f"drop_capabilities({release!r}); print(pathlib.Path('/proc/self/status').read_text())"
    )
    done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    status = dict(line.split(":\t") for line in done.stdout.splitlines() if "Cap" in line)
    assert {int(status[name], 16) for name in ("CapPrm", "CapEff")} == {kept | TO_READ_THE_LOG}


@live
async def test_once_it_counts_it_has_no_capability_left_and_cannot_get_one(
    collector: Collector, nats_client: Client
) -> None:
    await collector.listen(nats_client)
    port = exchange(socket.AF_INET, "127.0.0.1", 1000)
    await eventually(lambda: collector.total(port, "client", "bytes_sent") == 1000)
    is_old = kernel_version(platform.release()) < (5, 19)
    to_read_maps = 1 << CAPABILITIES["CAP_BPF"] if is_old else 0
    threads = list(Path(f"/proc/{collector.process.pid}/task").iterdir())
    for thread in threads:
        lines = (thread / "status").read_text().splitlines()
        status = dict(line.split(":\t") for line in lines if line.startswith(("Cap", "NoNewPrivs")))
        assert (status["CapInh"], status["CapAmb"]) == ("0" * 16, "0" * 16)
        kept = {int(status[name], 16) for name in ("CapPrm", "CapEff")}
        assert (kept, status["NoNewPrivs"]) == ({to_read_maps | TO_READ_THE_LOG}, "1")


@live
@pytest.mark.parametrize(
    ("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")]
)
async def test_a_connection_is_two_records_one_for_each_end(
    collector: Collector, nats_client: Client, family: socket.AddressFamily, host: str
) -> None:
    await collector.listen(nats_client)
    port = exchange(family, host, 1_000_000)

    def total(role: str, field: str) -> int:
        return collector.total(port, role, field)

    # The kernel counts SYN and FIN as bytes, too, and what is retransmitted as sent once more.
    await eventually(lambda: total("server", "bytes_received") == 1_000_001)
    await eventually(lambda: total("client", "bytes_acked") == 1_000_002)
    assert total("client", "bytes_sent") >= 1_000_000
    assert total("client", "opens") == total("server", "opens") == 1
    assert total("client", "data_segments_sent") > 0
    assert total("server", "data_segments_sent") == 0
    assert total("server", "segments_sent") > 0
    sources = {each["src"].tobytes() for each in collector.of_port(port)}
    assert sources == {to_bytes(host)}
    ours = Path("/proc/self/ns/net").stat().st_ino
    assert {int(each["netns"]) for each in collector.of_port(port)} == {ours}


@contextlib.contextmanager
def connected() -> Iterator[tuple[socket.socket, socket.socket, int]]:
    """Both ends of a connection of this machine, the client's first, and the server's port."""
    with (
        socket.create_server(("127.0.0.1", 0)) as server,
        socket.create_connection(server.getsockname()) as client,
        server.accept()[0] as accepted,
    ):
        yield client, accepted, server.getsockname()[1]


@live
@pytest.mark.parametrize("before", [b"", b"sent before it started" * 10_000])
async def test_a_connection_older_than_the_collector_has_its_roles(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path, before: bytes
) -> None:
    with connected() as (client, accepted, port):
        for sender, receiver in ((client, accepted), (accepted, client)):
            sender.sendall(before)
            receiver.recv(len(before), socket.MSG_WAITALL)
        running = Collector(nats_server, tmp_path)
        try:
            await running.listen(nats_client)
            for sender, receiver in ((client, accepted), (accepted, client)) * 3:
                sender.sendall(b"hello")
                receiver.recv(5, socket.MSG_WAITALL)
            await eventually(lambda: len(running.of_port(port)) >= 2)
            roles = {
                "server" if each["src_port"] == port else "client": raw.ROLES[each["role"]]
                for each in running.of_port(port)
            }
            assert roles == {"server": "server", "client": "client"}
        finally:
            running.stop()


@live
async def test_an_idle_connection_older_than_the_collector_is_counted_from_its_next_byte(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    with connected() as (client, accepted, port):
        accepted.sendall(b"x" * 777)
        client.recv(777, socket.MSG_WAITALL)
        running = Collector(nats_server, tmp_path)
        try:
            await running.listen(nats_client)
            accepted.sendall(b"x" * 13_345)
            client.recv(13_345, socket.MSG_WAITALL)
            accepted.close()
            assert client.recv(1) == b""
            client.close()

            def total(role: str, field: str) -> int:
                return running.total(port, role, field)

            await eventually(lambda: total("client", "bytes_received") == 13_345 + 1)  # the FIN
            await eventually(lambda: total("server", "bytes_sent") == 13_345)
            assert total("server", "data_segments_sent") > 0
        finally:
            running.stop()


@live
async def test_a_half_closed_connection_is_counted_while_it_lives(
    collector: Collector, nats_client: Client
) -> None:
    await collector.listen(nats_client)
    with connected() as (client, accepted, port):
        client.shutdown(socket.SHUT_WR)
        accepted.sendall(b"x" * 300_000)
        client.recv(300_000, socket.MSG_WAITALL)
        await eventually(lambda: collector.total(port, "client", "bytes_received") == 300_000)
        if can_compare_and_swap():
            await eventually(lambda: collector.total(port, "server", "bytes_acked") == 300_000)
            assert collector.total(port, "server", "bytes_sent") == 300_000
    await eventually(lambda: collector.total(port, "client", "bytes_received") == 300_001)


@live
@pytest.mark.skipif(not can_compare_and_swap(), reason="each segment is sampled on this kernel")
async def test_what_a_connection_received_last_is_counted_while_it_rests(
    collector: Collector, nats_client: Client
) -> None:
    await collector.listen(nats_client)
    with connected() as (client, accepted, port):
        for at in range(1, 4):
            accepted.sendall(b"x" * 100_000)
            client.recv(100_000, socket.MSG_WAITALL)
            received = at * 100_000
            await eventually(
                lambda expected=received: (
                    collector.total(port, "client", "bytes_received") == expected
                    and collector.total(port, "server", "bytes_acked") == expected
                )
            )
    assert collector.total(port, "client", "opens") == 1


@live
async def test_a_refused_connection_is_a_failed_open_and_a_reset(
    collector: Collector, nats_client: Client
) -> None:
    await collector.listen(nats_client)
    port = free_port()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port))
    await eventually(lambda: len(collector.of_port(port)) >= 2)
    records = collector.of_port(port)
    assert sum(each["failed_opens"] for each in records) == 1
    assert sum(each["resets_received"] for each in records if each["dst_port"] == port) == 1
    assert sum(each["resets_sent"] for each in records if each["src_port"] == port) == 1


@live
async def test_a_multipath_connection_that_is_refused_has_no_counts_of_its_own(
    collector: Collector, nats_client: Client
) -> None:
    """Its socket is not a tcp_sock; what it sends is counted on the subflow, which is one."""
    await collector.listen(nats_client)
    port = free_port()
    for _ in range(40):
        with (
            socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP) as client,
            pytest.raises(ConnectionRefusedError),
        ):
            client.connect(("127.0.0.1", port))
    await eventually(lambda: collector.total(port, "client", "failed_opens") == 40)
    for record in collector.of_port(port):
        assert record["rtt_us"] == 0
        assert record["bytes_acked"] == record["bytes_sent"] == 0
        assert record["segments_sent"] <= 40
        assert record["retransmitted_segments"] == 0


@live
async def test_runs_that_the_kernel_skipped_are_a_metric_of_each_program(
    collector: Collector, nats_client: Client
) -> None:
    await collector.listen(nats_client)
    await eventually(lambda: collector.headers)
    name = "flowverdict_collector_skipped_runs_total"
    for tracepoint in ("tcp_probe", "tcp_retransmit_skb", "tcp_destroy_sock"):
        assert f'{name}{{tracepoint="{tracepoint}"}}' in collector.metrics()


@live
async def test_intervals_follow_each_other_without_a_gap_and_a_stop_publishes_the_last(
    collector: Collector, nats_client: Client
) -> None:
    await collector.listen(nats_client)
    await eventually(lambda: len(collector.headers) >= 3)
    port = exchange(socket.AF_INET, "127.0.0.1", 1000)
    assert stop_process(collector.process) == 0
    await eventually(lambda: collector.of_port(port))
    for one, following in zip(collector.headers, collector.headers[1:], strict=False):
        assert one.end_ns == following.start_ns
        assert one.sequence + 1 == following.sequence
    assert "stopped" in collector.log.read_text().splitlines()[-1]


@live
async def test_more_flows_than_the_map_holds_are_counted_as_lost_and_none_unseen(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    running = Collector(
        nats_server, tmp_path, FLOWVERDICT_MAX_FLOWS="1024", FLOWVERDICT_INTERVAL_SECONDS="60"
    )
    try:
        # Intervals of a minute: the first messages come with the stop.
        await eventually(lambda: "ready: nats" in running.log.read_text())
        heard: list[IntervalHeader] = []
        records: list[np.void] = []

        async def hear(message: object) -> None:
            read = raw_records.read(message.headers, message.data)  # type: ignore[attr-defined]
            heard.append(read.header)
            records.extend(read.records)

        await nats_client.subscribe("flows.raw.test", cb=hear)
        await nats_client.flush()
        with socket.socket() as server:
            server.bind(("127.0.0.1", 0))
            server.listen(64)
            for _ in range(1000):
                with socket.create_connection(server.getsockname()), server.accept()[0]:
                    pass
        stop_process(running.process)
        await eventually(lambda: heard)
        assert len(records) <= 1024
        assert sum(header.lost_flow_updates + header.lost_sockets for header in heard) > 0
    finally:
        stop_process(running.process)


@live
async def test_a_busy_socket_is_not_hidden_by_many_idle_ones(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    if not has_bpf_mem_alloc():
        pytest.skip("before Linux 6.1 the number of sockets is limited")
    running = Collector(nats_server, tmp_path, FLOWVERDICT_MAX_FLOWS="1024")
    try:
        await running.listen(nats_client)
        with contextlib.ExitStack() as opened:
            server = opened.enter_context(socket.create_server(("127.0.0.1", 0), backlog=64))
            for _ in range(1500):
                opened.enter_context(socket.create_connection(server.getsockname()))
                opened.enter_context(server.accept()[0])
            so_far = len(running.headers)
            await eventually(lambda: len(running.headers) > so_far + 1)  # they are idle now
            client, accepted, port = opened.enter_context(connected())
            for _ in range(20):
                client.sendall(b"hello")
                accepted.recv(5, socket.MSG_WAITALL)
                accepted.sendall(b"hello")
                client.recv(5, socket.MSG_WAITALL)
            await eventually(lambda: running.total(port, "server", "bytes_received") == 100)
        assert sum(header.lost_sockets for header in running.headers) == 0
    finally:
        running.stop()
