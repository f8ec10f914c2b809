"""The experiment on a cluster: what it makes, what it says, and that it leaves nothing behind."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
import yaml

from conftest import a_cause, a_verdict, eventually
from flowverdict_contracts import verdicts
from flowverdict_lab.live_support import why_not_live
from tests.stand_ins.kubernetes import KubernetesStandIn

ROOT = Path(__file__).parents[1]
NAMESPACE = "/api/v1/namespaces/flowverdict-experiment"
CHAOS = f"{NAMESPACE}/pods/flowverdict-chaos"
LISTENER = "/api/v1/namespaces/flowverdict/pods/experiment-listener"


class Cluster(KubernetesStandIn):
    """A cluster with Flowverdict: when a pod's network is broken, its verdict comes."""

    def __init__(self) -> None:
        super().__init__()
        self.add("/api/v1/namespaces/flowverdict", {"metadata": {"name": "flowverdict"}})
        _, doctor = yaml.safe_load_all((ROOT / "deploy/k8s/base/doctor.yaml").read_text())
        (self.container,) = doctor["spec"]["jobTemplate"]["spec"]["template"]["spec"]["containers"]
        self.container["image"] += ":0.1.0"
        self.doctor = "/apis/batch/v1/namespaces/flowverdict/cronjobs/doctor"
        self.add(self.doctor, doctor)
        self.blamed: str | None = ""
        self.said = ["not a verdict", "[1]"]
        self.summary = "to [fd00::1]:80 \x1b[31m"
        self.logs["experiment-listener"] = lambda: "\n".join(self.said)
        self.on_running = self.break_network
        self.before = self.names()

    def set_image(self, image: str) -> None:
        self.container["image"] = image

    def break_network(self, pod: dict[str, Any]) -> None:
        if pod["metadata"]["name"] != "flowverdict-chaos" or self.blamed is None:
            return
        uid = pod["spec"]["containers"][0]["command"][-1]
        (target,) = [
            each["metadata"]["name"]
            for path, each in self.objects.items()
            if "/pods/" in path and each["metadata"]["uid"] == uid
        ]
        cause = a_cause(name=self.blamed or f"flowverdict-experiment/{target}")
        said = msgspec.structs.replace(a_verdict(causes=(cause,)), summary=self.summary)
        self.said.append(verdicts.encode(said).decode())


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    stand_in = Cluster()
    stand_in.start()
    yield stand_in
    stand_in.stop()


def start(cluster: Cluster, folder: Path, *arguments: str) -> subprocess.Popen[str]:
    config = str(cluster.kubeconfig(folder))
    argv = [sys.executable, "-m", "flowverdict_lab.experiment", "--kubeconfig", config]
    return subprocess.Popen(
        [*argv, *arguments],
        env={**os.environ, "COLUMNS": "200"},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def run(cluster: Cluster, folder: Path, *arguments: str) -> tuple[int, str]:
    process = start(cluster, folder, *arguments)
    output, _ = process.communicate(timeout=120)
    return process.returncode, output


def quick(*arguments: str) -> list[str]:
    return ["run", "--seconds", "1", "--wait", "0", *arguments]


def test_the_right_verdict_is_found_and_everything_removed(
    cluster: Cluster, tmp_path: Path
) -> None:
    status, output = run(cluster, tmp_path, *quick("--target", "pod-c"))
    assert status == 0, output
    assert "Right: it names pod flowverdict-experiment/pod-c" in output
    assert cluster.names() == cluster.before
    removed = [each for each in cluster.changes if each.startswith("removed")]
    assert removed.index("removed flowverdict-chaos") < removed.index(
        "removed flowverdict-experiment"
    )
    phases = [line for line in output.splitlines() if line in ("before", "after")]
    assert phases == ["before", "after"]


def test_what_a_killed_run_left_does_not_decide_the_next(cluster: Cluster, tmp_path: Path) -> None:
    for path in (NAMESPACE, CHAOS, LISTENER):
        name = path.rpartition("/")[2]
        thing: dict[str, Any] = {"metadata": {"name": name}, "spec": {"containers": []}}
        cluster.add(path, thing | {"status": {"phase": "Running"}})
    status, output = run(cluster, tmp_path, *quick("--target", "pod-b"))
    assert status == 0, output
    assert cluster.changes.index("removed experiment-listener") < cluster.changes.index(
        "created pod-a"
    )
    assert cluster.names() == cluster.before


def test_what_others_say_is_shown_as_it_is_and_not_obeyed(cluster: Cluster, tmp_path: Path) -> None:
    cluster.said += ['{"causes": ["x"]}', '{"causes": [{"kind": "pod"}]}', "[" * 100_000]
    status, output = run(cluster, tmp_path, *quick())
    assert status == 0, output
    assert "to [fd00::1]:80 \N{REPLACEMENT CHARACTER}[31m" in output


def test_an_image_that_does_not_tell_where_others_are_is_asked_about(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.set_image("registry.example.org/doctor@sha256:0123")
    status, output = run(cluster, tmp_path, *quick())
    assert status == 3
    assert "--images REGISTRY/PATH" in output
    assert cluster.names() == cluster.before
    assert not cluster.changes or all(each.startswith("removed") for each in cluster.changes)
    status, output = run(cluster, tmp_path, "--images", "registry.example.org", *quick())
    assert status == 0, output


def test_another_verdict_and_none_are_wrong(cluster: Cluster, tmp_path: Path) -> None:
    cluster.blamed = "default/somebody"
    status, output = run(cluster, tmp_path, *quick())
    assert status == 1
    assert "Wrong: it names pod default/somebody" in output
    cluster.blamed = None
    cluster.said.clear()
    status, output = run(cluster, tmp_path, *quick())
    assert status == 1
    assert "Wrong: there is no verdict" in output
    assert cluster.names() == cluster.before


async def test_it_is_the_targets_node_and_namespace_that_is_broken_and_only_that_pod_privileged(
    cluster: Cluster, tmp_path: Path
) -> None:
    cluster.nodes["pod-a"] = "worker7"
    cluster.set_image("registry.example.org:5000/x/doctor:9")
    process = start(cluster, tmp_path, "run", "--seconds", "2", "--loss", "7", "--delay", "5")
    chaos = await eventually(lambda: cluster.objects.get(CHAOS))
    target = cluster.objects[f"{NAMESPACE}/pods/pod-a"]
    assert chaos["spec"]["nodeName"] == "worker7"
    assert chaos["spec"]["hostPID"] is True
    (container,) = chaos["spec"]["containers"]
    assert container["command"] == [
        "/opt/experiment/chaos.sh", "7", "5", "32", target["metadata"]["uid"],
    ]  # fmt: skip
    listener = cluster.objects[LISTENER]
    assert listener["spec"]["automountServiceAccountToken"] is False
    (container,) = listener["spec"]["containers"]
    assert container["image"] == "registry.example.org:5000/x/tail:9"
    images = {each["spec"]["containers"][0]["image"] for each in (chaos, target)}
    assert images == {"registry.example.org:5000/x/experiment:9"}
    assert container["args"] == ["verdicts", "--json"]
    assert {each["name"]: each.get("value") for each in container["env"]} == {
        "FLOWVERDICT_NATS_USER": "reader",
        "FLOWVERDICT_NATS_PASSWORD_FILE": "/run/credentials/nats-reader",
    }
    assert "/run/credentials" in [each["mountPath"] for each in container["volumeMounts"]]
    (credentials,) = [e for e in listener["spec"]["volumes"] if e["name"] == "credentials"]
    assert [each["key"] for each in credentials["secret"]["items"]] == ["nats-reader"]
    others = [
        each for path, each in cluster.objects.items() if "/pods/" in path and each is not chaos
    ]
    assert "privileged" not in json.dumps(others)
    process.communicate(timeout=60)
    assert process.returncode == 0


async def test_an_interruption_in_the_middle_leaves_nothing_behind(
    cluster: Cluster, tmp_path: Path
) -> None:
    process = start(cluster, tmp_path, "run")
    await eventually(lambda: "created experiment-listener" in cluster.changes)
    process.send_signal(signal.SIGINT)
    output, _ = process.communicate(timeout=60)
    assert process.returncode == 130, output
    assert "everything it created has been removed" in output
    assert cluster.names() == cluster.before


def test_a_pod_that_cannot_start_is_named_with_the_reason(cluster: Cluster, tmp_path: Path) -> None:
    cluster.stuck["pod-b"] = "ImagePullBackOff"
    status, output = run(cluster, tmp_path, *quick())
    assert status == 3
    assert "pod pod-b cannot start; ImagePullBackOff: as the kubelet reports" in output
    assert cluster.names() == cluster.before


def test_a_fault_that_cannot_be_made_is_reported(cluster: Cluster, tmp_path: Path) -> None:
    cluster.ended.add("flowverdict-chaos")
    cluster.logs["flowverdict-chaos"] = lambda: "chaos: no process of pod 1 on this node"
    status, output = run(cluster, tmp_path, *quick())
    assert status == 3
    assert "chaos: no process of pod 1 on this node" in output
    assert cluster.names() == cluster.before


def test_a_refusal_of_the_api_is_reported(cluster: Cluster, tmp_path: Path) -> None:
    cluster.refuse["POST .*/pods$"] = 403
    status, output = run(cluster, tmp_path, *quick())
    assert status == 3
    assert "cannot create Pod pod-a: 403 refused by the stand-in" in output
    cluster.refuse = {"DELETE": 403}
    status, output = run(cluster, tmp_path, *quick())
    assert status == 3
    assert "objects remain, run script/experiment cleanup" in output
    cluster.refuse = {}
    assert run(cluster, tmp_path, "cleanup")[0] == 0
    assert cluster.names() == cluster.before


def test_without_flowverdict_it_says_what_to_do_first(cluster: Cluster, tmp_path: Path) -> None:
    del cluster.objects[cluster.doctor]
    status, output = run(cluster, tmp_path, *quick())
    assert status == 3
    assert "kubectl apply -k deploy/k8s first" in output


def test_init_and_cleanup_may_be_run_twice(cluster: Cluster, tmp_path: Path) -> None:
    for _ in range(2):
        assert run(cluster, tmp_path, "init")[0] == 0
        pods = {path for path in cluster.names() if path.startswith(f"{NAMESPACE}/pods/")}
        assert {path.rsplit("/", 1)[1] for path in pods} == {"pod-a", "pod-b", "pod-c", "pod-d"}
    for _ in range(2):
        assert run(cluster, tmp_path, "cleanup")[0] == 0
        assert cluster.names() == cluster.before


def test_without_a_cluster_it_says_so(tmp_path: Path) -> None:
    argv = [sys.executable, "-m", "flowverdict_lab.experiment"]
    argv += ["--kubeconfig", str(tmp_path / "none"), "init"]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 3
    assert "no cluster configured" in done.stderr


REASON = why_not_live()


@pytest.mark.skipif(REASON is not None, reason=f"no network namespaces: {REASON}")
def test_the_network_is_broken_in_the_pods_own_namespace_and_restored_on_sigterm() -> None:
    uid = "0b9cc3a5-8f1e-4c7f-9d55-2f6d5ad6c0de"
    unified = Path("/sys/fs/cgroup/unified")
    cgroups = unified if unified.is_dir() else Path("/sys/fs/cgroup")
    cgroup = cgroups / f"pod{uid.replace('-', '_')}"
    # As CRI-O has it: what watches the pod is in its cgroup, and in the node's network.
    monitor = subprocess.Popen(["sleep", "60"])
    pod = subprocess.Popen(["unshare", "--net", "sleep", "60"])
    try:
        cgroup.mkdir()
        (cgroup / "cgroup.procs").write_text(str(monitor.pid))
        (cgroup / "cgroup.procs").write_text(str(pod.pid))
        inside = ["nsenter", "-t", str(pod.pid), "-n"]
        subprocess.run([*inside, "ip", "link", "add", "eth0", "type", "veth"], check=True)

        def broken() -> str:
            found = [
                subprocess.run([*inside, *argv], capture_output=True, text=True, check=False)
                for argv in (["nft", "list", "ruleset"], ["tc", "qdisc", "show", "dev", "eth0"])
            ]
            text = "".join(each.stdout for each in found)
            return text if "netem" in text or "flowverdict_chaos" in text else ""

        script = str(ROOT / "lab/flowverdict_lab/chaos.sh")
        chaos = subprocess.Popen([script, "20", "0", "60", uid], stdout=subprocess.PIPE, text=True)
        assert chaos.stdout is not None
        assert "20% loss" in chaos.stdout.readline()
        assert "20" in broken()
        chaos.terminate()
        assert chaos.wait(10) == 143
        chaos.stdout.close()
        assert not broken()
    finally:
        for process in (pod, monitor):
            process.kill()
            process.wait()
        if cgroup.exists():
            cgroup.rmdir()
