"""Who is at one end of a flow."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.addresses import ENDS, is_loopback
from flowverdict_contracts.verdicts import EndKind

__all__ = ["Endpoint", "Sighting", "Sightings", "distinct_ends"]

_COLUMNS = (
    "ip", "kind", "namespace", "pod", "workload", "service", "node", "zone", "labels", "condition",
    "candidates",
)  # fmt: skip
_COLUMNS_OF = {end: [f"{end}_{name}" for name in _COLUMNS] for end in ENDS}
_MOST_REMEMBERED = 50_000


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
    _hash: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        names = self.kind, self.namespace, self.name, self.workload, self.node
        object.__setattr__(self, "_hash", hash(names))

    def __hash__(self) -> int:
        # Looked up for each address of each message: computing it took a fifth of all the time.
        return self._hash

    def __str__(self) -> str:
        """As an operator writes it: `namespace/name`, or the name alone."""
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


def distinct_ends(batch: pa.RecordBatch, columns: Sequence[str]) -> list[tuple[str, ...] | None]:
    """The values of `columns` for each distinct address, the first column being the address.

    In the order of its dictionary, each entry of which belongs to one owner (`enriched`). None
    marks loopback, which says nothing about a network, and entries that no row uses.
    """
    addresses, *_ = read = [batch.column(name) for name in columns]
    rows = addresses.indices.to_numpy()
    first = np.full(len(addresses.dictionary), -1)
    first[rows[::-1]] = np.arange(len(rows))[::-1]
    used = np.flatnonzero(first >= 0)
    values = [_texts(column, first[used]) for column in read]
    found: list[tuple[str, ...] | None] = [None] * len(first)
    for code, each in zip(used.tolist(), zip(*values, strict=True), strict=True):
        found[code] = None if is_loopback(each[0]) else each
    return found


def _texts(column: pa.DictionaryArray, rows: npt.NDArray[np.int64]) -> Iterable[str]:
    """The texts of a column in these rows."""
    texts = column.dictionary.to_pylist()
    if len(texts) == 1:
        return repeat(texts[0], len(rows))
    return map(texts.__getitem__, column.indices.to_numpy()[rows].tolist())


@dataclass(frozen=True, slots=True, eq=False)
class Sighting:
    """An endpoint as a batch describes it; `Sightings` makes one for each description.

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


class Sightings:
    """Reads the endpoints of batches. What one message says, the next mostly says again, so
    descriptions are remembered.
    """

    def __init__(self) -> None:
        self._known: dict[tuple[str, ...], Sighting] = {}

    def of(self, batch: pa.RecordBatch, end: str) -> Iterator[Sighting | None]:
        """The endpoint of each distinct address at one `end` ("src", "dst") of a batch."""
        if len(self._known) > _MOST_REMEMBERED:
            self._known.clear()
        for values in distinct_ends(batch, _COLUMNS_OF[end]):
            if values is None:
                yield None
                continue
            sighting = self._known.get(values)
            if sighting is None:
                sighting = self._known[values] = _sighting(values)
            yield sighting


def _sighting(values: tuple[str, ...]) -> Sighting:
    """What a row's `_COLUMNS` say."""
    address, kind, namespace, pod, workload, service, node, zone, labels, condition, pods = values
    if kind == "pod":
        chosen = tuple(filter(None, labels.split(",")))
        endpoint = Endpoint("pod", namespace, pod, workload, node, zone, chosen)
    elif kind == "service":
        endpoint = Endpoint("service", namespace, service)
    elif kind == "node":
        endpoint = Endpoint("node", "", node, node=node, zone=zone)
    else:
        endpoint = Endpoint("external" if kind == "external" else "unknown", "", address, node=node)
    candidates = tuple(filter(None, pods.split(",")))
    return Sighting(endpoint, address, service if kind == "pod" else "", condition, candidates)
