"""A cluster's objects and the names they give to addresses.

A pod's names come from several objects: its zone from its node, its service from endpoint slices,
and its CronJob from the Job that owns it. They arrive in any order.
"""

import threading
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace

from prometheus_client import Gauge

from flowverdict_contracts.enriched import Names
from flowverdict_enricher.directory import Directory
from flowverdict_enricher.entered_addresses import EnteredAddresses
from flowverdict_enricher.known import KnownPod, KnownSlice
from flowverdict_enricher.objects import (
    ClusterService,
    EndpointSlice,
    Job,
    Node,
    Object,
    Pod,
    Service,
)
from flowverdict_enricher.workloads import Workloads

__all__ = ["Cluster"]

_NODES = Gauge(
    "flowverdict_cluster_node",
    "1 for each node that Kubernetes has, as the enricher knows.",
    ["node"],
)
_OWNERS = ("pod", "node")
_NO_SLICE = KnownSlice(("", ""), frozenset(), frozenset(), False)


class Cluster:
    """Keeps a directory in sync with the cluster's objects. Several threads may report changes.

    Args:
        directory: gets the names.
        label_keys: the labels of pods that are part of their names.
    """

    def __init__(self, directory: Directory, label_keys: Sequence[str] = ()) -> None:
        self._directory = directory
        self._label_keys = label_keys
        self._pods: dict[str, KnownPod] = {}  # by uid, as all objects
        self._pods_on: dict[str, set[str]] = {}  # uids, by name of the node
        self._nodes: dict[str, str] = {}  # their names
        self._named: dict[str, dict[str, Names]] = {}  # nodes of a name, by uid
        self._zones: dict[str, str] = {}
        self._services: dict[str, ClusterService] = {}
        self._by_name: dict[Service, ClusterService] = {}
        self._cluster_addresses: dict[bytes, Service] = {}
        self._slices: dict[str, KnownSlice] = {}
        self._slices_of: dict[str, tuple[str, ...]] = {}  # of a pod
        self._ready: dict[Service, Counter[bool]] = {}  # slices that have a ready endpoint or not
        self._entered = EnteredAddresses()
        self._workloads = Workloads()
        self._changes = threading.Lock()

    def put(self, thing: Object) -> None:
        """Add an object, or update it."""
        with self._changes:
            match thing:
                case Pod():
                    self._put_pod(thing)
                case Node():
                    self._put_node(thing)
                case ClusterService():
                    self._services[thing.metadata.uid] = thing
                    self._name_service(thing)
                    self._enter(thing.key(), thing.metadata.uid, thing.outside_addresses())
                case EndpointSlice():
                    self._put_slice(thing.metadata.uid, KnownSlice.of(thing))
                case Job():
                    self._name_all(self._workloads.put_job(thing))

    def remove(self, kind: type[Object], uid: str) -> None:
        """Remove an object; no error if it does not exist."""
        with self._changes:
            if kind is Pod:
                self._remove_pod(uid)
            elif kind is Node and uid in self._nodes:
                self._remove_node(uid)
            elif kind is ClusterService and uid in self._services:
                self._remove_service(uid)
            elif kind is EndpointSlice and uid in self._slices:
                self._put_slice(uid, None)
            elif kind is Job:
                self._workloads.remove_job(uid)

    def keep_only(self, kind: type[Object], uids: Iterable[str]) -> None:
        """Remove the objects of a kind that are not in a fresh list."""
        known: dict[type[Object], Iterable[str]] = {
            Pod: self._pods,
            Node: self._nodes,
            ClusterService: self._services,
            EndpointSlice: self._slices,
            Job: self._workloads.jobs(),
        }
        for gone in set(known[kind]) - set(uids):
            self.remove(kind, gone)

    def _put_pod(self, pod: Pod) -> None:
        if pod.has_finished():
            self._remove_pod(pod.metadata.uid)
            return
        known = KnownPod.of(pod, self._label_keys)
        before = self._pods.get(known.uid)
        if before is not None and before.host_uid != known.host_uid:
            self._end_on_node(before)
        if before is not None and before.node != known.node:
            self._remove_from_node(before)
        if before is not None and before.job != known.job:
            self._workloads.discard(before)
        self._pods_on.setdefault(known.node, set()).add(known.uid)
        self._pods[known.uid] = known
        self._workloads.add(known)
        self._name(known)
        was_on, is_on = (
            (each.node, each.host_uid) if each is not None and each.host_uid else None
            for each in (before, known)
        )
        if was_on != is_on:
            for node, _ in filter(None, (was_on, is_on)):
                self._name_nodes(node)

    def _remove_pod(self, uid: str) -> None:
        pod = self._pods.pop(uid, None)
        if pod is not None:
            self._directory.end(uid, time.time_ns())
            self._directory.backends.put(uid, (), ())
            self._workloads.discard(pod)
            self._remove_from_node(pod)
            if pod.host_uid:
                self._end_on_node(pod)
                self._name_nodes(pod.node)

    def _end_on_node(self, pod: KnownPod) -> None:
        """A pod is gone from its node's network; a static pod's new mirror is the same one."""
        others = (self._pods[uid] for uid in self._pods_on.get(pod.node, ()) if uid != pod.uid)
        same = next((each for each in others if each.host_uid == pod.host_uid), None)
        if same is None:
            self._directory.host_pods.end(pod.host_uid, time.time_ns())
        else:
            self._name(same)

    def _remove_from_node(self, pod: KnownPod) -> None:
        self._pods_on[pod.node].discard(pod.uid)
        if not self._pods_on[pod.node]:
            del self._pods_on[pod.node]

    def _name(self, pod: KnownPod) -> None:
        workload, workload_kind = self._workloads.of(pod)
        services = {self._slices[each].service for each in self._slices_of.get(pod.uid, ())}
        names = Names(
            "pod",
            namespace=pod.namespace,
            pod=pod.name,
            workload=workload,
            workload_kind=workload_kind,
            node=pod.node,
            zone=self._zones.get(pod.node, ""),
            # Of several services, the first by name, so that the choice is stable.
            service=min((name for _, name in services), default=""),
            condition=pod.condition,
            labels=pod.labels,
        )
        self._take(pod.own)
        further = (each for each in pod.further if self._is_free(each, names))
        own = (*pod.own, *further) if pod.further else pod.own
        self._directory.put(pod.uid, names, own, pod.started_ns, time.time_ns())
        self._directory.backends.put(pod.uid, services, own)
        if pod.host_uid:
            self._directory.host_pods.put(pod.host_uid, names, services)

    def _is_free(self, address: bytes, names: Names) -> bool:
        """Whether nothing but this pod has the address, as far as is known."""
        now = time.time_ns()
        found = self._directory.at(address, now, now)
        same = (found.namespace, found.pod) == (names.namespace, names.pod)
        return found.kind in ("unknown", "external") or found.condition == "gone" or same

    def _put_node(self, node: Node) -> None:
        meta, zone = node.metadata, node.zone()
        _NODES.labels(meta.name).set(1)
        names = Names("node", node=meta.name, zone=zone, condition=node.condition())
        names = self._with_candidates(names)
        self._nodes[meta.uid] = meta.name
        self._named.setdefault(meta.name, {})[meta.uid] = names
        own = node.addresses()
        self._take(own)
        self._directory.set_pod_networks(meta.name, node.pod_networks())
        self._directory.put(meta.uid, names, own, meta.created_ns(), time.time_ns())
        if self._zones.get(meta.name, "") != zone:
            self._zones[meta.name] = zone
            self._name_all(self._pods_on.get(meta.name, ()))

    def _remove_node(self, uid: str) -> None:
        """A node is gone. Its zone and its networks are kept: its pods may outlive it."""
        name = self._nodes.pop(uid)
        del self._named[name][uid]
        if not self._named[name]:  # no other of its name has come
            del self._named[name]
            _NODES.remove(name)
        self._directory.end(uid, time.time_ns())

    def _with_candidates(self, node: Names) -> Names:
        on_it = (self._pods[uid] for uid in self._pods_on.get(node.node, ()))
        hosted = sorted(f"{each.namespace}/{each.name}" for each in on_it if each.host_uid)
        return replace(node, candidates=",".join(hosted))

    def _name_nodes(self, name: str) -> None:
        """Name a node anew: other pods are on its network."""
        named = self._named.get(name, {})
        for uid, names in named.items():
            named[uid] = self._with_candidates(names)
            self._directory.rename(uid, named[uid])

    def _remove_service(self, uid: str) -> None:
        service = self._services.pop(uid)
        # Another of that name may have been created since.
        if self._by_name.get(service.key()) is service:
            del self._by_name[service.key()]
            for each in service.addresses():
                if self._cluster_addresses.get(each) == service.key():
                    del self._cluster_addresses[each]
        self._enter(service.key(), uid, frozenset())
        self._directory.end(uid, time.time_ns())

    def _name_service(self, service: ClusterService) -> None:
        meta = service.metadata
        self._by_name[service.key()] = service
        self._cluster_addresses |= dict.fromkeys(service.addresses(), service.key())
        self._take(service.addresses())
        # Without slices it has no selector, and nothing is known about what is behind it.
        slices = self._ready.get(service.key())
        names = Names(
            "service",
            namespace=meta.namespace,
            service=meta.name,
            condition="no_ready_endpoints" if slices and not slices[True] else "",
        )
        own = [*service.addresses(), *self._entered.of(service.key())]
        self._directory.put(meta.uid, names, own, meta.created_ns(), time.time_ns())

    def _put_slice(self, uid: str, piece: KnownSlice | None) -> None:
        """Replace a slice, and the names that come from it; None if it is gone."""
        before = self._slices.pop(uid, None)
        if piece is not None:
            self._slices[uid] = piece
        self._count_ready(before, piece)
        service = (piece or before or _NO_SLICE).service
        entered = piece.entered if piece else frozenset()
        self._enter(service, uid, entered)
        self._directory.backends.enter(uid, service, entered)
        had, has = ((each or _NO_SLICE).pods for each in (before, piece))
        for pod in had - has:
            self._leave(pod, uid)
        for pod in has - had:
            self._slices_of[pod] = (*self._slices_of.get(pod, ()), uid)
        moved = before is not None and piece is not None and before.service != piece.service
        self._name_all(had | has if moved else had ^ has)

    def _leave(self, pod: str, piece: str) -> None:
        others = tuple(each for each in self._slices_of.get(pod, ()) if each != piece)
        if others:
            self._slices_of[pod] = others
        else:
            self._slices_of.pop(pod, None)

    def _count_ready(self, before: KnownSlice | None, piece: KnownSlice | None) -> None:
        """Note which slices have a ready endpoint, and name the services of which that changes."""
        facts = [(each.service, each.has_ready) for each in (before, piece) if each]
        if facts[:1] == facts[1:]:
            return
        for each, change in ((before, -1), (piece, +1)):
            if each is not None:
                self._ready.setdefault(each.service, Counter())[each.has_ready] += change
        services = {each.service for each in (before, piece) if each is not None}
        for service in services:
            if not self._ready[service].total():
                del self._ready[service]
        self._name_services(services)

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
                self._name_service(self._by_name[each])

    def _name_all(self, pods: Iterable[str]) -> None:
        for uid in pods:
            if uid in self._pods:
                self._name(self._pods[uid])
