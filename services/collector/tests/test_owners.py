"""Whose sockets are on the node's own network, by their control groups."""

import contextlib
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from itertools import chain
from pathlib import Path

import pytest
from nats.aio.client import Client

from conftest import COLLECTOR, Collector, NatsServer, eventually
from flowverdict_collector.owners import owner_in
from flowverdict_lab.live_support import why_not_live

REASON = why_not_live()
live = pytest.mark.skipif(REASON is not None, reason=f"no eBPF: {REASON}")

UID = "0f7c31aa-7e02-4c1e-9e25-5d6c6f0b1a2e"
SYSTEMD = UID.replace("-", "_")
STATIC = "3f1fd9f4f1a0b2f6e5dd6a7c1b9e0c55"
CONTAINER = "ab" * 32


@pytest.mark.parametrize(
    ("path", "owner"),
    [
        (f"kubepods.slice/kubepods-pod{SYSTEMD}.slice/cri-containerd-{CONTAINER}.scope", UID),
        (f"kubepods-burstable-pod{SYSTEMD}.slice/crio-{CONTAINER}.scope/container", UID),
        (f"kubepods/besteffort/pod{UID}/{CONTAINER}", UID),
        (f"kubepods-burstable-pod{STATIC}.slice/cri-containerd-{CONTAINER}.scope", STATIC),
        (f"kubelet-kubepods-pod{SYSTEMD}.slice/docker-{CONTAINER}.scope", UID),
        (f"system.slice/docker-{CONTAINER}.scope", CONTAINER),
        (f"/docker/{CONTAINER}", CONTAINER),
        (f"/docker/{CONTAINER}/init.scope", CONTAINER),
        ("system.slice/kubelet.service", ""),
        (f"user.slice/tripod{UID}", ""),
        (f"podman-{CONTAINER}.scope", ""),
        ("", ""),
    ],
)
def test_a_pod_or_container_is_read_from_the_names_of_its_control_group(
    path: str, owner: str
) -> None:
    assert owner_in(path.split("/")[::-1]) == owner


CALLS = textwrap.dedent("""
    import socket, sys, time
    server = socket.create_server(("127.0.0.1", int(sys.argv[1])))
    while True:
        with socket.create_connection(server.getsockname()) as client, server.accept()[0] as peer:
            client.sendall(b"hello")
            peer.recv(5)
        time.sleep(0.02)
""")


@pytest.fixture
def groups() -> Iterator[Path]:
    """A control group of version 2 for a test's own."""
    mounts = [line.split() for line in Path("/proc/self/mounts").read_text().splitlines()]
    root = next(Path(each[1]) for each in mounts if each[2] == "cgroup2")
    folder = root / f"kubepods-{os.getpid()}"
    folder.mkdir()
    yield folder
    deadline = time.monotonic() + 30
    while "populated 1" in (folder / "cgroup.events").read_text():
        assert time.monotonic() < deadline
        for process in chain.from_iterable(
            each.read_text().split() for each in folder.rglob("cgroup.procs")
        ):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
        time.sleep(0.01)
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            path.rmdir()
    folder.rmdir()


@pytest.fixture
def started() -> Iterator[list[subprocess.Popen[bytes]]]:
    """Processes that a test starts."""
    processes: list[subprocess.Popen[bytes]] = []
    yield processes
    for process in processes:
        process.kill()
        process.wait()


def in_group(group: Path, port: int) -> subprocess.Popen[bytes]:
    """Connections over loopback by a process in a control group."""
    group.mkdir(parents=True)
    joins = f"echo 0 > {group}/cgroup.procs && exec {sys.executable} -c '{CALLS}' {port}"
    return subprocess.Popen(["sh", "-c", joins])


def owners_of(collector: Collector, port: int) -> set[str]:
    """Of the records of connections to that port, at both ends, that have any."""
    return {
        owner
        for record, owner in zip(collector.records, collector.owners, strict=True)
        if port in (record["src_port"], record["dst_port"]) and record["opens"]
    }


@live
async def test_sockets_on_the_nodes_network_have_the_pod_that_made_them(
    nats_server: NatsServer,
    tmp_path: Path,
    nats_client: Client,
    groups: Path,
    started: list[subprocess.Popen[bytes]],
) -> None:
    pods = f"pod{UID}/{CONTAINER}", f"kubepods-pod{STATIC}.slice/cri-containerd-a.scope/nested"
    for port, pod in enumerate((*pods, "kubelet.service"), 20_111):
        started.append(in_group(groups / pod, port))
    collector = Collector(nats_server, tmp_path)
    try:
        await collector.listen(nats_client)
        for port, owner in enumerate((UID, STATIC, ""), 20_111):
            await eventually(lambda port=port: owners_of(collector, port))
            assert owners_of(collector, port) == {owner}
    finally:
        collector.stop()


@live
async def test_the_nodes_network_is_that_of_who_started_the_collectors_container(
    nats_server: NatsServer,
    tmp_path: Path,
    nats_client: Client,
    groups: Path,
    started: list[subprocess.Popen[bytes]],
) -> None:
    here = f"/proc/{os.getpid()}/ns/net"
    group = groups / f"pod{UID}" / "on-the-node"
    group.mkdir(parents=True)
    script = tmp_path / "node.sh"
    script.write_text(
        "ip link set lo up\n"
        f"(echo 0 > {group}/cgroup.procs; exec {sys.executable} -c '{CALLS}' 20115) &\n"
        f"exec nsenter --net={here} {COLLECTOR}\n"
    )
    started.append(in_group(groups / f"pod{STATIC}", 20_116))
    collector = Collector(
        nats_server, tmp_path, ["unshare", "--net", "--kill-child", "--fork", "sh", str(script)],
        FLOWVERDICT_NETWORK_NAMESPACES="",
    )  # fmt: skip
    try:
        await collector.listen(nats_client)
        await eventually(lambda: owners_of(collector, 20_115) and owners_of(collector, 20_116))
        assert owners_of(collector, 20_115) == {UID}
        assert owners_of(collector, 20_116) == {""}
    finally:
        collector.stop()
