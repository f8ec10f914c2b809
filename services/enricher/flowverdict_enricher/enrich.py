"""Raw records and a directory to an Arrow batch, column by column."""

from collections import Counter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.addresses import ENDS, to_text
from flowverdict_contracts.enriched import ARROW_SCHEMA, NAMES
from flowverdict_contracts.raw import ROLES
from flowverdict_enricher.directory import Directory, Endpoint

__all__ = ["enrich"]

_ROLES = pa.array(ROLES, pa.string())
_NUMBERS = [field.name for field in ARROW_SCHEMA if not pa.types.is_dictionary(field.type)]


def enrich(
    records: npt.NDArray[np.void], directory: Directory, start_ns: int, end_ns: int
) -> tuple[pa.RecordBatch, Counter[str]]:
    """`records` (dtype `columns.RECORD`) with names as of their interval.

    Returns the batch, of `enriched.ARROW_SCHEMA`, rows in the order of `records`, and how many ends
    are of each kind.
    """
    codes, addresses = _distinct(records)
    endpoints = [directory.at(address, start_ns, end_ns) for address in addresses]
    columns: dict[str, pa.Array] = {}
    texts = pa.array([to_text(address) for address in addresses], pa.string())
    halves = dict(zip(ENDS, np.split(codes, 2), strict=True))
    for end, half in halves.items():
        columns[f"{end}_ip"] = pa.DictionaryArray.from_arrays(pa.array(half), texts)
    columns["role"] = pa.DictionaryArray.from_arrays(
        pa.array(records["role"].astype(np.int32)), _ROLES
    )
    for name in _NUMBERS:
        columns[name] = pa.array(np.ascontiguousarray(records[name]))
    for name in NAMES:
        values, of_endpoint = _dictionary(endpoints, name)
        for end, half in halves.items():
            columns[f"{end}_{name}"] = pa.DictionaryArray.from_arrays(
                pa.array(of_endpoint[half]), values
            )
    batch = pa.RecordBatch.from_arrays(
        [columns[field.name] for field in ARROW_SCHEMA], schema=ARROW_SCHEMA
    )
    rows = np.bincount(codes, minlength=len(endpoints))
    kinds: Counter[str] = Counter()
    for endpoint, count in zip(endpoints, rows, strict=True):
        kinds[endpoint.kind] += int(count)
    return batch, kinds


def _distinct(records: npt.NDArray[np.void]) -> tuple[npt.NDArray[np.int32], list[bytes]]:
    """Each end's index among the distinct addresses, sources first, and those addresses."""
    both = np.concatenate([records["src"], records["dst"]])
    if not both.size:
        return np.zeros(0, np.int32), []
    buffer = pa.py_buffer(np.ascontiguousarray(both))
    encoded = pa.Array.from_buffers(pa.binary(16), both.size, [None, buffer]).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int32), encoded.dictionary.to_pylist()


def _dictionary(endpoints: list[Endpoint], name: str) -> tuple[pa.Array, npt.NDArray[np.int32]]:
    position: dict[str, int] = {}
    of_endpoint = np.array(
        [position.setdefault(getattr(each, name), len(position)) for each in endpoints], np.int32
    )
    return pa.array(list(position), pa.string()), of_endpoint
