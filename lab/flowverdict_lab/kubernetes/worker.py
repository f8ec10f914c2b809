"""A node: containerd, kubelet, kube-proxy, and the engine that enforces network policies."""

import json
from pathlib import Path

from flowverdict_lab.kubernetes import cgroups
from flowverdict_lab.kubernetes.control_plane import ADDRESS, PODS, SERVER
from flowverdict_lab.kubernetes.credentials import Credentials
from flowverdict_lab.kubernetes.host import Host
from flowverdict_lab.kubernetes.processes import wait_until

__all__ = ["address_of", "cgroup_of", "import_images", "node_object", "pods_of", "start_worker"]

_SOCKET = "/run/containerd/containerd.sock"
_TOKEN_FOLDER = "/run/secrets/kubernetes.io/serviceaccount"  # noqa: S105 # where a client looks
# The kernel may lack nftables' "queue", so iptables passes the pods' packets to the policy engine,
# which decides on the first of each connection. A node may reach its own pods: probes.
_TO_POLICIES = f"""
iptables -t mangle -N POLICY
iptables -t mangle -A POSTROUTING -j POLICY
iptables -t mangle -A POLICY -m owner --uid-owner 0 -j RETURN
iptables -t mangle -A POLICY -m conntrack --ctstate ESTABLISHED,RELATED -j RETURN
iptables -t mangle -A POLICY -s {PODS} -j NFQUEUE --queue-num 98
iptables -t mangle -A POLICY -d {PODS} -j NFQUEUE --queue-num 98
"""


def address_of(number: int) -> str:
    """The address of node `number`, from 1, on the network between the machines."""
    return f"10.202.0.{10 + number}"


def pods_of(number: int) -> str:
    """The first three bytes of the addresses of its pods."""
    return f"10.246.{number}"


def start_worker(host: Host, number: int, programs: Path, keys: Credentials, token: str) -> None:
    """Start a node's parts.

    Args:
        host: the machine.
        number: its number, from 1.
        programs: the folder of programs.
        keys: signs its certificate.
        token: the policy engine's.
    """
    name, conf = host.name, host.folder / "conf" / host.name
    conf.mkdir(parents=True)
    address = address_of(number)
    keys.issue(name, f"/O=system:nodes/CN=system:node:{name}", f"DNS:{name},IP:{address}")
    kubeconfig = keys.kubeconfig(name, SERVER, keys.path(f"{name}.kubeconfig"))
    (conf / "net.d").mkdir()
    (conf / "net.d/10-bridge.conflist").write_text(json.dumps(_network(number)))
    (conf / "containerd.toml").write_text(_containerd(programs, conf))
    (conf / "resolv.conf").write_text("")
    (conf / "kubelet.json").write_text(
        json.dumps(_kubelet(keys, name, conf, cgroups.make(cgroup_of(host))))
    )
    (conf / "proxy.json").write_text(json.dumps(_proxy(keys, name)))
    secrets = host.root / _TOKEN_FOLDER[1:]
    secrets.mkdir(parents=True)
    (secrets / "token").write_text(token)
    (secrets / "ca.crt").write_bytes(keys.path("ca.crt").read_bytes())
    host.inside(["sh", "-e"], _TO_POLICIES)
    path = f"PATH={programs}:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    host.run("containerd", ["env", path, "containerd", "-c", f"{conf}/containerd.toml"])
    wait_until((host.root / _SOCKET[1:]).exists, 60, f"containerd on {name}")
    host.run("policies", [
        "env", f"KUBERNETES_SERVICE_HOST={ADDRESS}", "KUBERNETES_SERVICE_PORT=6443",
        f"{programs}/kube-network-policies", f"--hostname-override={name}", "--nfqueue-id=98",
        "--netfilter-bug-1766-fix=false", "--disable-nri",
        "--metrics-bind-address=127.0.0.1:9081",
    ])  # fmt: skip
    host.run("proxy", [f"{programs}/kube-proxy", f"--config={conf}/proxy.json"])
    host.run("kubelet", [
        "env", path, "kubelet", f"--config={conf}/kubelet.json", f"--kubeconfig={kubeconfig}",
        f"--hostname-override={name}", f"--node-ip={address}",
    ])  # fmt: skip


def node_object(name: str, number: int) -> dict[str, object]:
    """The node before its kubelet registers it, so that its range of addresses is ours."""
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}},
        "spec": {"podCIDR": f"{pods_of(number)}.0/24", "podCIDRs": [f"{pods_of(number)}.0/24"]},
    }


def cgroup_of(host: Host) -> str:
    """The name of its cgroup, unique on this machine."""
    return f"flowverdict-{host.folder.name}-{host.name}"


def import_images(host: Host, programs: Path, archive: Path) -> None:
    """Load a `docker save` archive into its containerd."""
    host.inside([f"{programs}/ctr", "--namespace=k8s.io", "images", "import",
                 "--digests=false", str(archive)])  # fmt: skip


def _network(number: int) -> dict[str, object]:
    addresses = {"type": "host-local", "ranges": [[{"subnet": f"{pods_of(number)}.0/24"}]],
                 "routes": [{"dst": "0.0.0.0/0"}]}  # fmt: skip
    bridge = {"type": "bridge", "bridge": "cni0", "isGateway": True, "ipMasq": False,
              "hairpinMode": True, "ipam": addresses}  # fmt: skip
    ports = {"type": "portmap", "capabilities": {"portMappings": True}}
    return {"cniVersion": "1.0.0", "name": "pods", "plugins": [bridge, ports]}


def _containerd(programs: Path, conf: Path) -> str:
    # Without CAP_SYS_RESOURCE, runc may not lower oom_score_adj and fails with "can't get final
    # child's PID from pipe".
    return f"""version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "{_SOCKET}"
[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "pause:local"
[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true
[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = ["{programs}/cni"]
conf_dir = "{conf}/net.d"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
BinaryName = "{programs}/runc"
"""


def _kubelet(keys: Credentials, name: str, conf: Path, cgroup: str) -> dict[str, object]:
    return {
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": cgroup,
        "failCgroupV1": False,
        "failSwapOn": False,
        "containerRuntimeEndpoint": f"unix://{_SOCKET}",
        "clusterDNS": ["10.98.0.10"],
        "clusterDomain": "cluster.local",
        "resolvConf": f"{conf}/resolv.conf",
        "authentication": {
            "anonymous": {"enabled": False},
            "webhook": {"enabled": True},
            "x509": {"clientCAFile": str(keys.path("ca.crt"))},
        },
        "authorization": {"mode": "Webhook"},
        "tlsCertFile": str(keys.path(f"{name}.crt")),
        "tlsPrivateKeyFile": str(keys.path(f"{name}.key")),
        # Images come from `load`, not from a registry: none may be collected.
        "imageGCHighThresholdPercent": 100,
        "imageGCLowThresholdPercent": 99,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "1%",
            "imagefs.available": "1%",
        },
    }


def _proxy(keys: Credentials, name: str) -> dict[str, object]:
    return {
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "clientConnection": {"kubeconfig": str(keys.path("proxy.kubeconfig"))},
        "mode": "nftables",
        "clusterCIDR": PODS,
        "hostnameOverride": name,
        "conntrack": {"maxPerCore": 0, "min": 0},
    }
