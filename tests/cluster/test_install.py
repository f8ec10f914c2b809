"""Flowverdict on a real Kubernetes: installed, right, exact, and shut where it must be."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from conftest import eventually
from tests.cluster.installation import FOLDER, NAMESPACE, Installation

EXPERIMENT = str(Path(sys.executable).with_name("flowverdict-experiment"))
SKIPPED = 2
"""Events that the kernel may not show to any program: docs/architecture.md, "Skipped events"."""
CONNECT = """
import socket, sys
socket.create_connection((sys.argv[1], int(sys.argv[2])), 3)
print("open")
"""


def test_it_is_ready_without_a_restart(installation: Installation) -> None:
    pods = installation.pods(NAMESPACE)
    assert len(pods) >= 7
    for pod in pods:
        for status in pod["status"]["containerStatuses"]:
            assert status["restartCount"] == 0, pod["metadata"]["name"]


def test_a_second_apply_changes_nothing(installation: Installation) -> None:
    def generations() -> dict[str, int]:
        workloads = installation.get("deploy,sts,ds,pdb,netpol", "-n", NAMESPACE)["items"]
        return {
            f"{each['kind']}/{each['metadata']['name']}": each["metadata"]["generation"]
            for each in workloads
        }

    before = generations()
    installation.kubectl("apply", "-k", str(FOLDER))
    assert generations() == before


def test_the_doctor_finds_nothing_broken(installation: Installation) -> None:
    inside, job = ("-n", NAMESPACE), "job/doctor-1"
    deadline = time.monotonic() + 240
    while True:  # a first look may come before the first verdict's state is stored
        installation.kubectl(*inside, "create", "job", "doctor-1", "--from=cronjob/doctor")
        try:
            ended = "--for=jsonpath={.status.conditions[0].status}=True"
            installation.kubectl(*inside, "wait", ended, "--timeout=120s", job)
            printed = installation.kubectl(*inside, "logs", job)
        finally:
            installation.kubectl(*inside, "delete", job)
        if "broken" not in printed:
            break
        assert time.monotonic() < deadline, printed
    assert printed.count("ok ") > 5, printed


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


def _tcp(process: int, name: str) -> int:
    lines = Path(f"/proc/{process}/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index(name)])


async def test_on_nodes_that_share_a_kernel_counts_equal_the_kernels(
    installation: Installation,
) -> None:
    pods = installation.pods("shop")
    inside = {each["metadata"]["name"]: installation.process_in(each) for each in pods}

    def by_us() -> dict[str, float]:
        found = dict.fromkeys(inside, 0.0)
        for line in installation.metrics("exporter", 9191).splitlines():
            pod = line.partition('src_pod="')[2].partition('"')[0]
            if line.startswith("tcp_retransmissions_total{") and pod in found:
                found[pod] += float(line.split()[-1])
        return found

    def by_kernel() -> dict[str, float]:
        return {name: _tcp(process, "RetransSegs") for name, process in inside.items()}

    def since(now: dict[str, float], then: dict[str, float]) -> dict[str, float]:
        return {name: count - then[name] for name, count in now.items()}

    def agree() -> bool:
        kernels = since(by_kernel(), kernel_before)
        missing = [count - since(by_us(), before)[name] for name, count in kernels.items()]
        return sum(kernels.values()) > 0 and min(missing) == 0 and sum(missing) <= SKIPPED

    before, kernel_before = by_us(), by_kernel()
    with installation.pod_loss(installation.pods("shop", "app=api")[0], 20, "to", "from"):
        time.sleep(15)
    processes = installation.processes("shop")
    for process in processes:
        os.kill(process, signal.SIGSTOP)  # no new traffic
    try:
        await eventually(agree, 90)
    except AssertionError:
        kernels = since(by_kernel(), kernel_before)
        raise AssertionError((since(by_us(), before), kernels)) from None
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def _can_connect(
    installation: Installation, namespace: str, label: str, host: str, port: int
) -> bool:
    """Whether a pod with that label can."""
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
                "command": ["python3", "-c", CONNECT, host, str(port)],
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
    assert _can_connect(installation, namespace, label, pod["status"]["podIP"], port) is may
