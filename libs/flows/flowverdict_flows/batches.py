"""Raw records to an enriched batch, column by column."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.enriched import ARROW_SCHEMA
from flowverdict_contracts.raw import ROLES
from flowverdict_contracts.raw_records import any_bit_of

__all__ = ["batch_of", "distinct_addresses"]

_ROLES = pa.array(ROLES, pa.string())
_NUMBERS = [field.name for field in ARROW_SCHEMA if not pa.types.is_dictionary(field.type)]


def batch_of(
    records: npt.NDArray[np.void],
    names: Mapping[str, pa.DictionaryArray],
    dns_names: Mapping[int, str],
) -> pa.RecordBatch:
    """`records` (dtype `raw_records.RECORD`) as a batch of `enriched.ARROW_SCHEMA`, in their order,
    without most columns that have only zeros or empty texts (`enriched.completed` adds them).

    `names` are the columns about each end (`NameTable.columns`), `dns_names` the names of lookups,
    by `dns_name`.
    """
    columns: dict[str, pa.Array] = dict(names)
    columns["role"] = pa.DictionaryArray.from_arrays(
        pa.array(records["role"].astype(np.int32)), _ROLES
    )
    if dns_names:
        columns["dns_name"] = _looked_up(records["dns_name"], dns_names)
    for name in _nonzero(records):
        columns[name] = pa.array(np.ascontiguousarray(records[name]))
    schema = pa.schema(field for field in ARROW_SCHEMA if field.name in columns)
    return pa.RecordBatch.from_arrays([columns[name] for name in schema.names], schema=schema)


def _nonzero(records: npt.NDArray[np.void]) -> list[str]:
    """The numbers that are not zero in every row."""
    bits = any_bit_of(records)
    return [name for name in _NUMBERS if bits[name]]


def distinct_addresses(
    packed: npt.NDArray[np.void],
) -> tuple[npt.NDArray[np.int32], list[bytes]]:
    """The distinct ones of some addresses of 16 bytes, and for each its position among them."""
    if not packed.size:
        return np.zeros(0, np.int32), []
    buffer = pa.py_buffer(np.ascontiguousarray(packed))
    encoded = pa.Array.from_buffers(pa.binary(16), packed.size, [None, buffer]).dictionary_encode()
    # One by one, `to_pylist` would take as long as all the rest.
    found = encoded.dictionary
    distinct: list[bytes] = np.frombuffer(found.buffers()[1], "V16", len(found)).tolist()
    return encoded.indices.to_numpy(), distinct


def _looked_up(numbers: npt.NDArray[np.uint16], names: Mapping[int, str]) -> pa.DictionaryArray:
    """The names of lookups by their numbers; empty where there is none."""
    distinct, rows = np.unique(numbers, return_inverse=True)
    texts = [names.get(each, "") for each in distinct.tolist()]
    encoded = pa.array(texts, pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(
        pa.array(encoded.indices.to_numpy()[rows]), encoded.dictionary
    )
