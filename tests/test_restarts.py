"""A collector with pins: however it ends, what the kernel counted is published exactly once."""

import asyncio
import random
import shutil
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import nats
import pytest
from nats.js import JetStreamContext

import flowverdict_collector
from conftest import COLLECTOR, Collector, NatsServer, eventually
from flowverdict_lab.faults import parse_fault
from flowverdict_lab.live_support import bpf_file_system, why_not_live
from flowverdict_lab.network import Network
from flowverdict_lab.pipeline import stop_process
from tests.kernel_counts import SKIPPED, equals_kernel, of_the_lab, records_of

REASON = why_not_live()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no live run: {REASON}")


@pytest.fixture
def bpf_fs(tmp_path: Path) -> Iterator[Path]:
    with bpf_file_system(tmp_path / "bpf") as folder:
        yield folder


class Restarting:
    """One node's collector, started again and again."""

    def __init__(self, server: NatsServer, folder: Path, bpf_fs: Path, network: Network) -> None:
        self._server, self._folder, self._starts = server, folder, 0
        self._settings = {
            "FLOWVERDICT_PIN_DIRECTORY": str(bpf_fs),
            "FLOWVERDICT_NETWORK_NAMESPACES": ",".join(map(str, network.namespaces())),
            "FLOWVERDICT_INTERVAL_SECONDS": "0.2",
        }
        self.start()

    def start(self, command: tuple[str, ...] = (COLLECTOR,), **settings: str) -> None:
        self._starts += 1
        folder = self._folder / f"start-{self._starts}"
        folder.mkdir()
        self._running = Collector(self._server, folder, command, **self._settings | settings)

    def kill(self) -> None:
        self._running.process.kill()
        self._running.process.wait()

    def stop(self) -> None:
        stop_process(self._running.process)

    @property
    def log(self) -> str:
        return self._running.log.read_text()

    async def is_ready(self) -> None:
        await eventually(lambda: "ready: nats" in self.log, 60)


@pytest.fixture
async def collector(
    nats_server: NatsServer, tmp_path: Path, bpf_fs: Path, network: Network
) -> AsyncIterator[Restarting]:
    running = Restarting(nats_server, tmp_path, bpf_fs, network)
    await running.is_ready()
    yield running
    running.stop()


async def fails_equal_kernel(jetstream: JetStreamContext, network: Network) -> bool:
    """Whether no refused connect is counted twice, and none but those of a moment is missing."""
    records = of_the_lab(await records_of(jetstream), network)
    missing = network.tcp_total("AttemptFails") - int(records["failed_opens"].sum())
    print(f"{missing} of {network.tcp_total('AttemptFails')} failed connects are missing")
    return -SKIPPED <= missing <= network.tcp_total("AttemptFails") / 20


@pytest.fixture
def traffic(network: Network, collector: Restarting) -> Iterator[None]:
    """Every pod calls every other, and one of them loses a fifth of its packets; all of it after
    the first start of the collector.
    """
    assert "counting" in collector.log
    fault = parse_fault("pod-loss", "pod-b", 20, network.cluster)
    network.start_traffic(20)
    fault.inject(network)
    yield
    fault.remove(network)


async def agrees(
    server: NatsServer,
    network: Network,
    condition: Callable[[JetStreamContext, Network], Awaitable[bool]],
) -> None:
    """Wait until what the stream holds and what the kernel counted meet the condition."""
    client = await nats.connect(server.url)
    try:
        await eventually(lambda: condition(client.jetstream(timeout=10), network), 60)
    finally:
        await client.close()


async def finish(server: NatsServer, network: Network) -> None:
    """End all traffic, and wait until the stream equals the kernel."""
    network.stop_traffic()
    await eventually(lambda: network.tcp_total("CurrEstab") == 0, 60)
    assert network.tcp_total("RetransSegs") > 100
    await agrees(server, network, equals_kernel)


@pytest.mark.usefixtures("traffic")
async def test_killed_and_stopped_again_and_again_it_loses_and_doubles_nothing(
    collector: Restarting, nats_server: NatsServer, network: Network
) -> None:
    moments = random.Random(7)
    for number in range(8):
        await asyncio.sleep(moments.uniform(0.05, 0.6))  # any moment is the right one
        if number % 4:
            collector.kill()
        else:
            collector.stop()
        await asyncio.sleep(moments.uniform(0, 0.4))
        collector.start()
        await collector.is_ready()
        assert "counting on, with what the last collector left" in collector.log
    await finish(nats_server, network)


@pytest.mark.usefixtures("traffic")
async def test_killed_while_nats_is_gone_it_loses_nothing(
    collector: Restarting, nats_server: NatsServer, network: Network
) -> None:
    nats_server.stop()
    for _ in range(3):
        await asyncio.sleep(0.5)
        collector.kill()
        collector.start()
        await eventually(lambda: "counting on" in collector.log, 60)
    nats_server.start()
    await collector.is_ready()
    await finish(nats_server, network)


@pytest.mark.usefixtures("traffic")
async def test_another_version_of_the_programs_takes_over_without_a_gap(
    collector: Restarting, nats_server: NatsServer, network: Network, tmp_path: Path
) -> None:
    package = Path(flowverdict_collector.__file__).parent
    newer = tmp_path / "newer"
    shutil.copytree(package, newer / package.name)
    with (newer / package.name / "bpf" / "flows.bpf.c").open("a") as text:
        text.write("/* newer */\n")
    for settings in ({"PYTHONPATH": str(newer)}, {}, {"PYTHONPATH": str(newer)}):
        await asyncio.sleep(0.5)
        collector.stop()
        await asyncio.sleep(0.5)
        collector.start((sys.executable, "-m", "flowverdict_collector"), **settings)
        await collector.is_ready()
        assert "counting on" in collector.log
    await finish(nats_server, network)


@pytest.mark.usefixtures("traffic")
async def test_a_version_with_other_maps_publishes_what_the_one_before_counted(
    collector: Restarting, nats_server: NatsServer, network: Network, bpf_fs: Path
) -> None:
    collector.kill()
    before = {each.name for each in (bpf_fs / "flowverdict" / "test").iterdir()}
    assert len(before) == 1
    await asyncio.sleep(1)
    collector.start(FLOWVERDICT_MAX_FLOWS="4096")
    await eventually(lambda: "published what an earlier version counted" in collector.log, 60)

    def now() -> set[str]:
        return {each.name for each in (bpf_fs / "flowverdict" / "test").iterdir()}

    await eventually(lambda: len(now()) == 1)
    assert not now() & before
    network.stop_traffic()
    await eventually(lambda: network.tcp_total("CurrEstab") == 0, 60)


@pytest.mark.usefixtures("traffic")
async def test_a_pin_that_somebody_removed_is_made_again(
    collector: Restarting, nats_server: NatsServer, network: Network, bpf_fs: Path
) -> None:
    collector.kill()
    (link,) = bpf_fs.rglob("link-*-tcp_probe")
    link.unlink()
    collector.start()
    await collector.is_ready()
    assert list(bpf_fs.rglob("link-*-tcp_probe"))
    await asyncio.sleep(3)
    await finish(nats_server, network)


@pytest.mark.usefixtures("traffic")
async def test_going_back_to_earlier_maps_that_were_not_published_yet_doubles_nothing(
    collector: Restarting, nats_server: NatsServer, network: Network
) -> None:
    nats_server.stop()
    for flows in ("4096", "65536", "4096"):
        await asyncio.sleep(0.5)
        collector.kill()
        collector.start(FLOWVERDICT_MAX_FLOWS=flows)
        await eventually(lambda: "counting" in collector.log, 60)
    nats_server.start()
    await collector.is_ready()
    await finish(nats_server, network)


async def test_refused_connects_are_counted_once_while_a_pin_is_made_again(
    collector: Restarting, nats_server: NatsServer, network: Network, bpf_fs: Path
) -> None:
    pod, other = network.cluster.pods[0], network.cluster.pods[1]
    code = "import socket, sys\nwhile True:\n    socket.socket().connect_ex((sys.argv[1], 9))\n"
    inside = ["nsenter", f"--net=/proc/{network.pid(pod.name)}/ns/net", "--", sys.executable]
    caller = subprocess.Popen([*inside, "-c", code, other.ipv4])
    try:
        await asyncio.sleep(0.5)
        collector.kill()
        (link,) = bpf_fs.rglob("link-*-tcp_probe")
        link.unlink()
        collector.start()
        await collector.is_ready()
    finally:
        caller.kill()
        caller.wait()
    await agrees(nats_server, network, fails_equal_kernel)


async def test_unpinning_leaves_nothing_and_refuses_while_a_collector_runs(
    collector: Restarting, bpf_fs: Path
) -> None:
    def unpin() -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [COLLECTOR, "--unpin"],
            env={"FLOWVERDICT_PIN_DIRECTORY": str(bpf_fs), "FLOWVERDICT_NODE": "test"},
            capture_output=True,
            text=True,
            check=False,
        )

    refused = unpin()
    assert refused.returncode == 1
    assert "a running collector of node test uses" in refused.stderr
    collector.stop()
    assert list(bpf_fs.rglob("link-*"))
    done = unpin()
    assert done.returncode == 0, done.stderr
    assert "detached and freed" in done.stdout
    assert not (bpf_fs / "flowverdict").exists()
    assert "nothing is pinned" in unpin().stdout


async def test_a_second_collector_of_the_node_waits_for_the_first(
    collector: Restarting, nats_server: NatsServer, tmp_path: Path, bpf_fs: Path, network: Network
) -> None:
    (tmp_path / "second").mkdir()
    second = Restarting(nats_server, tmp_path / "second", bpf_fs, network)
    await eventually(lambda: "another collector still uses" in second.log)
    assert "counting" not in second.log
    collector.stop()
    await second.is_ready()
    second.stop()


async def test_without_a_bpf_file_system_it_counts_and_says_what_it_cannot(
    nats_server: NatsServer, tmp_path: Path, network: Network
) -> None:
    (tmp_path / "plain").mkdir()
    running = Restarting(nats_server, tmp_path / "plain", tmp_path, network)
    await running.is_ready()
    assert "is not on a BPF file system" in running.log
    running.stop()
