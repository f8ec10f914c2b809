"""Counts equal the kernel's, however many connections there are, and whatever happens to NATS."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from bench.processes import peak_mebibytes
from conftest import Collector, NatsServer, eventually
from flowverdict_lab.faults import parse_fault
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import Network
from tests.kernel_counts import (
    SKIPPED,
    equals_kernel,
    opens_equal_kernel,
    records_of,
)
from tests.many_connections import open_and_close, send_in_parallel, serve

REASON = why_not_live()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no live run: {REASON}")


@pytest.fixture
async def collector(
    request: pytest.FixtureRequest, network: Network, nats_server: NatsServer, tmp_path: Path
) -> AsyncIterator[Collector]:
    """A collector of the pods' namespaces that swaps its maps every 100 ms, with the settings that
    a test may give as the fixture's parameter.
    """
    started = Collector(
        nats_server,
        tmp_path,
        FLOWVERDICT_INTERVAL_SECONDS="0.1",
        FLOWVERDICT_NETWORK_NAMESPACES=",".join(map(str, network.namespaces())),
        **getattr(request, "param", {}),
    )
    await eventually(lambda: "ready: nats" in started.log.read_text(), 60)
    yield started
    started.stop()


@pytest.mark.usefixtures("collector")
async def test_200_lossy_connections_at_a_time_are_counted_right_while_nats_is_killed_twice(
    network: Network, nats_server: NatsServer, nats_client: Client
) -> None:
    client, server = network.cluster.pods[0], network.cluster.pods[2]
    serve(network, server)
    fault = parse_fault("pod-loss", client.name, 10, network.cluster)
    fault.inject(network)
    sending = send_in_parallel(network, client, server, 200, 700_000)
    for enough in (2_000, 5_000):
        await eventually(lambda enough=enough: network.tcp_total("RetransSegs") > enough, 120)
        nats_server.kill()
        await asyncio.sleep(2)  # the length of the outage, not a wait for anything
        nats_server.start()
    await eventually(lambda: sending.poll() is not None, 300)
    assert sending.returncode == 0
    fault.remove(network)
    await eventually(lambda: network.tcp_total("CurrEstab") == 0, 60)
    assert network.tcp_total("RetransSegs") > 10_000
    jetstream = nats_client.jetstream(timeout=10)
    await eventually(lambda: equals_kernel(jetstream, network), 60)
    await eventually(lambda: opens_equal_kernel(jetstream, network))


@pytest.mark.parametrize(
    ("collector", "client_ports"),
    [
        ({}, "kept"),
        ({"FLOWVERDICT_FOLD_CLIENT_PORTS": "on", "FLOWVERDICT_MAX_FLOWS": "1024"}, "folded"),
    ],
    ids=["each counted by itself", "folded, in maps for 1,024 flows"],
    indirect=["collector"],
)
async def test_100_000_short_connections_are_counted_right_in_bounded_memory(
    collector: Collector, client_ports: str, network: Network, nats_client: Client
) -> None:
    connections, ports = 100_000, 8
    client, server = network.cluster.pods[:2]
    serve(network, server, ports)
    opening = open_and_close(network, client, server, connections, ports)
    await eventually(lambda: opening.poll() is not None, 300)
    assert opening.returncode == 0
    jetstream = nats_client.jetstream(timeout=10)
    await eventually(lambda: opens_equal_kernel(jetstream, network), 60)
    records = await records_of(jetstream)
    sent = records[(records["dst_port"] >= 9000) & (records["dst_port"] < 9000 + ports)]
    assert int(sent["bytes_sent"].sum()) == pytest.approx(connections, abs=SKIPPED)
    assert (set(sent["src_port"].tolist()) == {0}) == (client_ports == "folded")
    lost = [each for each in collector.metrics().splitlines() if "collector_lost_total{" in each]
    assert lost
    assert all(each.endswith(" 0.0") for each in lost), lost
    assert peak_mebibytes(collector.process.pid) < 64
