"""Who is at one end of a flow."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from flowverdict_contracts.addresses import is_loopback
from flowverdict_contracts.verdicts import EndKind

__all__ = ["Endpoint", "Sighting", "distinct_ends", "endpoints_of"]

_COLUMNS = (
    "ip", "kind", "namespace", "pod", "workload", "service", "node", "zone", "labels", "condition",
    "candidates",
)  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """A pod, a service, a node, or an address that belongs to nothing in the cluster.

    Attributes:
        kind: as in an enriched row: pod, service, node, external, unknown.
        namespace: of a pod or a service, else empty.
        name: the pod's, service's or node's name, or the address.
        workload: the controller that owns the pod, in the same namespace; empty if none does.
        node: the node it runs on; empty if unknown.
        zone: the node's; empty if unknown.
        labels: those of a pod that were chosen, each as `KEY=VALUE`.
    """

    kind: EndKind
    namespace: str
    name: str
    workload: str = ""
    node: str = ""
    zone: str = ""
    labels: tuple[str, ...] = ()

    def __str__(self) -> str:
        """As an operator writes it: `namespace/name`, or the name alone."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def distinct_ends(batch: pa.RecordBatch, columns: Sequence[str]) -> list[tuple[str, ...] | None]:
    """The values of `columns` for each distinct address, the first column being the address.

    In the order of its dictionary, each entry of which belongs to one owner (`enriched`). None
    marks loopback, which says nothing about a network, and entries that no row uses.
    """
    addresses, *_ = read = [batch.column(name) for name in columns]
    used, first = np.unique(addresses.indices.to_numpy(), return_index=True)
    values = []
    for column in read:
        texts = column.dictionary.to_pylist()
        values.append([texts[code] for code in column.indices.to_numpy()[first].tolist()])
    found: list[tuple[str, ...] | None] = [None] * len(addresses.dictionary)
    for code, each in zip(used.tolist(), zip(*values, strict=True), strict=True):
        found[code] = None if is_loopback(each[0]) else each
    return found


@dataclass(frozen=True, slots=True)
class Sighting:
    """An endpoint as a batch describes it.

    Attributes:
        endpoint: which.
        address: its address.
        service: the service that it is a pod of, in its namespace; empty if none.
        condition: what Kubernetes reports about it, as in an enriched row.
        candidates: the pods on a node's network, as `NAMESPACE/NAME`.
    """

    endpoint: Endpoint
    address: str
    service: str
    condition: str
    candidates: tuple[str, ...] = ()


def endpoints_of(batch: pa.RecordBatch, end: str) -> Iterator[Sighting | None]:
    """The endpoint of each distinct address at one `end` ("src", "dst") of a batch."""
    for values in distinct_ends(batch, [f"{end}_{name}" for name in _COLUMNS]):
        if values is None:
            yield None
        else:
            service = values[5] if values[1] == "pod" else ""
            candidates = tuple(filter(None, values[10].split(",")))
            yield Sighting(_endpoint(values), values[0], service, values[9], candidates)


def _endpoint(values: tuple[str, ...]) -> Endpoint:
    """The endpoint described by a row's `_COLUMNS`."""
    address, kind, namespace, pod, workload, service, node, zone, labels, *_ = values
    if kind == "pod":
        chosen = tuple(filter(None, labels.split(",")))
        return Endpoint("pod", namespace, pod, workload, node, zone, chosen)
    if kind == "service":
        return Endpoint("service", namespace, service)
    if kind == "node":
        return Endpoint("node", "", node, node=node, zone=zone)
    return Endpoint("external" if kind == "external" else "unknown", "", address, node=node)
