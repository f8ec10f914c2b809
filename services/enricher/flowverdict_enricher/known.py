"""What is remembered of a cluster's pods and endpoint slices, and no more: there may be a hundred
thousand pods.
"""

import sys
from collections.abc import Sequence

import msgspec

from flowverdict_enricher.labels import labels_text
from flowverdict_enricher.objects import EndpointSlice, Owner, Pod, Service

__all__ = ["KnownPod", "KnownSlice"]

# Deployments and Argo Rollouts name their ReplicaSets after themselves and this pod label
# (kubernetes: pkg/controller/deployment/sync.go; argo-rollouts: rollout/sync.go).
_TEMPLATE_HASH = {"pod-template-hash": "Deployment", "rollouts-pod-template-hash": "Rollout"}


class KnownPod(msgspec.Struct, frozen=True, gc=False):
    """A pod that has not finished. What pods share is one object: names of nodes, for example.

    Attributes:
        workload, workload_kind: its controller, or what manages that, as far as the pod tells.
        job: uid of the Job that controls it; empty if none does.
        host_uid: what its node calls it if it is on the network of its node, else empty.
        own: its addresses.
        further: those that it claims to have on further networks.
        started_ns: when it was started, or else created, in nanoseconds since 1970.
        condition, labels: as in an enriched row.
    """

    uid: str
    namespace: str
    name: str
    node: str
    workload: str
    workload_kind: str
    job: str
    host_uid: str
    own: tuple[bytes, ...]
    further: tuple[bytes, ...]
    started_ns: int
    condition: str
    labels: str

    @classmethod
    def of(cls, pod: Pod, label_keys: Sequence[str]) -> "KnownPod":
        """What to remember of a pod, with those of its labels that have these keys."""
        meta = pod.metadata
        owner = meta.controller() or Owner("", "")
        workload, kind = _workload(owner, meta.labels)
        return cls(
            uid=meta.uid,
            namespace=sys.intern(meta.namespace),
            name=meta.name,
            node=sys.intern(pod.spec.node_name),
            workload=sys.intern(workload),
            workload_kind=sys.intern(kind),
            job=sys.intern(owner.uid) if owner.kind == "Job" else "",
            host_uid=pod.host_uid(),
            own=tuple(pod.addresses()),
            further=tuple(pod.further_addresses()),
            started_ns=pod.started_ns(),
            condition=pod.condition(),
            labels=sys.intern(labels_text(meta.labels, label_keys)),
        )


def _workload(owner: Owner, labels: dict[str, str]) -> tuple[str, str]:
    for label, kind in _TEMPLATE_HASH.items():
        template = labels.get(label, "")
        if owner.kind == "ReplicaSet" and template and owner.name.endswith(f"-{template}"):
            return owner.name.removesuffix(f"-{template}"), kind
    return owner.name, owner.kind


class KnownSlice(msgspec.Struct, frozen=True):
    """An endpoint slice.

    Attributes:
        service: namespace and name of its service; the name is empty if it belongs to none.
        pods: the uids of its pods; none if it belongs to no service.
        entered: the addresses in it that are of no pod.
        has_ready: whether any of its endpoints is ready.
    """

    service: Service
    pods: frozenset[str]
    entered: frozenset[bytes]
    has_ready: bool

    @classmethod
    def of(cls, piece: EndpointSlice) -> "KnownSlice":
        """What to remember of a slice."""
        service = piece.service()
        pods = piece.pods() if service[1] else set()
        return cls(service, frozenset(pods), piece.entered(), piece.has_ready())
