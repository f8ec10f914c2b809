"""The cluster as network namespaces on this machine.

Each pod and node is a process in a network namespace of its own; a node has a bridge for its pods
and an uplink to a bridge between the nodes. Nothing is visible outside these namespaces, so when
the processes end, for whatever reason, the kernel removes everything.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import IO

from flowverdict_lab.cluster import Cluster, Node, Pod

__all__ = ["HTTP_PORT", "LabError", "Network"]

# The kernel sends them SIGKILL when their parent dies, even by kill -9.
_DIE_WITH_PARENT = ("setpriv", "--pdeathsig", "KILL", "--")
_OWN_NETWORK = ("unshare", "--net", "--")
HTTP_PORT = 8080
"""Where every pod serves."""


class LabError(RuntimeError):
    """The lab cannot be built on this machine."""


class Network:
    """The lab's network; a context manager.

    Args:
        cluster: what to build.
        log_folder: where the pods' logs are written.

    Raises:
        LabError: if it cannot be built on this machine; the message says what failed.
    """

    def __init__(self, cluster: Cluster, log_folder: Path) -> None:
        self.cluster = cluster
        self._logs = log_folder
        self._processes: dict[str, subprocess.Popen[bytes]] = {}
        self._fabric = "fabric"

    def __enter__(self) -> "Network":
        try:
            self._build()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop every pod and node; their namespaces and everything in them disappear too."""
        for process in self._processes.values():
            process.kill()
        for process in self._processes.values():
            process.wait()
            if process.stdin:
                process.stdin.close()
        self._processes.clear()

    def pid(self, name: str) -> int:
        """A process in the namespace of the pod or node `name`."""
        return self._processes[name].pid

    def namespaces(self) -> list[int]:
        """The inode numbers of its network namespaces."""
        names = (f"/proc/{process.pid}/ns/net" for process in self._processes.values())
        return [Path(name).stat().st_ino for name in names]

    def inside(self, name: str, argv: Sequence[str], text: str | None = None) -> str:
        """Run a command in the network of the pod or node `name`; returns its output.

        Raises:
            LabError: if it fails, with its output.
        """
        enter = ["nsenter", f"--net=/proc/{self.pid(name)}/ns/net", "--", *argv]
        done = subprocess.run(enter, input=text, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            output = (done.stderr or done.stdout).strip()
            raise LabError(f"{argv[0]} in the network of {name}: {output}")
        return done.stdout

    def start_inside(self, name: str, argv: Sequence[str]) -> subprocess.Popen[bytes]:
        """Start a command in the network of the pod or node `name`; it prints when it is ready.

        Raises:
            LabError: if it ends before that.
        """
        enter = ["nsenter", f"--net=/proc/{self.pid(name)}/ns/net", "--", *_DIE_WITH_PARENT]
        process = subprocess.Popen([*enter, *argv], stdout=subprocess.PIPE, start_new_session=True)
        assert process.stdout is not None
        with process.stdout as printed:
            if not printed.readline():
                raise LabError(f"{argv[0]} in the network of {name} ended: {process.wait()}")
        self._processes[f"{name}: {process.pid}"] = process
        return process

    def port_of(self, pod: Pod) -> str:
        """The node's interface that the pod is attached to."""
        return pod.name

    def start_traffic(self, requests_per_second: float, ipv6: bool = False) -> None:
        """Make every pod call those that it calls in this cluster, until `stop_traffic`."""
        for pod in self.cluster.pods:
            called = self.cluster.called_by(pod)
            peers = [other.ipv6 if ipv6 else other.ipv4 for other in called]
            self._send_order(pod, {"peers": peers, "requests_per_second": requests_per_second})

    def stop_traffic(self) -> None:
        """Stop starting new calls."""
        for pod in self.cluster.pods:
            self._send_order(pod, {"peers": [], "requests_per_second": 0})

    def set_server(self, pod: Pod, order: dict[str, object]) -> None:
        """Make a pod's server behave as `flowverdict_lab.pod` describes, until the next call."""
        self._send_order(pod, {"server": order})

    def tcp_counter(self, pod: Pod, name: str) -> int:
        """The pod's kernel counter `name`, as in the Tcp lines of /proc/net/snmp."""
        names, values = (
            line.split()
            for line in Path(f"/proc/{self.pid(pod.name)}/net/snmp").read_text().splitlines()
            if line.startswith("Tcp:")
        )
        return int(values[names.index(name)])

    def tcp_total(self, name: str) -> int:
        """A counter of the pods' own kernels, added up."""
        return sum(self.tcp_counter(pod, name) for pod in self.cluster.pods)

    def _send_order(self, pod: Pod, order: dict[str, object]) -> None:
        stdin = self._processes[pod.name].stdin
        assert stdin is not None
        stdin.write(json.dumps(order).encode() + b"\n")
        stdin.flush()

    def _spawn(self, name: str, argv: Sequence[str], log: IO[bytes] | None = None) -> None:
        # unshare before setpriv: each execs the next, so this is the process in the namespace.
        self._processes[name] = subprocess.Popen(
            [*_OWN_NETWORK, *_DIE_WITH_PARENT, *argv],
            stdin=subprocess.PIPE,
            stdout=log or subprocess.DEVNULL,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _build(self) -> None:
        self._spawn(self._fabric, ["sleep", "infinity"])
        for node in self.cluster.nodes:
            self._spawn(node.name, ["sleep", "infinity"])
        for pod in self.cluster.pods:
            with (self._logs / f"{pod.name}.log").open("wb") as log:
                self._spawn(
                    pod.name, [sys.executable, "-m", "flowverdict_lab.pod", str(HTTP_PORT)], log
                )
        for name in self._processes:
            self._wait_for_namespace(name)
        self._ip(self._fabric, ["link add fabric type bridge", "link set fabric up"])
        for node in self.cluster.nodes:
            self._build_node(node)
        for pod in self.cluster.pods:
            self._build_pod(pod)
        for pod in self.cluster.pods:
            self._wait_for_server(pod)

    def _wait_for_server(self, pod: Pod) -> None:
        log, deadline = self._logs / f"{pod.name}.log", time.monotonic() + 120
        while not log.read_text().startswith("serving"):
            if time.monotonic() > deadline or self._processes[pod.name].poll() is not None:
                raise LabError(f"{pod.name} did not start serving: {log.read_text()[-500:]}")
            time.sleep(0.02)

    def _wait_for_namespace(self, name: str) -> None:
        """Wait until unshare(1) has moved the process to a namespace other than ours."""
        ours = Path("/proc/self/ns/net").readlink()
        process = self._processes[name]
        while Path(f"/proc/{process.pid}/ns/net").readlink() == ours:
            if process.poll() is not None:
                raise LabError(f"no network namespace for {name}: unshare needs root")

    def _ip(self, name: str, commands: Sequence[str]) -> None:
        self.inside(name, ["ip", "-batch", "-"], "\n".join(commands) + "\n")

    def _build_node(self, node: Node) -> None:
        self._ip(
            self._fabric,
            [
                f"link add {node.name} type veth peer name uplink netns {self.pid(node.name)}",
                f"link set {node.name} master fabric up",
            ],
        )
        routes = [
            line
            for other in self.cluster.nodes
            if other is not node
            for line in (
                f"route add {other.pods_ipv4}.0/24 via {other.ipv4}",
                f"route add {other.pods_ipv6}:/64 via {other.ipv6}",
            )
        ]
        self.inside(
            node.name,
            ["tee", "/proc/sys/net/ipv4/ip_forward", "/proc/sys/net/ipv6/conf/all/forwarding"],
            "1",
        )
        self._ip(
            node.name,
            [
                "link set lo up",
                "link add pods type bridge",
                "link set pods up",
                "link set uplink up",
                f"addr add {node.ipv4}/24 dev uplink",
                f"addr add {node.ipv6}/64 dev uplink nodad",
                f"addr add {node.pods_ipv4}.1/24 dev pods",
                f"addr add {node.pods_ipv6}:1/64 dev pods nodad",
                *routes,
            ],
        )

    def _build_pod(self, pod: Pod) -> None:
        node, port = pod.node, self.port_of(pod)
        self._ip(
            node.name,
            [
                f"link add {port} type veth peer name eth0 netns {self.pid(pod.name)}",
                f"link set {port} master pods up",
            ],
        )
        # A stopped pod must give up on its last FINs quickly, or the next lab would see them.
        self.inside(pod.name, ["tee", "/proc/sys/net/ipv4/tcp_orphan_retries"], "1")
        self._ip(
            pod.name,
            [
                "link set lo up",
                # One packet is one segment, as on a wire.
                "link set eth0 gso_max_segs 1",
                "link set eth0 up",
                f"addr add {pod.ipv4}/24 dev eth0",
                f"addr add {pod.ipv6}/64 dev eth0 nodad",
                f"route add default via {node.pods_ipv4}.1",
                f"route add ::/0 via {node.pods_ipv6}:1",
            ],
        )
