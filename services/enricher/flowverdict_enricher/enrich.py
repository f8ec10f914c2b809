"""Raw records and a directory to an enriched batch."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.addresses import ENDS
from flowverdict_contracts.enriched import Names
from flowverdict_enricher.directory import Directory
from flowverdict_flows.batches import batch_of

__all__ = ["enrich"]


def enrich(
    records: npt.NDArray[np.void], directory: Directory, start_ns: int, end_ns: int, node: str
) -> tuple[pa.RecordBatch, Counter[str]]:
    """A node's `records` (dtype `raw_records.RECORD`) with the names of their interval.

    Returns the batch (`enriched.ARROW_SCHEMA`, rows in the order of `records`) and the number of
    ends of each kind.
    """

    def names_of(address: bytes, is_local: bool) -> Names:
        return directory.at(address, start_ns, end_ns, node if is_local else "")

    batch = batch_of(records, names_of)
    kinds: Counter[str] = Counter()
    for end in ENDS:
        for count in batch.column(f"{end}_kind").value_counts().to_pylist():
            kinds[count["values"]] += count["counts"]
    return batch, kinds
