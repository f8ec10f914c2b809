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
from tests.dns_traffic import look_up, look_up_over_tcp, serve, serve_tcp

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
    names = ["0", "0", "0", "3", "3", "2", "5", "9", "1", "4", "6"]
    look_up(network, client, address, names)
    expected = {
        "dns_lookups": 11,
        "dns_answers": 10,
        "dns_name_errors": 2,
        "dns_failures": 5,
        "dns_format_errors": 1,
        "dns_server_failures": 1,
        "dns_not_implemented": 1,
        "dns_refused": 1,
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


async def test_each_lookup_has_its_name_however_it_is_written(
    network: Network, collector: Collector
) -> None:
    client, server, *_ = network.cluster.pods
    serve(network, server, server.ipv4)
    long = "0" + "x" * 62
    look_up(network, client, server.ipv4, ["0API", "0api", "3-None", long, "0 \x07"])

    def lookups() -> dict[str, int]:
        found: dict[str, int] = {}
        for record, name in zip(collector.records, collector.dns_names, strict=True):
            if record["dns_lookups"]:
                found[name] = found.get(name, 0) + int(record["dns_lookups"])
        return found

    await eventually(lambda: sum(lookups().values()) == 5)
    assert lookups() == {"0api": 2, "3-none": 1, long: 1, r"0\032\007": 1}


async def test_what_follows_a_packet_in_the_kernels_memory_is_no_name(
    network: Network, collector: Collector
) -> None:
    client, server, *_ = network.cluster.pods
    network.inside(client.name, [sys.executable, "-c", SHORT_QUERIES, server.ipv4])
    await eventually(lambda: collector.total(53, "client", "dns_lookups") == 30)
    assert set(collector.dns_names) == {""}


async def test_more_names_than_there_is_room_for_are_counted_all_the_same(
    network: Network, collector: Collector
) -> None:
    client, server, *_ = network.cluster.pods
    serve(network, server, server.ipv4)
    names = [f"0{number}" for number in range(6000)]
    for first in range(0, len(names), 200):  # ids have a byte
        look_up(network, client, server.ipv4, names[first : first + 200])
    await eventually(lambda: collector.total(53, "client", "dns_answers") == len(names), 60)
    known = set(collector.dns_names) - {""}
    assert known <= set(names)
    assert len(known) > 3000


async def test_a_lookup_over_tcp_is_answered_unless_its_connection_ends_first(
    network: Network, collector: Collector
) -> None:
    client, server, *_ = network.cluster.pods
    serve_tcp(network, server)
    look_up_over_tcp(network, client, server, ["0", "0", "9"])
    expected = {"dns_lookups": 3, "dns_answers": 2, "dns_unanswered": 1, "opens": 3}
    await eventually(
        lambda: {name: collector.total(53, "client", name) for name in expected} == expected
    )
    asked = [each for each in collector.of_port(53) if each["dns_answers"]]
    assert all(0 < each["dns_answer_us"] < 30_000_000 for each in asked)
    assert not any(collector.total(53, "server", name) for name in expected if "dns" in name)


# Queries that end after their header, in a label, and before the label that ends a name.
SHORT_QUERIES = """
import socket, sys
for number in range(30):
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.connect((sys.argv[1], 53))
        rest = (b"", b"\\x3fabc", b"\\x03abc")[number % 3]
        client.send(bytes([7, number, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0]) + rest)
"""
CONNECT = "import socket, sys; socket.create_connection((sys.argv[1], 8080), 10).close()"
