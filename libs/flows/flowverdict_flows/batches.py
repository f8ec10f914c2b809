"""Raw records to an enriched batch, column by column."""

from collections.abc import Callable, Mapping
from operator import attrgetter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.addresses import ENDS, to_text
from flowverdict_contracts.enriched import ARROW_SCHEMA, NAMES, Names
from flowverdict_contracts.raw import ROLES

__all__ = ["batch_of", "distinct_addresses"]

_ROLES = pa.array(ROLES, pa.string())
_ALL_NAMES = attrgetter(*NAMES)
_NUMBERS = [field.name for field in ARROW_SCHEMA if not pa.types.is_dictionary(field.type)]


def batch_of(
    records: npt.NDArray[np.void],
    names_of: Callable[[bytes, bool], Names],
    dns_names: Mapping[int, str],
) -> pa.RecordBatch:
    """`records` (dtype `raw_records.RECORD`) as a batch of `enriched.ARROW_SCHEMA`, in their order.

    `names_of` is called once for each distinct address, given as 16 bytes, and whether it is the
    local end of a flow. `dns_names` are the names of lookups, by `dns_name`.
    """
    codes, addresses = distinct_addresses(np.concatenate([records["src"], records["dst"]]))
    local = np.zeros(len(addresses), np.bool_)
    local[codes[: len(records)]] = True
    names = [names_of(*each) for each in zip(addresses, local.tolist(), strict=True)]
    columns: dict[str, pa.Array] = {}
    texts = pa.array([to_text(address) for address in addresses], pa.string())
    halves = dict(zip(ENDS, np.split(codes, 2), strict=True))
    for end, half in halves.items():
        columns[f"{end}_ip"] = pa.DictionaryArray.from_arrays(pa.array(half), texts)
    columns["role"] = pa.DictionaryArray.from_arrays(
        pa.array(records["role"].astype(np.int32)), _ROLES
    )
    columns["dns_name"] = _looked_up(records["dns_name"], dns_names)
    for name in _NUMBERS:
        columns[name] = pa.array(np.ascontiguousarray(records[name]))
    texts_of = zip(*map(_ALL_NAMES, names), strict=True) if names else [()] * len(NAMES)
    for name, column in zip(NAMES, texts_of, strict=True):
        encoded = pa.array(column, pa.string()).dictionary_encode()
        of_address = encoded.indices.to_numpy()
        for end, half in halves.items():
            columns[f"{end}_{name}"] = pa.DictionaryArray.from_arrays(
                pa.array(of_address[half]), encoded.dictionary
            )
    return pa.RecordBatch.from_arrays(
        [columns[field.name] for field in ARROW_SCHEMA], schema=ARROW_SCHEMA
    )


def distinct_addresses(
    packed: npt.NDArray[np.void],
) -> tuple[npt.NDArray[np.int32], list[bytes]]:
    """The distinct ones of some addresses of 16 bytes, and for each its position among them."""
    if not packed.size:
        return np.zeros(0, np.int32), []
    buffer = pa.py_buffer(np.ascontiguousarray(packed))
    encoded = pa.Array.from_buffers(pa.binary(16), packed.size, [None, buffer]).dictionary_encode()
    return encoded.indices.to_numpy().astype(np.int32), encoded.dictionary.to_pylist()


def _looked_up(numbers: npt.NDArray[np.uint16], names: Mapping[int, str]) -> pa.DictionaryArray:
    """The names of lookups by their numbers; empty where there is none."""
    if not names:
        nothing = np.zeros(len(numbers), np.int32)
        return pa.DictionaryArray.from_arrays(pa.array(nothing), pa.array([""]))
    distinct, rows = np.unique(numbers, return_inverse=True)
    texts = [names.get(each, "") for each in distinct.tolist()]
    encoded = pa.array(texts, pa.string()).dictionary_encode()
    return pa.DictionaryArray.from_arrays(
        pa.array(encoded.indices.to_numpy()[rows]), encoded.dictionary
    )
