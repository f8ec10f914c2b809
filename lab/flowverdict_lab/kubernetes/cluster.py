"""Starts and ends a cluster on this machine.

    fabric          a bridge between all machines
    control-plane   10.202.0.10: etcd, API server, controllers, scheduler
    n1, n2, …       10.202.0.11, …: containerd, kubelet, kube-proxy, network policies
                    pods 10.246.N.0/24

Each is a process in network, mount and process namespaces of its own, and all of them descend from
the first. Outside of these, this machine gets one port on its loopback, one cgroup per node and one
folder in the cache; `down` removes them. Several clusters can run at a time.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from flowverdict_lab.free_port import free_port
from flowverdict_lab.kubernetes import cgroups
from flowverdict_lab.kubernetes.build import cache
from flowverdict_lab.kubernetes.control_plane import (
    ADDRESS,
    CONTROL_PLANE,
    start_control_plane,
)
from flowverdict_lab.kubernetes.credentials import Credentials
from flowverdict_lab.kubernetes.host import FABRIC, Host
from flowverdict_lab.kubernetes.images import Image, write_archive
from flowverdict_lab.kubernetes.processes import ProcessError, end, remember, spawn, wait_until
from flowverdict_lab.kubernetes.worker import (
    address_of,
    cgroup_of,
    import_images,
    node_object,
    pods_of,
    start_worker,
)

__all__ = ["Cluster", "clusters"]

Tell = Callable[[str], None]
_GATEWAY = "10.202.0.1"
_DISK_GIGABYTES = 60
_KUBELET_WANTS = {
    "vm.overcommit_memory": 1,
    "vm.panic_on_oom": 0,
    "kernel.panic": 10,
    "kernel.panic_on_oops": 1,
    "kernel.keys.root_maxkeys": 1_000_000,
    "kernel.keys.root_maxbytes": 25_000_000,
}
"""This machine's settings that a kubelet changes; a node sees them as its kubelet wants them."""
_SYSTEM = Path(__file__).parent / "system.yaml"


class Cluster:
    """One cluster of this machine, which need not run.

    Args:
        name: tells it from others.
    """

    def __init__(self, name: str = "flowverdict") -> None:
        self.name = name
        self.folder = cache() / "clusters" / name
        self.fabric = Host(FABRIC, self.folder)
        self.control_plane = Host(CONTROL_PLANE, self.folder)

    @property
    def kubeconfig(self) -> Path:
        """The administrator's kubeconfig, for use on this machine."""
        return self.folder / "kubeconfig"

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return bool(self.fabric.pid)

    @property
    def programs(self) -> Path:
        """The folder of its programs."""
        return Path(self._facts()["programs"])

    def nodes(self) -> list[Host]:
        """Its nodes."""
        return [Host(name, self.folder) for name in self._facts()["nodes"]]

    def node(self, name: str) -> Host:
        """The node of that name."""
        return next(node for node in self.nodes() if node.name == name)

    @property
    def keys(self) -> Credentials:
        """Its certificates."""
        return Credentials(self.folder / "keys")

    def up(self, programs: Path, nodes: int, tell: Tell) -> None:
        """Start it and wait until every node and the DNS service are ready.

        Args:
            programs: what `build` returned.
            nodes: how many nodes.
            tell: called with each step before it is taken.

        Raises:
            ProcessError: if it does not start; whatever had been started has been ended.
        """
        self.down()
        for folder in ("run", "log", "conf"):
            (self.folder / folder).mkdir(parents=True)
        names = [f"n{number}" for number in range(1, nodes + 1)]
        (self.folder / "facts.json").write_text(
            json.dumps({"programs": str(programs), "nodes": names})
        )
        try:
            self._start(programs, tell)
        except BaseException:
            self.down(keep_logs=True)
            raise

    def down(self, keep_logs: bool = False) -> None:
        """End all of it and remove what it left; logs stay if `keep_logs`."""
        end(self.folder / "run/relay.pid")
        end(self.folder / f"run/{FABRIC}.pid")
        for host in self.nodes() if (self.folder / "facts.json").exists() else ():
            cgroups.remove(cgroup_of(host))
        if not self.folder.exists():
            return
        for path in list(self.folder.iterdir()):
            if path.name == "log" and keep_logs:
                continue
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink()
        if not keep_logs:
            self.folder.rmdir()

    def load(self, archive: Path, tell: Tell) -> None:
        """Load the images of a `docker save` archive into every node.

        Raises:
            ProcessError: if a node refuses them.
        """
        for node in self.nodes():
            tell(f"images into {node.name}")
            import_images(node, self.programs, archive)

    def kubectl(self, *argv: str, text: str | None = None) -> str:
        """Run kubectl as the administrator; returns its output.

        Raises:
            ProcessError: if it fails, with its output.
        """
        done = subprocess.run(
            ["kubectl", f"--kubeconfig={self.kubeconfig}", *argv],
            input=text, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode != 0:
            raise ProcessError(f"kubectl {argv[0]}: {(done.stderr or done.stdout).strip()}")
        return done.stdout

    def _facts(self) -> dict[str, Any]:
        facts: dict[str, Any] = json.loads((self.folder / "facts.json").read_text())
        return facts

    def _start(self, programs: Path, tell: Tell) -> None:
        tell("machines")
        self._make_machines()
        tell("control plane")
        keys = self.keys
        start_control_plane(self.control_plane, programs, keys)
        self._open_relay(keys)
        wait_until(self._api_is_ready, 120, "the API server")
        self.kubectl("create", "clusterrolebinding", "lab:kube-proxy",
                     "--clusterrole=system:node-proxier", "--user=system:kube-proxy")  # fmt: skip
        self.kubectl("apply", "-f", str(_SYSTEM))
        token = self.kubectl("-n", "kube-system", "create", "token", "kube-network-policies",
                             "--duration=87600h")  # fmt: skip
        archive = self._system_images(programs)
        for number, node in enumerate(self.nodes(), 1):
            tell(f"node {node.name}")
            self.kubectl("create", "-f", "-", text=json.dumps(node_object(node.name, number)))
            start_worker(node, number, programs, keys, token)
            import_images(node, programs, archive)
        tell("nodes and DNS to be ready")
        self._await_ready()

    def _make_machines(self) -> None:
        disk, mount = self.folder / "disk.ext4", self.folder / "disk"
        with disk.open("wb") as file:
            file.truncate(_DISK_GIGABYTES << 30)  # sparse: it takes what is used
        mount.mkdir()
        self.fabric.start(
            f"""
            mkfs.ext4 -q -O ^has_journal -E lazy_itable_init=1 {disk}
            mount -o loop,noatime {disk} {mount}
            mkdir -m 777 {mount}/volumes
            ip link set lo up
            ip link add br0 type bridge
            ip link set br0 up
            ip addr add {_GATEWAY}/24 dev br0
            sysctl -qw net.bridge.bridge-nf-call-iptables=0 2>/dev/null || true
            """)  # fmt: skip
        # A volume's folder belongs to root, and Kubernetes applies no fsGroup to host paths.
        keep_open = f"while sleep 0.5; do chmod -f 777 {mount}/volumes/*; done"
        self.fabric.run("volumes", ["sh", "-c", keep_open])
        machines = [(self.control_plane, ADDRESS)]
        machines += [(node, address_of(i)) for i, node in enumerate(self.nodes(), 1)]
        for host, address in machines:
            host.start(self._mounts(host))
            self._connect(host, address)
        for host, _ in machines:
            for number, node in enumerate(self.nodes(), 1):
                if node != host:
                    host.inside(["ip", "route", "add", f"{pods_of(number)}.0/24", "via",
                                 address_of(number)])  # fmt: skip

    def _mounts(self, host: Host) -> str:
        """What a machine's files are: this machine's, under its own /var, /etc, /run and /tmp."""
        mount = self.folder / "disk"
        own = f"{mount}/{host.name}"
        overlays = "".join(
            f"mkdir -p {own}/{name} {own}/.{name}\n"
            f"mount -t overlay -o lowerdir=/{name},upperdir={own}/{name},workdir={own}/.{name} "
            f"overlay /{name}\n"
            for name in ("var", "etc")
        )
        binds = "".join(
            f"mkdir -p {own}/{name} /var/lib/{name}\nmount --bind {own}/{name} /var/lib/{name}\n"
            for name in ("kubelet", "containerd", "etcd")
        )
        kernel_settings = "".join(
            f"echo {value} >/run/{name}\n"
            f"mount --bind /run/{name} /proc/sys/{name.replace('.', '/')}\n"
            for name, value in _KUBELET_WANTS.items()
        )
        return f"""
            mkdir -p {own}
            {overlays}{binds}
            mount -t bpf bpf /sys/fs/bpf
            mount -t tmpfs tmpfs /run
            mkdir -p /run/lock /run/netns
            mount -t tmpfs tmpfs /tmp
            mkdir /tmp/hostpath_pv
            mount --bind {mount}/volumes /tmp/hostpath_pv
            {kernel_settings}
            mount --make-rshared /
            ip link set lo up
            sysctl -qw net.ipv4.ip_forward=1
            sysctl -qw net.bridge.bridge-nf-call-iptables=1 2>/dev/null || true
            """

    def _connect(self, host: Host, address: str) -> None:
        port = f"v-{host.name}"
        # Only its network: in its process namespace, the machine's process has another id.
        subprocess.run(
            ["nsenter", f"--net=/proc/{self.fabric.pid}/ns/net", "--", "ip", "link", "add", port,
             "type", "veth", "peer", "name", "eth0", "netns", str(host.pid)],
            capture_output=True, check=True,
        )  # fmt: skip
        self.fabric.inside(["ip", "link", "set", port, "master", "br0", "up"])
        host.inside(["sh", "-e"], f"ip addr add {address}/24 dev eth0\nip link set eth0 up\n"
                                  f"ip route add default via {_GATEWAY}\n")  # fmt: skip

    def _open_relay(self, keys: Credentials) -> None:
        port = free_port()
        pid = spawn(
            [sys.executable, "-m", "flowverdict_lab.kubernetes.relay", str(port),
             str(self.control_plane.pid), ADDRESS, "6443"],
            self.folder / "log/relay.log",
        )  # fmt: skip
        remember(pid, self.folder / "run/relay.pid")
        keys.kubeconfig("admin", f"https://127.0.0.1:{port}", self.kubeconfig)

    def _api_is_ready(self) -> bool:
        if not self.control_plane.runs("apiserver") and self.control_plane.runs("etcd"):
            log = self.control_plane.log("apiserver").read_text().strip().splitlines()
            raise ProcessError(f"the API server ended: {log[-1] if log else ''}")
        try:
            return self.kubectl("get", "--raw", "/readyz") == "ok"
        except ProcessError:
            return False

    def _await_ready(self) -> None:
        deadline = time.monotonic() + 120
        while True:
            try:
                names = [f"node/{node.name}" for node in self.nodes()]
                self.kubectl("wait", "--for=condition=Ready", "--timeout=60s", *names)
                self.kubectl("-n", "kube-system", "rollout", "status", "deployment/coredns",
                             "--timeout=60s")  # fmt: skip
            except ProcessError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.5)
            else:
                return

    def _system_images(self, programs: Path) -> Path:
        archive = programs / "system-images.tar"
        if not archive.exists():
            write_archive([
                Image("pause:local", (programs / "pause",), 65535),
                Image("coredns:local", (programs / "coredns",), 0),
            ], archive)  # fmt: skip
        return archive


def clusters() -> Iterator[Cluster]:
    """The clusters that this machine has a folder of, running or not."""
    folder = cache() / "clusters"
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        yield Cluster(path.name)
