"""Raw records and a directory to an enriched batch."""

from collections import Counter
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.addresses import ENDS
from flowverdict_enricher.directory import Directory
from flowverdict_flows.batches import batch_of

__all__ = ["enrich"]


def enrich(
    records: npt.NDArray[np.void],
    directory: Directory,
    interval_ns: tuple[int, int],
    node: str,
    *,
    services: Mapping[str, Mapping[int, str]] | None = None,
    dns_names: Mapping[int, str] | None = None,
) -> tuple[pa.RecordBatch, Counter[str]]:
    """A node's `records` (dtype `raw_records.RECORD`) with the names of their interval.

    `services` has, for each end, the services through which rows were sent to a pod; `dns_names`
    the names of lookups, by `dns_name`.

    Returns the batch (as `batch_of`: without the numbers that are zero in every row) and the number
    of ends of each kind.
    """
    src, dst = (records[end].tolist() for end in ENDS)
    batch = batch_of(records, directory.columns(src, dst, interval_ns, node), dns_names or {})
    for end, through in (services or {}).items():
        batch = _through(batch, f"{end}_service", through)
    kinds: Counter[str] = Counter()
    for end in ENDS:
        for count in batch.column(f"{end}_kind").value_counts().to_pylist():
            kinds[count["values"]] += count["counts"]
    return batch, kinds


def _through(batch: pa.RecordBatch, column: str, services: Mapping[int, str]) -> pa.RecordBatch:
    """The batch with these services in some of its rows."""
    if not services:
        return batch
    at = batch.schema.get_field_index(column)
    values = batch.column(at).dictionary.to_pylist()
    position = {name: number for number, name in enumerate(values)}
    indices = batch.column(at).indices.to_numpy().copy()
    for row, name in services.items():
        indices[row] = position.setdefault(name, len(position))
    replaced = pa.DictionaryArray.from_arrays(pa.array(indices), pa.array(position, pa.string()))
    return batch.set_column(at, batch.schema.field(at), replaced)
