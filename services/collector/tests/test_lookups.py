"""DNS lookups, counted at the end that asks."""

import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from conftest import Collector, NatsServer, eventually
from flowverdict_contracts import raw
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import Network
from tests.dns_traffic import look_up, serve

REASON = why_not_live()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no eBPF: {REASON}")


@pytest.fixture
async def collector(
    network: Network, nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> AsyncIterator[Collector]:
    """A collector that counts lookups in the pods' namespaces."""
    namespaces = ",".join(map(str, network.namespaces()))
    started = Collector(
        nats_server,
        tmp_path,
        FLOWVERDICT_DNS="on",
        FLOWVERDICT_INTERVAL_SECONDS="0.2",
        FLOWVERDICT_NETWORK_NAMESPACES=namespaces,
    )
    await started.listen(nats_client)
    yield started
    started.stop()


@pytest.mark.parametrize("family", ["ipv4", "ipv6"])
async def test_lookups_are_counted_by_client_and_server_with_how_they_ended(
    network: Network, collector: Collector, family: str
) -> None:
    client, server, *_ = network.cluster.pods
    address = str(getattr(server, family))
    serve(network, server, address)
    names = ["0", "0", "0", "3", "3", "2", "5", "9"]
    look_up(network, client, address, names)
    expected = {
        "dns_lookups": 8,
        "dns_answers": 7,
        "dns_name_errors": 2,
        "dns_failures": 2,
        "dns_unanswered": 1,
    }

    def counted() -> dict[str, int]:
        # What was given up is noticed when anything else happens: here, a TCP connection.
        network.inside(client.name, [sys.executable, "-c", CONNECT, str(server.ipv4)])
        return {name: collector.total(53, "client", name) for name in expected}

    await eventually(lambda: counted() == expected)
    records = collector.of_port(53)
    assert {int(each["src_port"]) for each in records} == {0}
    assert all(each["role"] == raw.ROLES.index("client") for each in records)
    assert any(0 < each["dns_answer_us"] < 30_000_000 for each in records)


CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 8080), 10).close()"
