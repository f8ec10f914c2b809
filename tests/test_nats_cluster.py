"""deploy/k8s/overlays/production: three NATS servers, TLS, three copies of each stream."""

import os
import re
import sys
import urllib.request
from pathlib import Path

import pytest
from nats.aio.msg import Msg

from conftest import eventually
from flowverdict_contracts import subjects, verdicts
from flowverdict_lab import recording
from flowverdict_lab.demo import SHIPPED_RECORDING
from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process
from flowverdict_runtime.context import Context
from flowverdict_runtime.streams import publish_until_stored
from tests.users import (
    CONF,
    UsersPipeline,
    certificates,
    connected_as,
    give_passwords,
    refused_check,
)

PRODUCTION = CONF.parents[1] / "k8s/overlays/production"
SERVERS = ("nats-0", "nats-1", "nats-2")


class Cluster(UsersPipeline):
    """The pipeline with three NATS servers, by the production overlay's nats.conf."""

    def __init__(self, folder: Path, inventory: str) -> None:
        self.client_ports = {name: free_port() for name in SERVERS}
        self.ca = folder / "tls/ca.crt"
        environ = {"FLOWVERDICT_NATS_CA": str(self.ca), "FLOWVERDICT_STREAM_REPLICAS": "3"}
        super().__init__(folder, inventory, collector=False, environ=environ)

    @property
    def nats_url(self) -> str:
        return ",".join(f"tls://127.0.0.1:{port}" for port in self.client_ports.values())

    def start_nats(self) -> None:
        certificates(self.folder / "tls")
        conf = (PRODUCTION / "nats.conf").read_text()
        conf = conf.replace("/etc/nats-tls", str(self.folder / "tls"))
        conf = conf.replace("include users.conf", f"include {os.path.relpath(CONF, self.folder)}")
        routes = {name: free_port() for name in SERVERS}
        for name, port in routes.items():
            conf = conf.replace(f"{name}.nats-headless:6222", f"127.0.0.1:{port}")
        for name in SERVERS:
            mine = conf.replace("port: 6222", f"listen: 127.0.0.1:{routes[name]}")
            mine = mine.replace("port: 4222", f"listen: 127.0.0.1:{self.client_ports[name]}")
            mine = mine.replace("0.0.0.0:8222", f"127.0.0.1:{free_port()}")
            mine = mine.replace("store_dir: /data", f"store_dir: {self.folder / name}")
            (self.folder / f"{name}.conf").write_text(mine)
            self.start_server(name)

    def start_server(self, name: str) -> None:
        argv = [str(Path(sys.executable).with_name("nats-server"))]
        argv += ["--config", str(self.folder / f"{name}.conf"), "--name", name]
        self._processes[name] = start_process(argv, self.logs / f"{name}.log")


def servers_up(cluster: Cluster) -> dict[str, int]:
    """Whether each NATS server answers, as the exporter's page says."""
    with urllib.request.urlopen(cluster.url("exporter", "/metrics"), timeout=5) as answer:
        page = answer.read().decode()
    return {
        name: int(float(up))
        for name, up in re.findall(
            r'^flowverdict_nats_server_up\{server="(.+)"\} (.+)$', page, re.MULTILINE
        )
    }


async def test_with_three_servers_and_tls_a_verdict_comes_though_one_is_killed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    give_passwords(monkeypatch)
    about, messages = recording.read(SHIPPED_RECORDING)
    cluster = Cluster(tmp_path, about.inventory)
    ca = str(cluster.ca)
    with cluster:
        heard: list[verdicts.Verdict] = []

        async def hear(message: Msg) -> None:
            heard.append(verdicts.decode(message.data))

        async with (
            connected_as("reader", cluster.nats_url, ca) as (reader, _),
            connected_as("collector", cluster.nats_url, ca) as (collector, _),
        ):
            jetstream = reader.jetstream(timeout=10)
            for name in (*subjects.STREAMS, "KV_rca_state", "KV_exporter_state"):
                info = await jetstream.stream_info(name)
                assert info.config.num_replicas == 3, name
            leader = (await jetstream.stream_info(subjects.FLOWS_ENRICHED)).cluster
            assert leader is not None
            assert leader.leader in SERVERS
            await eventually(lambda: servers_up(cluster) == dict.fromkeys(SERVERS, 1), 30)
            await reader.subscribe(subjects.SUBJECT_VERDICTS, cb=hear)
            await reader.flush()
            publishing = collector.jetstream(timeout=2)
            for number, each in enumerate(messages):
                if number == 10:
                    cluster.kill(leader.leader)
                assert await publish_until_stored(
                    publishing, Context(), each.subject, each.body, each.headers
                )

            def named() -> set[str]:
                return {str(each.causes[0]) for each in heard if each.causes}

            await eventually(named, 90)
            assert named() == {"pod default/pod-a"}
            down = dict.fromkeys(SERVERS, 1) | {leader.leader: 0}
            await eventually(lambda: servers_up(cluster) == down, 90)


async def test_what_starts_while_nats_has_no_quorum_is_ready_soon_after_it_has_one(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    give_passwords(monkeypatch)
    cluster = Cluster(tmp_path, "{}")
    cluster.logs.mkdir()
    (tmp_path / "inventory.json").write_text("{}")
    try:
        cluster.start_nats()
        for name in SERVERS[1:]:
            cluster.kill(name)
        for service in cluster.services:
            cluster.start(service)

        def attempts_fail() -> bool:
            try:
                counts = [
                    cluster.metric(service, "flowverdict_retries_total")
                    for service in cluster.services
                ]
            except OSError:  # it does not listen yet
                return False
            return min(counts) > 2

        await eventually(attempts_fail, 60)
        for name in SERVERS[1:]:
            cluster.start_server(name)
        cluster.wait_ready(30)
    finally:
        cluster.close()


async def test_a_server_that_no_known_authority_vouches_for_is_not_spoken_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    give_passwords(monkeypatch)
    cluster = Cluster(tmp_path, "{}")
    cluster.logs.mkdir()
    try:
        cluster.start_nats()

        async def refused() -> bool:
            said = await refused_check(cluster.nats_url)
            return bool(re.search("certificate verify failed.*FLOWVERDICT_NATS_CA", said))

        await eventually(refused)
    finally:
        cluster.close()
