"""Flowverdict on a cluster, as the tests see it: objects, verdicts, and what breaks its network."""

import base64
import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nats
import pytest

from flowverdict_contracts import verdicts
from flowverdict_contracts.subjects import RCA_VERDICTS
from flowverdict_contracts.verdicts import Verdict
from flowverdict_lab.free_port import free_port
from flowverdict_lab.kubernetes.cluster import Cluster
from flowverdict_lab.kubernetes.host import Host
from flowverdict_runtime.stored_messages import stored_messages

__all__ = ["NAMESPACE", "Incident", "Installation"]

NAMESPACE = "flowverdict"
VERSION = "0.1.0"
FOLDER = Path(__file__).parent


@dataclass(frozen=True, slots=True)
class Incident:
    """An incident as its verdicts tell it."""

    verdicts: tuple[Verdict, ...]

    @property
    def blamed(self) -> str:
        """What the last verdict that names a cause blames; empty if none does."""
        causes = [each.causes[0] for each in self.verdicts if each.causes]
        return str(causes[-1]) if causes else ""

    def __str__(self) -> str:
        return f"{self.blamed or 'nobody'}: {self.verdicts[0].summary}"


class Installation:
    """Flowverdict on a cluster.

    Args:
        name: of a cluster that script/cluster has started, or "current" for kubectl's own.
    """

    def __init__(self, name: str) -> None:
        self.cluster = None if name == "current" else Cluster(name)

    @property
    def machines(self) -> Cluster:
        """The cluster's machines; skips the test if they are not on this one."""
        if self.cluster is None:
            pytest.skip("needs the machines of a cluster that script/cluster has started")
        return self.cluster

    @property
    def environ(self) -> dict[str, str]:
        """What tells a program which cluster this is."""
        return {"KUBECONFIG": str(self.cluster.kubeconfig)} if self.cluster else {}

    def kubectl(self, *argv: str, text: str | None = None) -> str:
        config = [f"--kubeconfig={self.cluster.kubeconfig}"] if self.cluster else []
        return run("kubectl", *config, *argv, text=text)

    def get(self, *argv: str) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.kubectl("get", "-o", "json", *argv))
        return found

    def pods(self, namespace: str, selector: str = "") -> list[dict[str, Any]]:
        """The pods that are not on their way out."""
        found = self.get("pods", "-n", namespace, "-l", selector)["items"]
        return [each for each in found if "deletionTimestamp" not in each["metadata"]]

    def apply(self) -> None:
        """Install the pipeline and the shop, and wait until everything is ready."""
        self.kubectl("apply", "-k", str(FOLDER))
        self.kubectl("apply", "-f", str(FOLDER / "shop.yaml"))
        for namespace in (NAMESPACE, "shop"):
            self.await_ready(namespace)

    def await_ready(self, namespace: str, seconds: int = 180) -> None:
        for workload in self.get("deploy,sts,ds", "-n", namespace)["items"]:
            name = f"{workload['kind']}/{workload['metadata']['name']}"
            self.kubectl("-n", namespace, "rollout", "status", name,
                         f"--timeout={seconds}s")  # fmt: skip

    def upgrade(self, version: str) -> None:
        """Install a version over this one: the same images under another tag."""
        ours = self.kubectl("kustomize", str(FOLDER))
        images = sorted(set(re.findall(r"image: (ghcr.io/flowverdict/[a-z-]+):", ours)))
        for node in self.machines.nodes():
            for image in images:
                node.inside([f"{self.machines.programs}/ctr", "--namespace=k8s.io", "images", "tag",
                             "--force", f"{image}:{VERSION}", f"{image}:{version}"])  # fmt: skip
        newer = re.sub(rf"(image: ghcr.io/flowverdict/[a-z-]+):{VERSION}", rf"\1:{version}", ours)
        assert newer != ours
        self.kubectl("apply", "-f", "-", text=newer)
        self.await_ready(NAMESPACE)

    def delete(self) -> None:
        """Remove it all; fails if anything of it stays."""
        self.kubectl("delete", "-f", str(FOLDER / "shop.yaml"), "--ignore-not-found")
        self.kubectl("delete", "-k", str(FOLDER), "--ignore-not-found")
        kinds = "namespace,clusterrole,clusterrolebinding,priorityclass,persistentvolume,"
        kinds += "validatingadmissionpolicy,validatingadmissionpolicybinding"
        deadline = time.monotonic() + 60
        while left := [each for each in self._named(kinds) if NAMESPACE in each]:
            assert time.monotonic() < deadline, left
            time.sleep(1)
        for node in self.machines.nodes() if self.cluster else ():
            pinned = node.inside(["find", "/sys/fs/bpf", "-mindepth", "1", "-name", "flowverdict"])
            assert not pinned, f"in the kernel of {node.name}: {pinned}"

    def _named(self, kinds: str) -> list[str]:
        """Objects of the whole cluster, a volume under the claim that it is for."""
        found = []
        for each in self.get(kinds)["items"]:
            claim = each.get("spec", {}).get("claimRef", {})
            name = each["metadata"]["name"]
            found.append(f"{each['kind']} {claim.get('namespace', '')} {name}")
        return found

    @contextlib.contextmanager
    def forwarded(self, service: str, port: int) -> Iterator[int]:
        """A port of this machine that leads to a service's."""
        local = free_port()
        argv = ["kubectl", "-n", NAMESPACE, "port-forward", f"service/{service}", f"{local}:{port}"]
        if self.cluster:  # whatever happens to the API server
            (pod,) = self.pods(NAMESPACE, f"app.kubernetes.io/name={service}")
            argv = [sys.executable, "-m", "flowverdict_lab.kubernetes.relay", str(local)]
            argv += [str(self.node_of(pod).pid), pod["status"]["podIP"], str(port)]
        relay = subprocess.Popen(argv, stdout=subprocess.DEVNULL)
        try:
            _await_listener(local)
            yield local
        finally:
            relay.kill()
            relay.wait()

    def password(self, key: str) -> str:
        """A password of Flowverdict's own; empty if there is none."""
        secret = self.get("secret", "-n", NAMESPACE, "flowverdict-credentials")
        return base64.b64decode(secret.get("data", {}).get(key, "")).decode()

    @contextlib.asynccontextmanager
    async def jetstream(self) -> AsyncIterator[Any]:
        """A connection as the user who may read."""
        with self.forwarded("nats", 4222) as port:
            client = await nats.connect(
                f"nats://127.0.0.1:{port}",
                user="reader",
                password=self.password("nats-reader"),
                max_reconnect_attempts=100,
                reconnect_time_wait=0.1,
                error_cb=_quiet,
            )
            yield client.jetstream()
            await client.close()

    async def incidents(self, since: float) -> list[Incident]:
        """Those of which a verdict was published since that time."""
        found: dict[str, list[Verdict]] = {}
        async with self.jetstream() as jetstream:
            messages = stored_messages(jetstream, RCA_VERDICTS, since_ns=int(since * 1e9))
            async for message in messages:
                verdict = verdicts.decode(message.data)
                found.setdefault(verdict.incident_id, []).append(verdict)
        return [Incident(tuple(each)) for each in found.values()]

    def node_of(self, pod: dict[str, Any]) -> Host:
        return self.machines.node(pod["spec"]["nodeName"])

    @contextlib.contextmanager
    def cut_off(self, node: str) -> Iterator[None]:
        """Nothing reaches the node, and nothing leaves it."""
        fabric = self.machines.fabric.pid
        in_network(fabric, "ip", "link", "set", f"v-{node}", "down")
        try:
            yield
        finally:
            in_network(fabric, "ip", "link", "set", f"v-{node}", "up")

    @contextlib.contextmanager
    def loss(self, percent: int, *, node: str) -> Iterator[None]:
        """Packets are lost on the node's wire, each way."""
        with lossy(self.machines.fabric.pid, f"v-{node}", percent, "ingress", "egress"):
            yield

    @contextlib.contextmanager
    def pod_loss(self, pod: dict[str, Any], percent: int, *ways: str) -> Iterator[None]:
        """Packets are lost on the way `to` the pod, `from` it, or both, after they were sent."""
        inside, node = self.process_in(pod), self.node_of(pod).pid
        (eth0,) = json.loads(in_network(inside, "ip", "-j", "link", "show", "eth0"))
        links = json.loads(in_network(node, "ip", "-j", "link"))
        wire = next(each["ifname"] for each in links if each["ifindex"] == eth0["link_index"])
        places = {"to": (inside, "eth0"), "from": (node, wire)}
        with contextlib.ExitStack() as losses:
            for way in ways:
                losses.enter_context(lossy(*places[way], percent, "ingress"))
            yield

    def processes(self, namespace: str) -> list[int]:
        """What runs in the pods of a namespace."""
        return [each for pod in self.pods(namespace) for each in _processes_of(pod)]

    def kill(self, name: str) -> None:
        """As `kill -9` does, the processes of a workload's containers."""
        for pod in self.pods(NAMESPACE, f"app.kubernetes.io/name={name}"):
            for process in _processes_of(pod):
                with contextlib.suppress(OSError):
                    if Path(f"/proc/{process}/comm").read_text() != "pause\n":
                        os.kill(process, signal.SIGKILL)

    def process_in(self, pod: dict[str, Any]) -> int:
        """A process in the pod's network namespace."""
        node = _network_of(self.node_of(pod).pid)
        for each in _processes_of(pod):
            with contextlib.suppress(OSError):
                if _network_of(each) != node:
                    return each
        raise AssertionError(f"no process of {pod['metadata']['name']}")

    def pages(self) -> list[tuple[str, str]]:
        """The alerts that people get: each one's name, and its labels as text."""
        active = "/api/v2/alerts?active=true&inhibited=false&silenced=false"
        found = json.loads(self.page("alertmanager", 9093, active))
        return [
            (each["labels"]["alertname"], json.dumps(each["labels"], sort_keys=True))
            for each in found
            if each["labels"].get("severity") not in ("info", "none")
        ]

    def page(self, service: str, port: int, path: str = "/metrics") -> str:
        """What a service answers, read on its node, which no network policy shuts out."""
        (pod,) = self.pods(NAMESPACE, f"app.kubernetes.io/name={service}")
        url = f"http://{pod['status']['podIP']}:{port}{path}"
        read = f"import urllib.request as u; print(u.urlopen({url!r}, timeout=10).read().decode())"
        return in_network(self.node_of(pod).pid, sys.executable, "-c", read)


def _processes_of(pod: dict[str, Any]) -> Iterator[int]:
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if pod["metadata"]["uid"] in (process / "cgroup").read_text():
                yield int(process.name)


def _network_of(process: int) -> Path:
    return Path(f"/proc/{process}/ns/net").readlink()


@contextlib.contextmanager
def lossy(process: int, device: str, percent: int, *hooks: str) -> Iterator[None]:
    """Packets are dropped at hooks of a device in the network of a process."""
    rules = "".join(
        f"chain {hook} {{ type filter hook {hook} device {device} priority 0; "
        f"numgen random mod 100 < {percent} drop; }}\n"
        for hook in hooks
    )
    in_network(process, "nft", "-f", "-", text=f"table netdev loss {{\n{rules}}}\n")
    try:
        yield
    finally:
        in_network(process, "nft", "delete", "table", "netdev", "loss")


def in_network(process: int, *argv: str, text: str | None = None) -> str:
    """The output of a command in the network namespace of a process."""
    return run("nsenter", f"--net=/proc/{process}/ns/net", "--", *argv, text=text)


def _await_listener(port: int) -> None:
    deadline = time.monotonic() + 30
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), timeout=5).close()
        except OSError:
            assert time.monotonic() < deadline, port
            time.sleep(0.05)
        else:
            return


async def _quiet(_: Exception) -> None:
    """The relay may not listen yet at the first attempt."""


def run(*argv: str, text: str | None = None) -> str:
    done = subprocess.run(argv, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, (argv, done.stderr)
    return done.stdout
