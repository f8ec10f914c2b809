"""The machine with etcd, the API server, the scheduler and the controllers."""

from pathlib import Path

from flowverdict_lab.kubernetes.credentials import Credentials
from flowverdict_lab.kubernetes.host import Host

__all__ = [
    "ADDRESS",
    "CONTROL_PLANE",
    "PODS",
    "SERVER",
    "start_api_server",
    "start_control_plane",
]

CONTROL_PLANE, ADDRESS = "control-plane", "10.202.0.10"
SERVER = f"https://{ADDRESS}:6443"
PODS, SERVICES, FIRST_SERVICE = "10.246.0.0/16", "10.98.0.0/16", "10.98.0.1"
_USERS = {
    "admin": "/O=system:masters/CN=admin",
    "controller-manager": "/CN=system:kube-controller-manager",
    "scheduler": "/CN=system:kube-scheduler",
    "proxy": "/CN=system:kube-proxy",
}


def start_control_plane(host: Host, programs: Path, keys: Credentials) -> None:
    """Issue its certificates and start its parts."""
    names = ["kubernetes" + suffix for suffix in ("", ".default", ".default.svc",
                                                  ".default.svc.cluster.local")]  # fmt: skip
    addresses = (ADDRESS, "127.0.0.1", FIRST_SERVICE)
    keys.issue("apiserver", "/CN=kube-apiserver", ",".join(
        [f"IP:{each}" for each in addresses] + [f"DNS:{each}" for each in names]))  # fmt: skip
    configs = {}
    for name, subject in _USERS.items():
        keys.issue(name, subject)
        configs[name] = keys.kubeconfig(name, SERVER, keys.path(f"{name}.kubeconfig"))
    host.run("etcd", [
        f"{programs}/etcd", "--data-dir=/var/lib/etcd",
        "--unsafe-no-fsync",  # the cluster does not outlive the machine
    ])  # fmt: skip
    start_api_server(host, programs, keys)
    host.run("controller-manager", [
        f"{programs}/kube-controller-manager", f"--kubeconfig={configs['controller-manager']}",
        "--leader-elect=false", "--use-service-account-credentials=true",
        f"--service-account-private-key-file={keys.path('sa.key')}",
        f"--root-ca-file={keys.path('ca.crt')}",
        f"--cluster-signing-cert-file={keys.path('ca.crt')}",
        f"--cluster-signing-key-file={keys.path('ca.key')}",
        "--allocate-node-cidrs=true", f"--cluster-cidr={PODS}",
        f"--service-cluster-ip-range={SERVICES}", "--enable-hostpath-provisioner=true",
    ])  # fmt: skip
    host.run("scheduler", [
        f"{programs}/kube-scheduler", f"--kubeconfig={configs['scheduler']}",
        "--leader-elect=false",
    ])  # fmt: skip


def start_api_server(host: Host, programs: Path, keys: Credentials) -> None:
    """Start the API server, also after it was stopped."""
    host.run("apiserver", [
        f"{programs}/kube-apiserver", "--etcd-servers=http://127.0.0.1:2379",
        f"--advertise-address={ADDRESS}", f"--service-cluster-ip-range={SERVICES}",
        f"--client-ca-file={keys.path('ca.crt')}",
        f"--tls-cert-file={keys.path('apiserver.crt')}",
        f"--tls-private-key-file={keys.path('apiserver.key')}",
        f"--service-account-key-file={keys.path('sa.pub')}",
        f"--service-account-signing-key-file={keys.path('sa.key')}",
        "--service-account-issuer=https://kubernetes.default.svc",
        "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
        "--allow-privileged=true", "--kubelet-preferred-address-types=InternalIP",
        f"--kubelet-client-certificate={keys.path('admin.crt')}",
        f"--kubelet-client-key={keys.path('admin.key')}",
        f"--kubelet-certificate-authority={keys.path('ca.crt')}",
    ])  # fmt: skip
