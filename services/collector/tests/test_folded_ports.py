"""All connections of a client to one port of a server as one flow."""

import socket
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from conftest import Collector, NatsServer, eventually
from flowverdict_lab.free_port import free_port
from flowverdict_lab.live_support import why_not_live

REASON = why_not_live()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no eBPF: {REASON}")


@pytest.fixture
async def collector(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> AsyncIterator[Collector]:
    started = Collector(
        nats_server,
        tmp_path,
        FLOWVERDICT_FOLD_CLIENT_PORTS="on",
        FLOWVERDICT_INTERVAL_SECONDS="0.2",
    )
    await started.listen(nats_client)
    yield started
    started.stop()


async def test_refused_connects_and_their_resets_have_no_client_port_at_either_end(
    collector: Collector,
) -> None:
    port = free_port()
    for _ in range(20):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port))

    def counted() -> dict[str, int]:
        return {
            name: sum(int(each[name]) for each in collector.of_port(port))
            for name in ("refused_opens", "resets_received")
        }

    await eventually(lambda: counted() == {"refused_opens": 20, "resets_received": 20})
    ends = {(int(each["src_port"]), int(each["dst_port"])) for each in collector.of_port(port)}
    assert ends <= {(0, port), (port, 0)}


async def test_both_ends_of_established_connections_have_the_servers_port_only(
    collector: Collector,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        for _ in range(20):
            with socket.create_connection(server.getsockname()) as client:
                accepted, _ = server.accept()
                client.sendall(b"x" * 10)
                with accepted:
                    accepted.recv(10)
    for role in ("client", "server"):
        await eventually(lambda role=role: collector.total(port, role, "opens") == 20)
    assert collector.total(port, "client", "bytes_sent") == 200
    ends = {(int(each["src_port"]), int(each["dst_port"])) for each in collector.of_port(port)}
    assert ends == {(0, port), (port, 0)}
