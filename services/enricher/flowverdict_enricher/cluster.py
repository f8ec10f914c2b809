"""A cluster's objects and the names they give to addresses.

A pod's names come from several objects: its zone from its node, its service from endpoint slices,
and its CronJob from the Job that owns it. They arrive in any order.
"""

import contextlib
import itertools
import threading
import time
from collections.abc import Iterable, Iterator
from datetime import datetime

import msgspec

from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.enriched import Names
from flowverdict_enricher.directory import Directory

__all__ = ["Cluster", "ClusterService", "EndpointSlice", "Job", "Node", "Object", "Pod"]

_ZONE = "topology.kubernetes.io/zone"
_SERVICE_OF_SLICE = "kubernetes.io/service-name"
# Deployments and Argo Rollouts name their ReplicaSets after themselves and this pod label
# (kubernetes: pkg/controller/deployment/sync.go; argo-rollouts: rollout/sync.go).
_OWNERS = ("pod", "node")
_TEMPLATE_HASH = {"pod-template-hash": "Deployment", "rollouts-pod-template-hash": "Rollout"}


class _Ip(msgspec.Struct):
    ip: str = ""


class _Owner(msgspec.Struct):
    kind: str
    name: str
    uid: str = ""
    controller: bool = False


class Metadata(msgspec.Struct, rename="camel"):
    """The metadata of every object."""

    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    owner_references: list[_Owner] = []
    creation_timestamp: datetime | None = None
    deletion_timestamp: datetime | None = None


class _PodSpec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    host_network: bool = False


class _Condition(msgspec.Struct):
    type: str = ""
    status: str = ""


def _is_not_ready(conditions: Iterable[_Condition]) -> bool:
    return any(each.type == "Ready" and each.status != "True" for each in conditions)


class _PodStatus(msgspec.Struct):
    phase: str = ""
    conditions: list[_Condition] = []
    pod_ips: list[_Ip] = msgspec.field(default_factory=list, name="podIPs")
    start_time: datetime | None = msgspec.field(default=None, name="startTime")


class Pod(msgspec.Struct):
    """A v1 Pod."""

    metadata: Metadata
    spec: _PodSpec = msgspec.field(default_factory=_PodSpec)
    status: _PodStatus = msgspec.field(default_factory=_PodStatus)


class _NodeAddress(msgspec.Struct):
    address: str = ""


class _NodeStatus(msgspec.Struct):
    addresses: list[_NodeAddress] = []
    conditions: list[_Condition] = []


class Node(msgspec.Struct):
    """A v1 Node."""

    metadata: Metadata
    status: _NodeStatus = msgspec.field(default_factory=_NodeStatus)


class _ServiceSpec(msgspec.Struct):
    cluster_ips: list[str] = msgspec.field(default_factory=list, name="clusterIPs")


class ClusterService(msgspec.Struct):
    """A v1 Service and its cluster IPs.

    Load balancer addresses are left out: some load balancers use the addresses of the nodes.
    """

    metadata: Metadata
    spec: _ServiceSpec = msgspec.field(default_factory=_ServiceSpec)


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
    """A discovery.k8s.io/v1 EndpointSlice: the pods behind a service."""

    metadata: Metadata
    endpoints: list[_SliceEndpoint] | None = None

    def pods(self) -> set[str]:
        """The uids of its pods."""
        targets = (each.target_ref for each in self.endpoints or ())
        return {each.uid for each in targets if each and each.kind == "Pod"}

    def addresses(self) -> frozenset[bytes]:
        """The addresses that somebody entered: those of nothing that the cluster knows."""
        entered = (each.addresses for each in self.endpoints or () if each.target_ref is None)
        return frozenset(_packed(itertools.chain.from_iterable(entered)))

    def has_ready(self) -> bool:
        """Whether any of its endpoints is ready; one that does not say so is (KEP-752)."""
        return any(each.conditions.ready is not False for each in self.endpoints or ())


class Job(msgspec.Struct):
    """A batch/v1 Job, read for its owner."""

    metadata: Metadata


Object = Pod | Node | ClusterService | EndpointSlice | Job


def _since(time_: datetime | None) -> int:
    return int(time_.timestamp() * 1e9) if time_ else time.time_ns()


def _packed(texts: Iterable[str]) -> list[bytes]:
    """Those of `texts` that are addresses; a headless service, for example, has "None"."""
    found = []
    for text in texts:
        with contextlib.suppress(ValueError):
            found.append(to_bytes(text))
    return found


def _pod_condition(pod: Pod) -> str:
    if pod.metadata.deletion_timestamp is not None:
        return "terminating"
    return "not_ready" if _is_not_ready(pod.status.conditions) else ""


def _controller(meta: Metadata) -> _Owner | None:
    return next((each for each in meta.owner_references if each.controller), None)


class Cluster:
    """Keeps a directory in sync with the cluster's objects. Several threads may report changes."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._known: dict[type[Object], dict[str, Object]] = {}
        self._pods: dict[str, Pod] = {}  # those that have not finished, and so have names
        self._zones: dict[str, str] = {}
        self._services: dict[str, dict[str, str]] = {}  # by pod, by slice
        self._ready: dict[tuple[str, str], dict[str, bool]] = {}  # by service, by slice
        self._by_name: dict[tuple[str, str], ClusterService] = {}
        self._entered: dict[tuple[str, str], dict[str, frozenset[bytes]]] = {}  # likewise
        self._taken: set[bytes] = set()  # entered, but those of a pod or a node
        self._owners: dict[str, tuple[str, str]] = {}  # of a job
        self._pods_by_controller: dict[str, set[str]] = {}  # pod uids, by uid of the controller
        self._changes = threading.Lock()

    def put(self, thing: Object) -> None:
        """Add an object, or update it."""
        with self._changes:
            before = self._known.setdefault(type(thing), {}).get(thing.metadata.uid)
            self._known[type(thing)][thing.metadata.uid] = thing
            match thing:
                case Pod():
                    self._put_pod(thing)
                case Node():
                    self._put_node(thing)
                case ClusterService():
                    self._put_service(thing)
                case EndpointSlice():
                    self._put_slice(thing, before if isinstance(before, EndpointSlice) else None)
                case Job():
                    self._put_job(thing)

    def remove(self, kind: type[Object], uid: str) -> None:
        """Remove an object; no error if it does not exist."""
        with self._changes:
            thing = self._known.get(kind, {}).pop(uid, None)
            match thing:
                case Pod():
                    self._remove_pod(thing)
                case Node():
                    # Keep its zone: its pods may outlive it.
                    self._directory.end(uid, time.time_ns())
                case ClusterService():
                    self._directory.end(uid, time.time_ns())
                    key = thing.metadata.namespace, thing.metadata.name
                    if self._by_name[key] is thing:  # not another of that name, made since
                        del self._by_name[key]
                case EndpointSlice():
                    self._remove_from_slice(uid, thing.pods())
                    self._set_ready(thing, None)
                    self._set_entered(thing, frozenset())
                case Job():
                    if uid not in self._pods_by_controller:
                        self._owners.pop(uid, None)

    def keep_only(self, kind: type[Object], uids: Iterable[str]) -> None:
        """Remove the objects of a kind that are not in a fresh list."""
        for gone in set(self._known.get(kind, {})) - set(uids):
            self.remove(kind, gone)

    def _put_pod(self, pod: Pod) -> None:
        if pod.status.phase in ("Succeeded", "Failed"):
            # Its address may be reused from now on, although the pod object remains.
            self._remove_pod(pod)
            return
        owner = _controller(pod.metadata)
        if owner is not None:
            self._pods_by_controller.setdefault(owner.uid, set()).add(pod.metadata.uid)
        self._pods[pod.metadata.uid] = pod
        self._name(pod)

    def _remove_pod(self, pod: Pod) -> None:
        uid, owner = pod.metadata.uid, _controller(pod.metadata)
        self._pods.pop(uid, None)
        self._directory.end(uid, time.time_ns())
        if owner is not None and owner.uid in self._pods_by_controller:
            self._pods_by_controller[owner.uid].discard(uid)
            if not self._pods_by_controller[owner.uid]:
                del self._pods_by_controller[owner.uid]
                if owner.uid not in self._known.get(Job, {}):
                    self._owners.pop(owner.uid, None)

    def _name(self, pod: Pod) -> None:
        meta, node = pod.metadata, pod.spec.node_name
        workload, workload_kind = self._workload(meta)
        services = self._services.get(meta.uid, {})
        names = Names(
            "pod",
            namespace=meta.namespace,
            pod=meta.name,
            workload=workload,
            workload_kind=workload_kind,
            node=node,
            zone=self._zones.get(node, ""),
            # Of several services, the first by name, so that the choice is stable.
            service=min(services.values(), default=""),
            condition=_pod_condition(pod),
        )
        own = () if pod.spec.host_network else _packed(each.ip for each in pod.status.pod_ips)
        since = _since(pod.status.start_time or meta.creation_timestamp)
        self._take(own)
        self._directory.put(meta.uid, names, own, since, time.time_ns())

    def _workload(self, meta: Metadata) -> tuple[str, str]:
        """Name and kind of a pod's workload: its controller, or the controller of that."""
        owner = _controller(meta)
        if owner is None:
            return "", ""
        for label, kind in _TEMPLATE_HASH.items():
            template = meta.labels.get(label, "")
            if owner.kind == "ReplicaSet" and template and owner.name.endswith(f"-{template}"):
                return owner.name.removesuffix(f"-{template}"), kind
        return self._owners.get(owner.uid, (owner.name, owner.kind))

    def _put_node(self, node: Node) -> None:
        meta = node.metadata
        zone = meta.labels.get(_ZONE, "")
        condition = "not_ready" if _is_not_ready(node.status.conditions) else ""
        names = Names("node", node=meta.name, zone=zone, condition=condition)
        # Addresses that are names, such as those of type Hostname, are dropped.
        own = _packed(each.address for each in node.status.addresses)
        since = _since(meta.creation_timestamp)
        self._take(own)
        self._directory.put(meta.uid, names, own, since, time.time_ns())
        if self._zones.get(meta.name, "") != zone:
            self._zones[meta.name] = zone
            self._name_all(pod for pod in self._pods.values() if pod.spec.node_name == meta.name)

    def _put_service(self, service: ClusterService) -> None:
        meta = service.metadata
        self._by_name[meta.namespace, meta.name] = service
        # Without slices it has no selector, and nothing is known about what is behind it.
        slices = self._ready.get((meta.namespace, meta.name), {})
        none_ready = bool(slices) and not any(slices.values())
        names = Names(
            "service",
            namespace=meta.namespace,
            service=meta.name,
            condition="no_ready_endpoints" if none_ready else "",
        )
        since = _since(meta.creation_timestamp)
        own = [*_packed(service.spec.cluster_ips), *self._entered_for(service)]
        self._directory.put(meta.uid, names, own, since, time.time_ns())

    def _put_slice(self, piece: EndpointSlice, before: EndpointSlice | None) -> None:
        uid, service = piece.metadata.uid, piece.metadata.labels.get(_SERVICE_OF_SLICE, "")
        pods = piece.pods() if service else set()
        self._set_ready(piece, piece.has_ready())
        self._set_entered(piece, piece.addresses())
        if before is not None:
            self._remove_from_slice(uid, before.pods() - pods)
        for pod in pods:
            if self._services.setdefault(pod, {}).get(uid) != service:
                self._services[pod][uid] = service
                self._name_all(self._known_pods({pod}))

    def _set_ready(self, piece: EndpointSlice, ready: bool | None) -> None:
        """Note whether a slice has a ready endpoint, None if it is gone, and name its service."""
        meta = piece.metadata
        key = meta.namespace, meta.labels.get(_SERVICE_OF_SLICE, "")
        slices = self._ready.setdefault(key, {})
        if slices.get(meta.uid) == ready:
            return
        if ready is None:
            del slices[meta.uid]
        else:
            slices[meta.uid] = ready
        if not slices:
            del self._ready[key]
        if key in self._by_name:
            self._put_service(self._by_name[key])

    def _entered_for(self, service: ClusterService) -> list[bytes]:
        """Addresses that somebody entered as those behind a service, such as the API server's.

        One that a pod or a node has is theirs. If several services have an address, it is that of
        the first by name, so that the choice is stable.
        """
        key = service.metadata.namespace, service.metadata.name
        others = (self._all_entered(each) for each in self._entered if each < key)
        return sorted(self._all_entered(key).difference(self._taken, *others))

    def _all_entered(self, key: tuple[str, str]) -> frozenset[bytes]:
        return frozenset().union(*self._entered.get(key, {}).values())

    def _set_entered(self, piece: EndpointSlice, addresses: frozenset[bytes]) -> None:
        meta = piece.metadata
        key = meta.namespace, meta.labels.get(_SERVICE_OF_SLICE, "")
        slices = self._entered.setdefault(key, {})
        before = slices.pop(meta.uid, frozenset())
        if addresses:
            slices[meta.uid] = addresses
        if before != addresses:
            now = time.time_ns()
            owned = (a for a in addresses if self._directory.at(a, now, now).kind in _OWNERS)
            self._taken |= set(owned)
            self._name_entered()
        if not slices:
            del self._entered[key]

    def _take(self, addresses: Iterable[bytes]) -> None:
        """A pod or a node has these addresses, whatever service they were entered for."""
        if self._entered:
            entered = frozenset().union(*map(self._all_entered, self._entered))
            taken = entered.intersection(addresses) - self._taken
            if taken:
                self._taken |= taken
                self._name_entered()

    def _name_entered(self) -> None:
        for key in self._entered:
            if key in self._by_name:
                self._put_service(self._by_name[key])

    def _remove_from_slice(self, uid: str, pods: set[str]) -> None:
        for pod in pods & self._services.keys():
            self._services[pod].pop(uid, None)
            if not self._services[pod]:
                del self._services[pod]
        self._name_all(self._known_pods(pods))

    def _put_job(self, job: Job) -> None:
        owner = _controller(job.metadata)
        if owner is None or job.metadata.uid in self._owners:
            return
        self._owners[job.metadata.uid] = owner.name, owner.kind
        self._name_all(self._known_pods(self._pods_by_controller.get(job.metadata.uid, set())))

    def _known_pods(self, uids: set[str]) -> Iterator[Pod]:
        return (self._pods[uid] for uid in uids if uid in self._pods)

    def _name_all(self, pods: Iterable[Pod]) -> None:
        for pod in list(pods):
            self._name(pod)
