"""Flowverdict on a real Kubernetes: installed, right, exact, and shut where it must be."""

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import eventually
from flowverdict_contracts import enriched
from flowverdict_contracts.subjects import FLOWS_ENRICHED
from flowverdict_lab.kubernetes.control_plane import start_api_server
from flowverdict_runtime.stored_messages import stored_messages
from tests.cluster.counting import Retransmissions
from tests.cluster.installation import FOLDER, NAMESPACE, Installation

EXPERIMENT = str(Path(sys.executable).with_name("flowverdict-experiment"))
CONNECT = """
import socket, sys, time
deadline = time.monotonic() + int(sys.argv[3])
while time.monotonic() < deadline:
    try:
        socket.create_connection((sys.argv[1], int(sys.argv[2])), 2)
    except OSError:
        continue
    print("open")
    break
"""


def test_it_is_ready_without_a_restart(installation: Installation) -> None:
    pods = installation.pods(NAMESPACE)
    assert len(pods) >= 7
    for pod in pods:
        for status in pod["status"]["containerStatuses"]:
            assert status["restartCount"] == 0, pod["metadata"]["name"]


def _generations(installation: Installation) -> dict[str, int]:
    workloads = installation.get("deploy,sts,ds,pdb,netpol", "-n", NAMESPACE)["items"]
    return {
        f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["generation"]
        for each in workloads
    }


def test_a_second_apply_changes_nothing(installation: Installation) -> None:
    before = _generations(installation)
    installation.kubectl("apply", "-k", str(FOLDER))
    assert _generations(installation) == before


def test_production_over_it_is_refused_before_anything_is_changed(
    installation: Installation,
) -> None:
    before = _generations(installation)
    production = FOLDER.parents[1] / "deploy/k8s/overlays/production"
    with pytest.raises(AssertionError, match="installed here with one NATS server"):
        installation.kubectl("apply", "-k", str(production))
    assert _generations(installation) == before
    secrets = installation.get("secret", "-n", NAMESPACE)["items"]
    assert "nats-tls" not in {each["metadata"]["name"] for each in secrets}


def _doctor(installation: Installation) -> str:
    """What the doctor prints now."""
    inside, job = ("-n", NAMESPACE), "job/doctor-1"
    installation.kubectl(*inside, "create", "job", "doctor-1", "--from=cronjob/doctor")
    try:
        ended = "--for=jsonpath={.status.conditions[0].status}=True"
        installation.kubectl(*inside, "wait", ended, "--timeout=120s", job)
        return installation.kubectl(*inside, "logs", job)
    finally:
        installation.kubectl(*inside, "delete", job)


async def _doctor_finds_nothing_broken(installation: Installation) -> str:
    async def healthy() -> str:
        printed = _doctor(installation)
        return "" if "broken" in printed else printed

    found: str = await eventually(healthy, 240)
    return found


async def test_the_doctor_finds_nothing_broken(installation: Installation) -> None:
    # A first look may come before the first verdict's state is stored.
    printed = await _doctor_finds_nothing_broken(installation)
    assert printed.count("ok ") > 5, printed


@pytest.mark.day
async def test_the_doctor_names_what_is_down_and_nothing_else(installation: Installation) -> None:
    down = ("deployment/enricher", "statefulset/influxdb")
    replicas = {each: installation.get(each, "-n", NAMESPACE)["spec"]["replicas"] for each in down}
    await _doctor_finds_nothing_broken(installation)
    for each in down:
        installation.kubectl("-n", NAMESPACE, "scale", each, "--replicas=0")
    try:
        await asyncio.sleep(75)  # what an enricher wrote last is a minute old
        printed = _doctor(installation)
    finally:
        for each, count in replicas.items():
            installation.kubectl("-n", NAMESPACE, "scale", each, f"--replicas={count}")
    lines = (line.partition(":")[0].split(maxsplit=1) for line in printed.splitlines())
    broken = {words[1] for words in lines if words[0] == "broken"}
    broken -= {"influx-writer", "consumer influx-writer"}  # if it still had something to write
    assert broken == {"InfluxDB", "consumer enricher", "stream FLOWS_ENRICHED"}, printed
    await _doctor_finds_nothing_broken(installation)


async def test_prometheus_scrapes_every_service_and_every_store(installation: Installation) -> None:
    names = [
        "collector",
        "enricher",
        "exporter",
        "rca",
        "influx-writer",
        "influxdb",
        "alertmanager",
        "prometheus",
    ]

    def answers() -> set[tuple[str, str]]:
        found = json.loads(installation.page("prometheus", 9090, "/api/v1/query?query=up"))
        return {(each["metric"]["job"], each["value"][1]) for each in found["data"]["result"]}

    await eventually(lambda: answers() == {(f"flowverdict-{name}", "1") for name in names}, 90)


def test_the_experiment_names_the_pod(installation: Installation) -> None:
    done = subprocess.run(
        [EXPERIMENT, "run"],
        env={**os.environ, **installation.environ},
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def test_a_flow_to_a_service_names_the_pod_that_answers(installation: Installation) -> None:
    async with installation.jetstream() as jetstream:
        since = (await jetstream.stream_info(FLOWS_ENRICHED)).state.last_seq
        await asyncio.sleep(15)
        stored = stored_messages(jetstream, FLOWS_ENRICHED, since_sequence=since)
        rows = [row async for each in stored for row in enriched.decode(each.data).to_pylist()]
    calls = [
        row
        for row in rows
        if (row["role"], row["src_workload"], row["dst_service"]) == ("client", "front", "api")
        and row["segments_received"]
    ]
    answered = [row for row in calls if row["dst_kind"] == "pod"]
    assert len(answered) > 0.95 * len(calls) > 0
    pods = installation.pods("shop", "app=api")
    behind = {(each["metadata"]["name"], each["spec"]["nodeName"]) for each in pods}
    assert {(row["dst_pod"], row["dst_node"]) for row in answered} == behind
    servers = {_ends(row, "dst", "src") for row in rows if row["role"] == "server"}
    mirrored = [row for row in answered if _ends(row, "src", "dst") in servers]
    assert len(mirrored) > 0.95 * len(answered)


def _ends(row: dict[str, Any], one: str, other: str) -> tuple[str, int, str, int]:
    return row[f"{one}_ip"], row[f"{one}_port"], row[f"{other}_ip"], row[f"{other}_port"]


async def test_on_nodes_that_share_a_kernel_counts_equal_the_kernels(
    installation: Installation,
) -> None:
    counts = await Retransmissions.begun(installation)
    with installation.pod_loss(installation.pods("shop", "app=api")[0], 20, "to", "from"):
        await asyncio.sleep(15)
    await counts.are_exact()


@pytest.mark.day
async def test_whatever_is_killed_no_count_is_lost_and_no_innocent_of_the_shop_is_blamed(
    installation: Installation,
) -> None:
    cluster, counts = installation.machines, await Retransmissions.begun(installation)
    await asyncio.sleep(20)  # what standing still did to the shop's flows is over
    since = time.time()
    broken = installation.pods("shop", "app=api")[0]
    with installation.pod_loss(broken, 20, "to", "from"):
        await asyncio.sleep(10)
        for name in ("nats", "enricher", "rca"):
            installation.kill(name)
            await asyncio.sleep(5)
        cluster.control_plane.stop("apiserver")
        await asyncio.sleep(10)
        start_api_server(cluster.control_plane, cluster.programs, cluster.keys)
        await asyncio.sleep(10)
    await counts.are_exact()
    found = await installation.incidents(since)
    # What was killed was down, so it may be named, and so may those of ours that called it.
    opened = [each for each in found if each.verdicts[0].status == "opened"]
    in_the_shop = {each.blamed for each in opened if " shop/" in each.blamed}
    assert in_the_shop == {f"pod shop/{broken['metadata']['name']}"}, [str(each) for each in found]


def _can_connect(
    installation: Installation, namespace: str, label: str, host: str, port: int, seconds: int
) -> bool:
    """Whether a pod with that label can in so many seconds: a network plugin hears of a new pod a
    moment after its start.
    """
    key, _, value = label.partition("=")
    pod: dict[str, Any] = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "probe", "namespace": namespace, "labels": {key: value}},
        "spec": {
            "restartPolicy": "Never",
            "containers": [{
                "name": "probe",
                "image": "ghcr.io/flowverdict/experiment:0.1.0",
                "command": ["python3", "-c", CONNECT, host, str(port), str(seconds)],
            }],
        },
    }  # fmt: skip
    installation.kubectl("apply", "-f", "-", text=json.dumps(pod))
    try:
        ended = "--for=jsonpath={.status.containerStatuses[0].state.terminated}"
        installation.kubectl("-n", namespace, "wait", "pod/probe", "--timeout=60s", ended)
        return "open" in installation.kubectl("-n", namespace, "logs", "probe")
    finally:
        installation.kubectl("-n", namespace, "delete", "pod", "probe", "--now")


@pytest.mark.parametrize(
    ("namespace", "label", "service", "port", "may"),
    [
        ("shop", "flowverdict.io/uses-nats=true", "nats", 4222, True),
        ("shop", "app=probe", "nats", 4222, False),
        (NAMESPACE, "app.kubernetes.io/name=stranger", "nats", 4222, False),
        ("shop", "flowverdict.io/uses-nats=true", "nats", 8222, False),
        (NAMESPACE, "app.kubernetes.io/name=doctor", "exporter", 9191, True),
        (NAMESPACE, "app.kubernetes.io/name=stranger", "exporter", 9191, False),
        ("shop", "app.kubernetes.io/name=doctor", "exporter", 9191, False),
    ],
)
def test_only_those_who_need_a_connection_can_open_it(
    installation: Installation, namespace: str, label: str, service: str, port: int, may: bool
) -> None:
    (pod,) = installation.pods(NAMESPACE, f"app.kubernetes.io/name={service}")
    seconds = 40 if may else 8
    address = pod["status"]["podIP"]
    assert _can_connect(installation, namespace, label, address, port, seconds) is may
