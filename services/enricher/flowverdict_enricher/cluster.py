"""A cluster's objects and the names they give to addresses.

A pod's names come from several objects: its zone from its node, its service from endpoint slices,
and its CronJob from the Job that owns it. They arrive in any order.
"""

import threading
import time
from collections.abc import Iterable, Iterator

from prometheus_client import Gauge

from flowverdict_contracts.enriched import Names
from flowverdict_enricher.directory import Directory
from flowverdict_enricher.entered_addresses import EnteredAddresses
from flowverdict_enricher.objects import (
    ClusterService,
    EndpointSlice,
    Job,
    Metadata,
    Node,
    Object,
    Pod,
    Service,
)

__all__ = ["Cluster"]

_NODES = Gauge(
    "flowverdict_cluster_node",
    "1 for each node that Kubernetes has, as the enricher knows.",
    ["node"],
)
_OWNERS = ("pod", "node")
# Deployments and Argo Rollouts name their ReplicaSets after themselves and this pod label
# (kubernetes: pkg/controller/deployment/sync.go; argo-rollouts: rollout/sync.go).
_TEMPLATE_HASH = {"pod-template-hash": "Deployment", "rollouts-pod-template-hash": "Rollout"}


class Cluster:
    """Keeps a directory in sync with the cluster's objects. Several threads may report changes."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        self._known: dict[type[Object], dict[str, Object]] = {}
        self._pods: dict[str, Pod] = {}  # those that have not finished, and so have names
        self._zones: dict[str, str] = {}
        self._services: dict[str, dict[str, str]] = {}  # by pod, by slice
        self._ready: dict[Service, dict[str, bool]] = {}  # by slice
        self._by_name: dict[Service, ClusterService] = {}
        self._cluster_addresses: dict[bytes, Service] = {}
        self._entered = EnteredAddresses()
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
                    self._enter(thing.key(), thing.metadata.uid, thing.outside_addresses())
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
                    self._count_out(thing.metadata.name)
                    # Keep its zone and its networks: its pods may outlive it.
                    self._directory.end(uid, time.time_ns())
                case ClusterService():
                    # Another of that name may have been created since.
                    if self._by_name.get(thing.key()) is thing:
                        del self._by_name[thing.key()]
                        for each in thing.addresses():
                            if self._cluster_addresses.get(each) == thing.key():
                                del self._cluster_addresses[each]
                    self._enter(thing.key(), uid, frozenset())
                    self._directory.end(uid, time.time_ns())
                case EndpointSlice():
                    self._remove_from_slice(uid, thing.pods())
                    self._set_ready(thing, None)
                    self._enter(thing.service(), uid, frozenset())
                case Job():
                    if uid not in self._pods_by_controller:
                        self._owners.pop(uid, None)

    def keep_only(self, kind: type[Object], uids: Iterable[str]) -> None:
        """Remove the objects of a kind that are not in a fresh list."""
        for gone in set(self._known.get(kind, {})) - set(uids):
            self.remove(kind, gone)

    def _put_pod(self, pod: Pod) -> None:
        if pod.has_finished():
            self._remove_pod(pod)
            return
        owner = pod.metadata.controller()
        if owner is not None:
            self._pods_by_controller.setdefault(owner.uid, set()).add(pod.metadata.uid)
        self._pods[pod.metadata.uid] = pod
        self._name(pod)

    def _remove_pod(self, pod: Pod) -> None:
        uid, owner = pod.metadata.uid, pod.metadata.controller()
        self._pods.pop(uid, None)
        self._directory.end(uid, time.time_ns())
        self._directory.backends.put(uid, (), ())
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
            condition=pod.condition(),
        )
        own = pod.addresses()
        self._take(own)
        own += [each for each in pod.further_addresses() if self._is_free(each, names)]
        self._directory.put(meta.uid, names, own, pod.started_ns(), time.time_ns())
        behind = ((meta.namespace, each) for each in services.values())
        self._directory.backends.put(meta.uid, behind, own)

    def _is_free(self, address: bytes, names: Names) -> bool:
        """Whether nothing but this pod has the address, as far as is known."""
        now = time.time_ns()
        found = self._directory.at(address, now, now)
        same = (found.namespace, found.pod) == (names.namespace, names.pod)
        return found.kind in ("unknown", "external") or found.condition == "gone" or same

    def _workload(self, meta: Metadata) -> tuple[str, str]:
        """Name and kind of a pod's workload: its controller, or the controller of that."""
        owner = meta.controller()
        if owner is None:
            return "", ""
        for label, kind in _TEMPLATE_HASH.items():
            template = meta.labels.get(label, "")
            if owner.kind == "ReplicaSet" and template and owner.name.endswith(f"-{template}"):
                return owner.name.removesuffix(f"-{template}"), kind
        return self._owners.get(owner.uid, (owner.name, owner.kind))

    def _count_out(self, node: str) -> None:
        """A node is gone, unless another of its name has come."""
        if all(each.metadata.name != node for each in self._known[Node].values()):
            _NODES.remove(node)

    def _put_node(self, node: Node) -> None:
        meta, zone = node.metadata, node.zone()
        _NODES.labels(meta.name).set(1)
        names = Names("node", node=meta.name, zone=zone, condition=node.condition())
        own = node.addresses()
        self._take(own)
        self._directory.pod_networks.put(meta.name, node.pod_networks())
        self._directory.put(meta.uid, names, own, meta.created_ns(), time.time_ns())
        if self._zones.get(meta.name, "") != zone:
            self._zones[meta.name] = zone
            self._name_all(pod for pod in self._pods.values() if pod.spec.node_name == meta.name)

    def _put_service(self, service: ClusterService) -> None:
        meta = service.metadata
        self._by_name[service.key()] = service
        self._cluster_addresses |= dict.fromkeys(service.addresses(), service.key())
        self._take(service.addresses())
        # Without slices it has no selector, and nothing is known about what is behind it.
        slices = self._ready.get(service.key(), {})
        none_ready = bool(slices) and not any(slices.values())
        names = Names(
            "service",
            namespace=meta.namespace,
            service=meta.name,
            condition="no_ready_endpoints" if none_ready else "",
        )
        own = [*service.addresses(), *self._entered.of(service.key())]
        self._directory.put(meta.uid, names, own, meta.created_ns(), time.time_ns())

    def _put_slice(self, piece: EndpointSlice, before: EndpointSlice | None) -> None:
        uid, (_, service) = piece.metadata.uid, piece.service()
        pods = piece.pods() if service else set()
        self._set_ready(piece, piece.has_ready())
        self._enter(piece.service(), uid, piece.entered())
        if before is not None:
            self._remove_from_slice(uid, before.pods() - pods)
        for pod in pods:
            if self._services.setdefault(pod, {}).get(uid) != service:
                self._services[pod][uid] = service
                self._name_all(self._known_pods({pod}))

    def _set_ready(self, piece: EndpointSlice, ready: bool | None) -> None:
        """Note whether a slice has a ready endpoint, None if it is gone, and name its service."""
        uid, service = piece.metadata.uid, piece.service()
        slices = self._ready.setdefault(service, {})
        if slices.get(uid) == ready:
            return
        if ready is None:
            del slices[uid]
        else:
            slices[uid] = ready
        if not slices:
            del self._ready[service]
        self._name_services([service])

    def _enter(self, service: Service, uid: str, addresses: frozenset[bytes]) -> None:
        now = time.time_ns()
        concerned = self._entered.enter(service, uid, addresses)
        self._entered.take(
            each
            for each in addresses
            if self._directory.at(each, now, now).kind in _OWNERS
            or self._cluster_addresses.get(each, service) != service
        )
        self._name_services(concerned)

    def _take(self, addresses: Iterable[bytes]) -> None:
        """A pod, a node or a service has these addresses, whatever they were entered for."""
        self._name_services(self._entered.take(addresses))

    def _name_services(self, services: Iterable[Service]) -> None:
        for each in services:
            if each in self._by_name:
                self._put_service(self._by_name[each])

    def _remove_from_slice(self, uid: str, pods: set[str]) -> None:
        for pod in pods & self._services.keys():
            self._services[pod].pop(uid, None)
            if not self._services[pod]:
                del self._services[pod]
        self._name_all(self._known_pods(pods))

    def _put_job(self, job: Job) -> None:
        owner = job.metadata.controller()
        if owner is None or job.metadata.uid in self._owners:
            return
        self._owners[job.metadata.uid] = owner.name, owner.kind
        self._name_all(self._known_pods(self._pods_by_controller.get(job.metadata.uid, set())))

    def _known_pods(self, uids: set[str]) -> Iterator[Pod]:
        return (self._pods[uid] for uid in uids if uid in self._pods)

    def _name_all(self, pods: Iterable[Pod]) -> None:
        for pod in list(pods):
            self._name(pod)
