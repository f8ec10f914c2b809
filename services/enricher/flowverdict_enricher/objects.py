"""The objects of the Kubernetes API that names come from, with the fields that are read."""

import contextlib
import ipaddress
import itertools
import time
from collections.abc import Iterable
from datetime import datetime

import msgspec

from flowverdict_contracts.addresses import to_bytes

__all__ = [
    "ClusterService",
    "EndpointSlice",
    "Job",
    "Metadata",
    "Node",
    "Object",
    "Owner",
    "Pod",
    "Service",
]

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
Service = tuple[str, str]
"""Namespace and name of a service."""


class Owner(msgspec.Struct):
    """Another object that an object belongs to."""

    kind: str
    name: str
    uid: str = ""
    controller: bool = False


class Annotations(
    msgspec.Struct,
    rename={
        "network_status": "k8s.v1.cni.cncf.io/network-status",
        "networks_status": "k8s.v1.cni.cncf.io/networks-status",
        "calico_ipip": "projectcalico.org/IPv4IPIPTunnelAddr",
        "calico_vxlan": "projectcalico.org/IPv4VXLANTunnelAddr",
        "calico_vxlan_ipv6": "projectcalico.org/IPv6VXLANTunnelAddr",
        "calico_wireguard": "projectcalico.org/IPv4WireguardInterfaceAddr",
        "calico_wireguard_ipv6": "projectcalico.org/IPv6WireguardInterfaceAddr",
        "cilium_host": "network.cilium.io/ipv4-cilium-host",
        "cilium_host_ipv6": "network.cilium.io/ipv6-cilium-host",
        "static_pod_hash": "kubernetes.io/config.hash",
    },
):
    """Those that are read; others can be large.

    `networks_status` is what Multus called `network_status` before version 3.5.
    """

    network_status: str = ""
    networks_status: str = ""
    calico_ipip: str = ""
    calico_vxlan: str = ""
    calico_vxlan_ipv6: str = ""
    calico_wireguard: str = ""
    calico_wireguard_ipv6: str = ""
    cilium_host: str = ""
    cilium_host_ipv6: str = ""
    static_pod_hash: str = ""

    def node_addresses(self) -> tuple[str, ...]:
        """Those of a node's tunnels, and of the router of its pods."""
        return (
            self.calico_ipip,
            self.calico_vxlan,
            self.calico_vxlan_ipv6,
            self.calico_wireguard,
            self.calico_wireguard_ipv6,
            self.cilium_host,
            self.cilium_host_ipv6,
        )


class Metadata(msgspec.Struct, rename="camel"):
    """The metadata of every object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    annotations: Annotations = msgspec.field(default_factory=Annotations)
    owner_references: list[Owner] = []
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None

    def controller(self) -> Owner | None:
        """The one owner that manages the object."""
        return next((each for each in self.owner_references if each.controller), None)

    def created_ns(self) -> int:
        """When it was created, in nanoseconds since 1970; now if it does not say."""
        return _nanoseconds(self.creation_timestamp)


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""


def _is_not_ready(conditions: Iterable[_Condition]) -> bool:
    return any(each.type == "Ready" and each.status != "True" for each in conditions)


class _Ip(msgspec.Struct):
    ip: str = ""


class _PodNetwork(msgspec.Struct):
    ips: list[str] = []
    default: bool = False


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    host_network: bool = False


class _PodStatus(msgspec.Struct):
    phase: str = ""
    conditions: list[_Condition] = []
    pod_ips: list[_Ip] = msgspec.field(default_factory=list, name="podIPs")
    pod_ip: str = msgspec.field(default="", name="podIP")
    start_time: datetime | None = msgspec.field(default=None, name="startTime")


class Pod(msgspec.Struct):
    """A v1 Pod."""

    metadata: Metadata
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)

    def has_finished(self) -> bool:
        """Whether its addresses may be reused, although the object remains."""
        return self.status.phase in ("Succeeded", "Failed")

    def addresses(self) -> list[bytes]:
        """Its own; it has none on the network of its node."""
        if self.spec.host_network:
            return []
        return _packed([each.ip for each in self.status.pod_ips] or [self.status.pod_ip])

    def host_uid(self) -> str:
        """What its node calls it if it is on the network of its node, else empty.

        A static pod, which the API server has a copy of, is called by the hash of its file
        (kubernetes: pkg/kubelet/config/common.go).
        """
        if not self.spec.host_network:
            return ""
        return self.metadata.annotations.static_pod_hash or self.metadata.uid

    def further_addresses(self) -> list[bytes]:
        """Those on further networks, as the plugin says that connected it to them.

        Source: "Kubernetes Network Custom Resource Definition De-facto Standard", version 1.3,
        5.3. Whoever creates a pod can write this annotation, too, so it proves nothing.
        """
        annotated = self.metadata.annotations
        text = annotated.network_status or annotated.networks_status
        if not text:
            return []
        try:
            networks = msgspec.json.decode(text, type=list[_PodNetwork])
        except (msgspec.MsgspecError, RecursionError):
            return []
        return _packed(ip for each in networks if not each.default for ip in each.ips)

    def started_ns(self) -> int:
        """When it was started, or else created, in nanoseconds since 1970."""
        return _nanoseconds(self.status.start_time or self.metadata.creation_timestamp)

    def condition(self) -> str:
        """As in an enriched row."""
        if self.metadata.deletion_timestamp is not None:
            return "terminating"
        return "not_ready" if _is_not_ready(self.status.conditions) else ""


class _NodeAddress(msgspec.Struct):
    address: str = ""


class _NodeSpec(msgspec.Struct):
    pod_networks: list[str] = msgspec.field(default_factory=list, name="podCIDRs")
    pod_network: str = msgspec.field(default="", name="podCIDR")


class _NodeStatus(msgspec.Struct):
    addresses: list[_NodeAddress] = []
    conditions: list[_Condition] = []


class Node(msgspec.Struct):
    """A v1 Node."""

    metadata: Metadata
    spec: _NodeSpec = msgspec.field(default_factory=_NodeSpec)
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)

    def addresses(self) -> list[bytes]:
        """Its addresses: those it reports, and those on the network of its pods.

        One of type Hostname is a name. Its pods' gateway has the first address of their network
        (host-local, the usual way to give out addresses, keeps it: containernetworking/plugins);
        Flannel's tunnel has the one before (flannel.1, backend/vxlan). Calico and Cilium write
        their tunnel's and router's into annotations.
        """
        reported = (each.address for each in self.status.addresses)
        networks = (each for each in self.pod_networks() if each.num_addresses > 1)
        gateways = (str(each.network_address + at) for each in networks for at in (0, 1))
        annotated = self.metadata.annotations.node_addresses()
        return _packed(itertools.chain(reported, gateways, annotated))

    def pod_networks(self) -> list[Network]:
        """The networks for its pods; some network plugins use others."""
        found = []
        for text in self.spec.pod_networks or [self.spec.pod_network]:
            with contextlib.suppress(ValueError):
                found.append(ipaddress.ip_network(text))
        return found

    def zone(self) -> str:
        """The zone it is in; empty if it does not say."""
        return self.metadata.labels.get("topology.kubernetes.io/zone", "")

    def condition(self) -> str:
        """As in an enriched row."""
        return "not_ready" if _is_not_ready(self.status.conditions) else ""


class _ServiceSpec(msgspec.Struct):
    cluster_ips: list[str] = msgspec.field(default_factory=list, name="clusterIPs")
    cluster_ip: str = msgspec.field(default="", name="clusterIP")
    external_ips: list[str] = msgspec.field(default_factory=list, name="externalIPs")
    load_balancer_ip: str = msgspec.field(default="", name="loadBalancerIP")


class _LoadBalancer(msgspec.Struct):
    ingress: list[_Ip] = []


class _ServiceStatus(msgspec.Struct, rename="camel"):
    load_balancer: _LoadBalancer = msgspec.field(default_factory=_LoadBalancer)


class ClusterService(msgspec.Struct):
    """A v1 Service."""

    metadata: Metadata
    spec: _ServiceSpec = msgspec.field(default_factory=_ServiceSpec)
    status: _ServiceStatus = msgspec.field(default_factory=_ServiceStatus)

    def key(self) -> Service:
        """Its namespace and name."""
        return self.metadata.namespace, self.metadata.name

    def addresses(self) -> list[bytes]:
        """Its cluster addresses."""
        return _packed(self.spec.cluster_ips or [self.spec.cluster_ip])

    def outside_addresses(self) -> frozenset[bytes]:
        """Its external addresses, and its load balancer's, which may be those of nodes."""
        balanced = (each.ip for each in self.status.load_balancer.ingress)
        asked_for = (self.spec.load_balancer_ip,)
        return frozenset(_packed(itertools.chain(self.spec.external_ips, balanced, asked_for)))


class _Target(msgspec.Struct):
    kind: str = ""
    uid: str = ""


class _EndpointConditions(msgspec.Struct):
    ready: bool | None = None


class _SliceEndpoint(msgspec.Struct, rename="camel"):
    addresses: list[str] = []
    target_ref: _Target | None = None
    conditions: _EndpointConditions = msgspec.field(default_factory=_EndpointConditions)


class EndpointSlice(msgspec.Struct):
    """A discovery.k8s.io/v1 EndpointSlice: a part of what is behind a service."""

    metadata: Metadata
    endpoints: list[_SliceEndpoint] | None = None

    def service(self) -> Service:
        """Namespace and name of the service; the name is empty if it belongs to none."""
        name = self.metadata.labels.get("kubernetes.io/service-name", "")
        return self.metadata.namespace, name

    def pods(self) -> set[str]:
        """The uids of its pods."""
        targets = (each.target_ref for each in self.endpoints or ())
        return {each.uid for each in targets if each and each.kind == "Pod"}

    def entered(self) -> frozenset[bytes]:
        """The addresses that somebody entered, a person or a controller: those of no pod."""
        entered = (
            each.addresses
            for each in self.endpoints or ()
            if each.target_ref is None or each.target_ref.kind != "Pod"
        )
        return frozenset(_packed(itertools.chain.from_iterable(entered)))

    def has_ready(self) -> bool:
        """Whether any of its endpoints is ready; one that does not say so is (KEP-752)."""
        return any(each.conditions.ready is not False for each in self.endpoints or ())


class Job(msgspec.Struct):
    """A batch/v1 Job, read for its owner."""

    metadata: Metadata


Object = Pod | Node | ClusterService | EndpointSlice | Job


def _nanoseconds(time_: datetime | None) -> int:
    return int(time_.timestamp() * 1e9) if time_ else time.time_ns()


def _packed(texts: Iterable[str]) -> list[bytes]:
    """Those of `texts` that are addresses, without the length of a network; a headless service,
    for example, has "None".
    """
    found = []
    for text in filter(None, texts):
        with contextlib.suppress(ValueError):
            found.append(to_bytes(text.partition("/")[0]))
    return found
