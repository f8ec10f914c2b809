"""Raw records and a directory to an enriched batch."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.addresses import ENDS
from flowverdict_contracts.enriched import Names
from flowverdict_enricher.directory import Directory
from flowverdict_enricher.objects import Service
from flowverdict_flows.batches import batch_of

__all__ = ["Learnt", "enrich"]


@dataclass(frozen=True, slots=True)
class Learnt:
    """What is known of records' ends that their addresses do not tell.

    Attributes:
        services: for each end, the services through which rows were sent to whoever answers.
        host_pods: the pods on a node's network, as `Directory.columns` takes them.
    """

    services: Mapping[str, Mapping[int, Service]] = field(default_factory=dict)
    host_pods: Mapping[int, Names] = field(default_factory=dict)


def enrich(
    records: npt.NDArray[np.void],
    directory: Directory,
    interval_ns: tuple[int, int],
    node: str,
    *,
    learnt: Learnt | None = None,
    dns_names: Mapping[int, str] | None = None,
) -> tuple[pa.RecordBatch, Counter[str]]:
    """A node's `records` (dtype `raw_records.RECORD`) with the names of their interval.

    `learnt` is what other messages tell about them, `dns_names` the names of lookups, by
    `dns_name`.

    Returns the batch (as `batch_of`: without most columns that have nothing in them) and the number
    of ends of each kind.
    """
    src, dst = (records[end] for end in ENDS)
    learnt = learnt or Learnt()
    names = directory.columns(src, dst, interval_ns, node, learnt.host_pods)
    for end, through in learnt.services.items():
        if through:
            names[f"{end}_service"] = _through(names, end, through)
    batch = batch_of(records, names, dns_names or {})
    kinds: Counter[str] = Counter()
    for end in ENDS:
        for count in batch.column(f"{end}_kind").value_counts().to_pylist():
            kinds[count["values"]] += count["counts"]
    return batch, kinds


def _through(
    names: Mapping[str, pa.DictionaryArray], end: str, services: Mapping[int, Service]
) -> pa.DictionaryArray:
    """The services at one end, with these in some rows, unless a pod of another namespace answers:
    a service beside a pod is in the pod's namespace.
    """
    nothing = pa.DictionaryArray.from_arrays(
        pa.array(np.zeros(len(names[f"{end}_kind"]), np.int32)), pa.array([""])
    )
    column = names.get(f"{end}_service", nothing)
    position = {name: at for at, name in enumerate(column.dictionary.to_pylist())}
    indices = column.indices.to_numpy().copy()
    namespaces = names.get(f"{end}_namespace", nothing)
    for row, (namespace, name) in services.items():
        if namespaces[row].as_py() in ("", namespace):
            indices[row] = position.setdefault(name, len(position))
    return pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(position, pa.string()))
