"""NATS servers on the exporter's page."""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client import CollectorRegistry, generate_latest

from conftest import NATS_THAT_TELLS, NatsServer, connected_to, eventually
from flowverdict_exporter import nats_servers
from flowverdict_exporter.nats_servers import NatsServers
from flowverdict_runtime.context import Context


@pytest.fixture
def page() -> tuple[NatsServers, Callable[[], dict[str, float]]]:
    """The servers, and what Prometheus gets of them."""
    registry, servers = CollectorRegistry(), NatsServers()
    registry.register(servers)

    def scraped() -> dict[str, float]:
        lines = generate_latest(registry).decode().splitlines()
        pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
        return {series: float(value) for series, _, value in pairs}

    return servers, scraped


def named(tmp_path: Path, conf: str = NATS_THAT_TELLS) -> NatsServer:
    (tmp_path / "nats.conf").write_text(conf)
    server = NatsServer(tmp_path, "-c", str(tmp_path / "nats.conf"))
    server.start()
    return server


UP = 'flowverdict_nats_server_up{server="nats-0"}'


async def test_a_server_shows_how_it_is_and_that_it_is_down_and_up_again(
    page: tuple[NatsServers, Callable[[], dict[str, float]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nats_servers, "_ASK_EACH_SECONDS", 0.05)
    monkeypatch.setattr(nats_servers, "_DOWN_AFTER_SECONDS", 1.0)
    servers, scraped = page
    server, context = named(tmp_path), Context()
    try:
        client = await connected_to(server)
        await servers.listen(client)
        asking = asyncio.create_task(servers.ask(context))
        await eventually(lambda: scraped().get(UP) == 1)
        about = {
            name: scraped()[f'flowverdict_nats_server_{name}{{server="nats-0"}}']
            for name in ("memory_bytes", "connections", "slow_consumers_total", "stored_bytes")
        }
        assert about["memory_bytes"] > 1e6
        assert (about["connections"], about["slow_consumers_total"]) == (1, 0)
        started = scraped()['flowverdict_nats_server_start_timestamp_seconds{server="nats-0"}']
        assert abs(time.time() - started) < 60
        assert scraped()['flowverdict_nats_server_storage_limit_bytes{server="nats-0"}'] > 1e9
        await client.jetstream().add_stream(name="S", subjects=["s"])
        await client.jetstream().publish("s", bytes(10_000))
        stored = 'flowverdict_nats_server_stored_bytes{server="nats-0"}'
        await eventually(lambda: scraped().get(stored, 0) > 10_000)
        server.kill()
        await eventually(lambda: scraped() == {UP: 0})
        server.start()
        await eventually(lambda: scraped().get(UP) == 1)
        context.stopping.set()
        await asking
        await client.close()
    finally:
        server.stop()


async def test_a_server_that_is_down_is_forgotten_in_the_end_and_one_without_a_name_at_once(
    page: tuple[NatsServers, Callable[[], dict[str, float]]],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nats_servers, "_ASK_EACH_SECONDS", 0.05)
    monkeypatch.setattr(nats_servers, "_DOWN_AFTER_SECONDS", 1.0)
    servers, scraped = page
    for conf in (NATS_THAT_TELLS, NATS_THAT_TELLS.replace("server_name: nats-0", "")):
        server, context = named(tmp_path, conf), Context()
        client = await connected_to(server)
        await servers.listen(client)
        asking = asyncio.create_task(servers.ask(context))
        await eventually(lambda: 1 in [v for k, v in scraped().items() if "_up{" in k])
        context.stopping.set()
        await asking
        await client.close()
        server.stop()
        await eventually(lambda: scraped() == {UP: 0})
    monkeypatch.setattr(nats_servers, "_FORGOTTEN_AFTER_SECONDS", 1.0)
    await eventually(lambda: scraped() == {})


async def test_a_nats_that_does_not_tell_is_asked_in_vain_and_nothing_is_shown(
    page: tuple[NatsServers, Callable[[], dict[str, float]]],
    nats_client: Client,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(nats_servers, "_ASK_EACH_SECONDS", 0.05)
    servers, scraped = page
    asked: list[str] = []

    async def ask(message: Msg) -> None:
        asked.append(message.subject)
        for answer in (b"", b"{", b'{"server": {"name": 5}}', b'{"server": {"name": "\xff"}}'):
            await message.respond(answer)

    context = Context()
    await nats_client.subscribe("$SYS.REQ.SERVER.PING.STATSZ", cb=ask)
    await servers.listen(nats_client)
    asking = asyncio.create_task(servers.ask(context))
    await eventually(lambda: len(asked) > 3)
    context.stopping.set()
    await asking
    assert scraped() == {}
