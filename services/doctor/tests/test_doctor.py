"""The doctor: what is well, what is not, and what to do."""

import asyncio
import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
from nats.aio.client import Client

from conftest import NatsServer, enriched_batch, eventually, flow_row, header
from flowverdict_contracts import enriched
from flowverdict_contracts.subjects import FLOWS_ENRICHED, FLOWS_RAW, SUBJECT_ENRICHED, raw_subject
from flowverdict_doctor import node
from flowverdict_doctor.finding import Finding
from flowverdict_runtime.streams import ensure_streams
from tests.real_influxdb import InfluxDB
from tests.skips import needs_influxdb
from tests.stand_ins.kubernetes import KubernetesStandIn
from tests.stand_ins.listening import Listening


class Stores(Listening):
    """Every HTTP server that the doctor asks, on one port; `answers` by path."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.answers: dict[str, tuple[int, Any]] = {
            "/readyz": (200, {"ready": True, "waiting": {}}),
            "/api/v1/targets": (200, {"data": {"activeTargets": [target("up")]}}),
            "/api/v1/rules": (200, {"data": {"groups": [{"name": "flowverdict-verdicts"}]}}),
            "/health": (200, {"status": "pass"}),
            "/api/v2/buckets": (200, {"buckets": [{"name": "flowverdict"}]}),
            "/api/v2/write": (404, {"code": "not found"}),
            "/api/health": (200, {"database": "ok", "version": "12.1.0"}),
        }


def target(health: str, error: str = "") -> dict[str, Any]:
    labels = {"job": "flowverdict-rca"}
    return {"labels": labels, "scrapeUrl": "http://rca", "health": health, "lastError": error}


class Handler(BaseHTTPRequestHandler):
    stand_in: Stores

    def do_POST(self) -> None:
        self.do_GET()

    def do_GET(self) -> None:
        status, answer = self.stand_in.answers[self.path.split("?")[0]]
        body = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def stores() -> Iterator[Stores]:
    stand_in = Stores()
    stand_in.start()
    yield stand_in
    stand_in.stop()


@pytest.fixture
def api() -> Iterator[KubernetesStandIn]:
    stand_in = KubernetesStandIn()
    stand_in.start()
    yield stand_in
    stand_in.stop()


def doctor(*arguments: str, **settings: str) -> tuple[int, list[Finding], str]:
    """Exit status, findings, and what stands on standard error."""
    environ = {name: value for name, value in os.environ.items() if "FLOWVERDICT" not in name}
    environ |= {f"FLOWVERDICT_{name}": value for name, value in settings.items()}
    argv = [sys.executable, "-m", "flowverdict_doctor", "--json", *arguments]
    done = subprocess.run(
        argv, env=environ, capture_output=True, text=True, timeout=120, check=False
    )
    lines = [Finding(**json.loads(line)) for line in done.stdout.splitlines()]
    return done.returncode, lines, done.stderr


def of_stores(stores: Stores, **settings: str) -> tuple[int, list[Finding]]:
    named = dict.fromkeys(("PROMETHEUS_URL", "INFLUX_URL", "GRAFANA_URL"), stores.url)
    named |= {"SERVICES": f"rca={stores.url}", "INFLUX_TOKEN": "secret"}
    status, found, _ = doctor("stores", **{**named, **settings})
    return status, found


def test_stores_that_are_well_are_ok(stores: Stores) -> None:
    status, found = of_stores(stores)
    assert status == 0
    assert {each.level for each in found} == {"ok"}
    assert [each.what for each in found] == ["rca", "Prometheus", "InfluxDB", "Grafana"]


WRONG = [
    ("/readyz", 503, {"waiting": {"nats": "lost nats://x"}}, "rca", "broken", "nats: lost nats://x"),
    ("/readyz", 200, b"<html>", "rca", "broken", "but no JSON"),
    ("/readyz", 200, {"status": "I am another"}, "rca", "broken", "not a Flowverdict service"),
    ("/readyz", 503, {"waiting": [1]}, "rca", "broken", "not a Flowverdict service"),
    ("/api/v2/buckets", 500, {"code": "internal"}, "InfluxDB", "broken", "returned 500"),
    ("/api/v2/buckets", 200, {"buckets": [{"name": "x"}]}, "InfluxDB", "broken", "no bucket"),
    ("/api/v1/targets", 200, {"data": {"activeTargets": [{"labels": []}]}}, "stores", "broken",
     "failed unexpectedly"),
    ("/api/v1/targets", 200, {"data": {"activeTargets": []}}, "Prometheus", "broken", "none of"),
    (
        "/api/v1/targets", 200, {"data": {"activeTargets": [target("down", "refused")]}},
        "Prometheus", "broken", "refused",
    ),
    ("/api/v1/rules", 200, {"data": {"groups": []}}, "Prometheus", "warning", "not loaded"),
    ("/health", 503, {"status": "fail", "message": "disk"}, "InfluxDB", "broken", "disk"),
    ("/api/v2/buckets", 401, {"code": "unauthorized"}, "InfluxDB", "broken", "rejects the token"),
    ("/api/v2/buckets", 200, {"buckets": []}, "InfluxDB", "broken", "no bucket flowverdict"),
    ("/api/health", 503, {"database": "failing"}, "Grafana", "broken", "failing"),
    ("/api/health", 302, b"", "Grafana", "broken", "but no JSON"),
]  # fmt: skip


@pytest.mark.parametrize("wrong", WRONG)
def test_what_is_wrong_with_a_store_is_reported_with_what_to_do(
    stores: Stores, wrong: tuple[str, int, Any, str, str, str]
) -> None:
    path, status, answer, what, level, said = wrong
    stores.answers[path] = status, answer
    exit_status, found = of_stores(stores)
    (finding,) = [each for each in found if each.level != "ok"]
    assert (finding.what, finding.level) == (what, level)
    assert said in finding.detail
    assert finding.advice
    assert exit_status == (level == "broken")


@needs_influxdb
def test_a_token_is_judged_by_what_it_can_do_with_the_bucket(
    stores: Stores, tmp_path: Path
) -> None:
    with InfluxDB(tmp_path) as influxdb:
        assert influxdb.set_up(tmp_path).returncode == 0
        read, write = (
            (tmp_path / f"influxdb-{each}-token").read_text() for each in ("read", "write")
        )

        def found(token: str, **settings: str) -> tuple[str, str]:
            named = {"INFLUX_URL": influxdb.url, "INFLUX_TOKEN": token, **settings}
            _, findings = of_stores(stores, **named)
            (finding,) = [each for each in findings if each.what == "InfluxDB"]
            return finding.level, finding.detail.removeprefix(f"{influxdb.url} ")

        assert found(read) == ("ok", "is up, and the token can read the bucket flowverdict")
        assert found(write) == ("ok", "is up, and the token can write to the bucket flowverdict")
        assert found("wrong") == ("broken", "rejects the token")
        assert found(write, INFLUX_ORG="x") == ("broken", "has no bucket flowverdict")
        assert found(read, INFLUX_BUCKET="x") == ("broken", "has no bucket x")
        other = influxdb.token("read", bucket="_tasks")
        assert found(other) == (
            "broken", "the token can neither read nor write the bucket flowverdict",
        )  # fmt: skip


def test_a_store_that_nobody_spoke_of_is_only_a_warning(stores: Stores) -> None:
    stores.stop()
    status, found = of_stores(stores, GRAFANA_URL="")
    levels = {each.what: each.level for each in found}
    assert status == 1
    assert levels["InfluxDB"] == levels["rca"] == "broken"
    assert levels["Grafana"] in ("warning", "ok")  # this machine may have one


def of_nats(url: str) -> tuple[int, list[Finding]]:
    status, found, _ = doctor("nats", NATS_URL=url)
    return status, found


def level_of(found: list[Finding], what: str) -> str:
    (finding,) = [each for each in found if each.what == what]
    return finding.level


async def test_streams_without_readers_and_without_messages_are_broken(
    nats_server: NatsServer, nats_client: Client, raw_body: Callable[..., bytes]
) -> None:
    status, found = of_nats(nats_server.url)
    assert status == 1
    assert level_of(found, "NATS") == "ok"
    assert level_of(found, "stream FLOWS_RAW") == "broken"

    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    status, found = of_nats(nats_server.url)
    assert level_of(found, "stream FLOWS_RAW") == "broken"
    assert level_of(found, "consumer enricher") == "broken"
    assert level_of(found, "stream RCA_VERDICTS") == "ok"

    await jetstream.publish(raw_subject("n1"), raw_body())
    batch = enriched.encode(enriched_batch(flow_row("pod-a@n1", "pod-b@n1")))
    for number in range(1200):
        headers = header(sequence=number + 1).encode(enriched.SCHEMA)
        await jetstream.publish(SUBJECT_ENRICHED, batch, headers=headers)
    await jetstream.pull_subscribe("", durable="enricher", stream=FLOWS_RAW)
    for reader in ("exporter", "rca"):
        subscription = await jetstream.pull_subscribe("", durable=reader, stream=FLOWS_ENRICHED)
    for message in await subscription.fetch(10):
        await message.ack()
    status, found = of_nats(nats_server.url)
    assert status == 1
    for reader in ("enricher", "exporter", "rca"):
        (line,) = [each for each in found if each.what == f"consumer {reader}"]
        assert line.level == "broken"
        assert line.detail.endswith("and nobody is reading")

    async def read(stream: str, reader: str, seconds_each: float, stays_behind: bool) -> None:
        subscription = await jetstream.pull_subscribe_bind(reader, stream)
        while True:
            with contextlib.suppress(TimeoutError):
                for message in await subscription.fetch(1 if stays_behind else 500, timeout=1):
                    await message.ack()
            await asyncio.sleep(seconds_each)

    reading = [
        asyncio.create_task(read(FLOWS_RAW, "enricher", 0, False)),
        asyncio.create_task(read(FLOWS_ENRICHED, "exporter", 1, True)),
        asyncio.create_task(read(FLOWS_ENRICHED, "rca", 0, False)),
    ]
    status, found = await asyncio.to_thread(of_nats, nats_server.url)
    for task in reading:
        task.cancel()
    assert status == 0
    assert level_of(found, "stream FLOWS_RAW") == level_of(found, "consumer enricher") == "ok"
    assert level_of(found, "consumer exporter") == "warning"
    assert level_of(found, "consumer rca") == "ok"


async def test_streams_that_others_set_up_and_a_paused_consumer_are_named(
    nats_server: NatsServer, nats_client: Client
) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(name="ARCHIVE", subjects=["rca.>"])
    await jetstream.add_stream(name=FLOWS_RAW, subjects=["old.flows.>"])
    _, found = of_nats(nats_server.url)
    details = {each.what: each.detail for each in found}
    assert "stores old.flows.>, not flows.raw.>" in details["stream FLOWS_RAW"]
    assert "stream ARCHIVE already stores rca.>" in details["stream RCA_VERDICTS"]
    await jetstream.delete_stream("ARCHIVE")
    await jetstream.delete_stream(FLOWS_RAW)
    await ensure_streams(jetstream)
    await jetstream.pull_subscribe("", durable="enricher", stream=FLOWS_RAW)
    pause = b'{"pause_until": "2100-01-01T00:00:00Z"}'
    await nats_client.request(f"$JS.API.CONSUMER.PAUSE.{FLOWS_RAW}.enricher", pause)
    _, found = of_nats(nats_server.url)
    (line,) = [each for each in found if each.what == "consumer enricher"]
    assert (line.level, line.advice) == ("broken", "nats consumer resume FLOWS_RAW enricher")


async def test_nats_that_is_away_is_reported(nats_server: NatsServer) -> None:
    nats_server.stop()
    status, found = of_nats(nats_server.url)
    assert status == 1
    assert [each.what for each in found] == ["NATS"]
    nats_server.start()
    await eventually(lambda: level_of(of_nats(nats_server.url)[1], "NATS") == "ok")


def a_pod(name: str, part: str, **status: Any) -> dict[str, Any]:
    labels = {"app.kubernetes.io/name": part, "app.kubernetes.io/part-of": "flowverdict"}
    ready = {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]}
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": {"containers": []},
        "status": status or ready,
    }


def test_pods_that_are_not_ready_are_named_with_the_reason(
    api: KubernetesStandIn, tmp_path: Path
) -> None:
    kubeconfig = str(api.kubeconfig(tmp_path))
    status, found, _ = doctor("kubernetes", KUBECONFIG=kubeconfig)
    assert "no Flowverdict pods in flowverdict" in found[-1].detail
    assert (status, found[-1].level) == (0, "warning")
    container = {"name": "c", "ready": False, "image": "", "imageID": "", "restartCount": 3}
    waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 5m"}}
    unscheduled = {"type": "PodScheduled", "status": "False", "message": "0/3 nodes"}
    unready = [{"type": "PodScheduled", "status": "True"}, {"type": "Ready", "status": "False"}]
    for pod in (
        a_pod("rca-1", "rca"),
        a_pod("collector-1", "collector"),
        a_pod("collector-2", "collector", containerStatuses=[container | {"state": waiting}]),
        a_pod("nats-0", "nats", phase="Pending", conditions=[unscheduled]),
        a_pod("enricher-1", "enricher", phase="Running", conditions=unready),
        a_pod("make-1", "make-credentials", phase="Failed"),
        a_pod("doctor-1", "doctor", phase="Running"),
    ):
        api.add(f"/api/v1/namespaces/flowverdict/pods/{pod['metadata']['name']}", pod)
    status, found, _ = doctor("kubernetes", KUBECONFIG=kubeconfig)
    assert status == 1
    assert {each.what: (each.level, each.detail) for each in found[1:]} == {
        "collector": ("broken", "1 of 2 pods ready; collector-2: CrashLoopBackOff: back-off 5m"),
        "enricher": (
            "broken",
            "0 of 1 pods ready; enricher-1: running, but not ready: /readyz says why",
        ),
        "nats": ("broken", "0 of 1 pods ready; nats-0: not scheduled: 0/3 nodes"),
        "rca": ("ok", "1 of 1 pods ready"),
    }


def test_what_the_enricher_may_not_read_is_named(api: KubernetesStandIn, tmp_path: Path) -> None:
    kubeconfig = str(api.kubeconfig(tmp_path))
    api.add("/api/v1/namespaces/flowverdict/pods/rca-1", a_pod("rca-1", "rca"))
    status, found, _ = doctor("kubernetes", KUBECONFIG=kubeconfig)
    assert (status, {each.level for each in found}) == (0, {"ok"})
    api.denied = {"watch pods", "list endpointslices"}
    status, (finding, _), _ = doctor("kubernetes", KUBECONFIG=kubeconfig)
    assert (status, finding.level) == (1, "broken")
    assert finding.detail == "not allowed to watch pods, list endpointslices"
    api.refuse["POST"] = 401
    status, (finding,), _ = doctor("kubernetes", KUBECONFIG=kubeconfig)
    assert "401" in finding.detail
    api.stop()
    status, (finding,), _ = doctor("kubernetes", KUBECONFIG=kubeconfig)
    assert (status, finding.level) == (1, "broken")
    assert "is it reachable" in finding.advice


def test_the_usual_kubeconfigs_are_found_and_what_is_not_looked_at_is_not_ok(
    api: KubernetesStandIn, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    _, (finding,), _ = doctor("kubernetes")
    assert finding.level == "skipped"
    api.add("/api/v1/namespaces/flowverdict/pods/rca-1", a_pod("rca-1", "rca"))
    kubeconfig = api.kubeconfig(tmp_path)
    monkeypatch.setenv("KUBECONFIG", str(kubeconfig))
    assert {each.level for each in doctor("kubernetes")[1]} == {"ok"}
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))
    status, (finding,), _ = doctor("kubernetes")
    assert (status, finding.level) == (1, "broken")
    assert f"{tmp_path}/nowhere is not a valid kubeconfig" in finding.detail
    monkeypatch.delenv("KUBECONFIG")
    usual = tmp_path / "home/.kube/config"
    usual.parent.mkdir(parents=True)
    usual.write_text(kubeconfig.read_text())
    assert {each.level for each in doctor("kubernetes")[1]} == {"ok"}


def machine(root: Path, *, btf: bool = True, capabilities: int = 0, lockdown: str = "") -> Path:
    status = root / "proc/self/status"
    status.parent.mkdir(parents=True)
    status.write_text(f"Name:\tx\nCapEff:\t{capabilities:016x}\n")
    if btf:
        file = root / "sys/kernel/btf/vmlinux"
        file.parent.mkdir(parents=True)
        file.touch()
    if lockdown:
        file = root / "sys/kernel/security/lockdown"
        file.parent.mkdir(parents=True)
        file.write_text(lockdown)
    return root


def levels(root: Path) -> dict[str, str]:
    return {each.what: each.level for each in node.of_kernel(root)}


def test_a_node_without_btf_or_locked_down_is_broken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("platform.release", lambda: "6.1.0-18-amd64")
    well = levels(machine(tmp_path / "well", capabilities=(1 << 38) | (1 << 39)))
    assert set(well.values()) == {"ok"}
    assert levels(machine(tmp_path / "a", btf=False))["BTF"] == "broken"
    open_ = levels(machine(tmp_path / "b", lockdown="none [integrity] confidentiality"))
    assert "lockdown" not in open_
    locked = levels(machine(tmp_path / "c", lockdown="none integrity [confidentiality]"))
    assert locked["lockdown"] == "broken"


@pytest.mark.parametrize(
    ("release", "level"),
    [("5.4.0-1", "broken"), ("5.10.0", "warning"), ("5.15.0", "ok"), ("odd", "broken")],
)
def test_the_kernel_is_judged_by_its_version(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, release: str, level: str
) -> None:
    monkeypatch.setattr("platform.release", lambda: release)
    assert levels(machine(tmp_path))["kernel"] == level


def test_a_user_who_may_not_see_tracepoints_is_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def forbidden(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(Path, "is_dir", forbidden)
    (finding,) = [each for each in node.of_kernel(machine(tmp_path)) if each.what == "tracefs"]
    assert (finding.level, finding.advice) == ("warning", "run as root to see the tracepoints")


def test_tracepoints_that_are_missing_are_named(tmp_path: Path) -> None:
    root = machine(tmp_path)
    events = root / "sys/kernel/tracing/events"
    for each in ("sock/inet_sock_set_state", "tcp/tcp_probe", "tcp/tcp_retransmit_skb"):
        (events / each).mkdir(parents=True)
    (finding,) = [each for each in node.of_kernel(root) if each.what == "tracefs"]
    assert finding.level == "broken"
    assert "tcp/tcp_destroy_sock, tcp/tcp_retransmit_synack" in finding.detail


def test_wrong_settings_and_parts_are_named() -> None:
    status, _, said = doctor(SERVICES="rca")
    assert status == 2
    assert "FLOWVERDICT_SERVICES is 'rca'; it takes NAME=http://HOST:PORT" in said
    status, _, said = doctor("everything")
    assert status == 2
    assert "choose from node, nats, kubernetes, stores" in said


def test_what_others_sent_does_not_steer_the_terminal(stores: Stores) -> None:
    stores.answers["/readyz"] = 503, {"waiting": {"nats": "\x1b[2Jgone"}}
    argv = [sys.executable, "-m", "flowverdict_doctor", "stores"]
    environ = {**os.environ, "FLOWVERDICT_SERVICES": f"rca={stores.url}"}
    done = subprocess.run(argv, env=environ, capture_output=True, text=True, check=False)
    assert "gone" in done.stdout
    assert "\x1b" not in done.stdout
