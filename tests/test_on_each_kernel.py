"""What must hold on every kernel that Flowverdict runs on; script/kernels boots others for it."""

import contextlib
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import msgspec
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg

from conftest import Collector, NatsServer, eventually
from flowverdict_contracts import enriched, raw_records
from flowverdict_contracts.verdicts import Verdict
from flowverdict_enricher import inventory
from flowverdict_enricher.directory import Directory
from flowverdict_enricher.enrich import enrich
from flowverdict_enricher.inventory import Inventory
from flowverdict_lab.cluster import Pod
from flowverdict_lab.live_support import bpf_file_system, why_not_live
from flowverdict_lab.network import LabError, Network
from flowverdict_rca.panes import Panes
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window_judge import WindowJudge
from flowverdict_runtime.settings import load
from tests.kernel_counts import equals_kernel, opens_equal_kernel
from tests.test_restarts import Restarting

REASON = why_not_live()
live = pytest.mark.skipif(REASON is not None, reason=f"no live run: {REASON}")
REQUESTS_PER_SECOND = 2


class Heard:
    """What a collector publishes, and the verdicts on it.

    Attributes:
        intervals: how many messages there were.
    """

    def __init__(self, network: Network) -> None:
        settings = load(RcaSettings, {})
        self._directory = Directory()
        names = msgspec.json.decode(network.cluster.inventory(), type=Inventory)
        inventory.apply(names, self._directory, 0, time.time_ns())
        self._panes, self._judge = Panes(settings), WindowJudge(settings)
        self.intervals = 0
        self.verdicts: list[Verdict] = []

    async def hear(self, message: Msg) -> None:
        """Take a message on `flows.raw`."""
        read = raw_records.read(message.headers, message.data)
        header = read.header
        self.intervals += 1
        batch, _ = enrich(
            read.records, self._directory, (header.start_ns, header.end_ns), header.node
        )
        self._panes.add(header, enriched.completed(batch), self.intervals)
        for window in self._panes.windows():
            self.verdicts += self._judge.judge(window)
            if self._panes.long_window:
                self.verdicts += self._judge.judge_long(self._panes.long_window)

    def blamed(self) -> set[str]:
        """The first cause of each verdict."""
        return {str(each.causes[0]) if each.causes else "nobody" for each in self.verdicts}


@pytest.fixture
async def heard(
    network: Network, nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> AsyncIterator[Heard]:
    """What a collector of the lab's namespaces publishes."""
    everything = Heard(network)
    await nats_client.subscribe("flows.raw.test", cb=everything.hear)
    namespaces = ",".join(map(str, network.namespaces()))
    collector = Collector(nats_server, tmp_path, FLOWVERDICT_NETWORK_NAMESPACES=namespaces)
    await eventually(lambda: everything.intervals)
    yield everything
    collector.stop()


@contextlib.contextmanager
def netem(network: Network, pod: Pod, *what: str) -> Iterator[None]:
    """Impair the pod's wire each way, as tc-netem(8) says."""
    ends = ((pod.node.name, network.port_of(pod)), (pod.name, "eth0"))
    try:
        for where, interface in ends:
            network.inside(where, ["tc", "qdisc", "add", "dev", interface, "root", "netem", *what])
    except LabError as error:
        if "qdisc kind is unknown" in str(error):
            pytest.skip("this kernel has no netem: script/kernels boots some that have it")
        raise
    yield
    for where, interface in ends:
        network.inside(where, ["tc", "qdisc", "delete", "dev", interface, "root"])


@live
async def test_under_loss_every_count_is_the_kernels_and_the_lossy_pod_is_named(
    network: Network, heard: Heard, nats_client: Client
) -> None:
    pod = network.cluster.pods[1]
    network.start_traffic(REQUESTS_PER_SECOND)
    with netem(network, pod, "loss", "20%"):
        await eventually(lambda: network.tcp_total("RetransSegs") > 200, 60)
        await eventually(lambda: f"pod default/{pod.name}" in heard.blamed())
    network.stop_traffic()
    await eventually(lambda: network.tcp_total("CurrEstab") == 0, 60)

    jetstream = nats_client.jetstream(timeout=10)
    await eventually(lambda: equals_kernel(jetstream, network), 60)
    await eventually(lambda: opens_equal_kernel(jetstream, network), 60)
    assert heard.blamed() == {f"pod default/{pod.name}"}


@live
async def test_other_maps_take_over_while_packets_are_lost_and_no_count_is_missing(
    network: Network, nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    said = "published what an earlier version counted"
    with bpf_file_system(tmp_path / "bpf") as pins, contextlib.ExitStack() as running:
        collector = Restarting(nats_server, tmp_path, pins, network)
        running.callback(collector.stop)
        await collector.is_ready()
        network.start_traffic(REQUESTS_PER_SECOND)
        with netem(network, network.cluster.pods[1], "loss", "20%"):
            for flows in ("4096", "8192"):
                before = network.tcp_total("RetransSegs")
                await eventually(lambda n=before: network.tcp_total("RetransSegs") > n + 50, 60)
                collector.kill()
                collector.start(FLOWVERDICT_MAX_FLOWS=flows)
                await eventually(lambda: said in collector.log, 60)
        network.stop_traffic()
        await eventually(lambda: network.tcp_total("CurrEstab") == 0, 60)
        jetstream = nats_client.jetstream(timeout=10)
        await eventually(lambda: equals_kernel(jetstream, network), 60)


@live
async def test_a_pod_whose_packets_are_late_and_unevenly_so_is_named_for_latency_and_jitter(
    network: Network, heard: Heard
) -> None:
    pod = network.cluster.pods[1]
    network.start_traffic(REQUESTS_PER_SECOND)
    since = heard.intervals
    await eventually(lambda: heard.intervals > since + 150, 200)
    assert not heard.verdicts

    def opened() -> Verdict | None:
        return next((each for each in heard.verdicts if each.basis == "latency"), None)

    with netem(network, pod, "delay", "300ms", "100ms"):
        verdict = await eventually(opened, 120)
    assert str(verdict.causes[0]) == f"pod default/{pod.name}"
    assert verdict.conditions == ("HIGH_LATENCY", "HIGH_JITTER")
