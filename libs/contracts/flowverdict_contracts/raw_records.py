"""The body of a raw message as a numpy array of records."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from flowverdict_contracts import MalformedMessage, numbered_texts
from flowverdict_contracts.byte_columns import COUNT_BYTES
from flowverdict_contracts.interval_header import IntervalHeader, schema_of
from flowverdict_contracts.raw import (
    FIELDS,
    MOST_RECORDS,
    RECORD_BYTES,
    ROLES,
    SCHEMA,
    VERSION_2_FIELDS,
    VERSION_2_RECORD_BYTES,
    VERSION_3_FIELDS,
    VERSION_3_RECORD_BYTES,
    VERSION_4_FIELDS,
    VERSION_4_RECORD_BYTES,
    VERSION_5_FIELDS,
    VERSION_5_RECORD_BYTES,
    Field,
)

__all__ = ["COUNTS", "RECORD", "SCHEMAS", "RawMessage", "any_bit_of", "decode", "read"]


def _dtype(fields: Sequence[Field], itemsize: int) -> np.dtype[np.void]:
    return np.dtype(
        {
            "names": [each.name for each in fields],
            # "V16", not "S16": numpy strips trailing zeros from byte strings.
            "formats": ["V16" if each.bytes == 16 else f"<u{each.bytes}" for each in fields],
            "offsets": [each.offset for each in fields],
            "itemsize": itemsize,
        }
    )


RECORD = _dtype(FIELDS, RECORD_BYTES)

COUNTS = tuple(field.name for field in FIELDS if field.adds_up)
"""The fields that add up over flows and intervals."""

_RECORD_1 = np.dtype(
    {
        "names": [
            "src", "dst", "src_port", "dst_port", "netns", "bytes_sent", "bytes_acked",
            "bytes_received", "segments_sent", "segments_received", "retransmitted_segments",
            "syn_retransmits", "opens", "failed_opens", "resets_sent", "resets_received",
            "drops_netfilter", "drops_queue", "drops_socket", "drops_other", "rtt_us",
            "rtt_variation_us", "mss", "role", "data_segments_sent",
        ],
        "formats": [
            *["V16"] * 2, *["<u2"] * 2, "<u4", *["<u8"] * 3, *["<u4"] * 14, "<u2", "u1", "<u4",
        ],
        "offsets": [0, 16, 32, 34, 36, 40, 48, 56, *range(64, 120, 4), 120, 122, 124],
        "itemsize": 128,
    }
)  # fmt: skip
_LAYOUTS = {
    SCHEMA: RECORD,
    "flows.raw/5": _dtype(VERSION_5_FIELDS, VERSION_5_RECORD_BYTES),
    "flows.raw/4": _dtype(VERSION_4_FIELDS, VERSION_4_RECORD_BYTES),
    "flows.raw/3": _dtype(VERSION_3_FIELDS, VERSION_3_RECORD_BYTES),
    "flows.raw/2": _dtype(VERSION_2_FIELDS, VERSION_2_RECORD_BYTES),
    "flows.raw/1": _RECORD_1,
}

SCHEMAS = tuple(_LAYOUTS)
"""What is read: also what collectors used to publish, since nodes are upgraded one by one."""


@dataclass(frozen=True, slots=True)
class RawMessage:
    """What a raw message says.

    Attributes:
        header: its node and interval.
        records: dtype `RECORD`, one element per flow; those of lookups without a source port.
        names: of the lookups, by `dns_name`.
        owners: the uids of pods, or ids of containers, by `owner`.
        impossible: how many records were left out, by the field that gave them away.
    """

    header: IntervalHeader
    records: npt.NDArray[np.void]
    names: dict[int, str]
    owners: dict[int, str]
    impossible: dict[str, int]


def read(headers: Mapping[str, str] | None, body: bytes) -> RawMessage:
    """A raw message of any version in `SCHEMAS`.

    Records that cannot be true are left out: a collector may read a socket that is not what it
    seems, and its counts are then anything. That is no reason to lose the other records.

    Raises:
        MalformedMessage: if header or body are malformed.
    """
    header = IntervalHeader.decode(headers, *SCHEMAS)
    end = len(body) - header.names_bytes - header.owners_bytes
    if end < 0:
        raise MalformedMessage("the names are longer than the message")
    after_names = end + header.names_bytes
    schema = schema_of(headers)
    packed = body[:end]
    unpacked = _unpacked(packed, _LAYOUTS[schema].itemsize) if header.is_packed else packed
    records, impossible = _possible(decode(unpacked, schema))
    names = numbered_texts.decode(body[end:after_names], short=schema != SCHEMA)
    owners = numbered_texts.decode(body[after_names:])
    is_lookup = records["dns_name"] != 0
    if is_lookup.any():
        records = records.copy()
        records["src_port"][is_lookup] = 0
    plain = replace(header, names_bytes=0, owners_bytes=0, is_packed=False)
    return RawMessage(plain, records, names, owners, impossible)


_LIMITS = {
    field.name: 1 << 48 if field.bytes == 8 else 1 << 31 for field in FIELDS if field.adds_up
}
_LIMITS |= dict.fromkeys(("rtt_us", "rtt_variation_us", "minimum_rtt_us"), 600_000_000)
_LIMITS |= {"connect_us": 3_600_000_000, "dns_answer_us": 3_600_000_000, "role": len(ROLES) - 1}
"""The most that a field of an interval can hold: no flow sends 256 TiB or two thousand million
segments in it, and TCP gives up long before a round trip takes ten minutes."""


def _possible(
    records: npt.NDArray[np.void],
) -> tuple[npt.NDArray[np.void], dict[str, int]]:
    refused: dict[str, int] = {}
    possible = np.ones(len(records), np.bool_)
    largest = any_bit_of(records)  # or more than that
    for name, limit in _LIMITS.items():
        if largest[name] <= limit:
            continue
        beyond = possible & (records[name] > limit)
        if beyond.any():
            refused[name] = int(beyond.sum())
            possible &= ~beyond
    return (records[possible], refused) if refused else (records, refused)


def _unpacked(packed: bytes, record_bytes: int) -> bytes:
    """The records in `byte_columns`.

    Raises:
        MalformedMessage: if they are something else.
    """
    begin = COUNT_BYTES + record_bytes // 8
    count = int.from_bytes(packed[:COUNT_BYTES], "little")
    mask = np.frombuffer(packed[COUNT_BYTES:begin], np.uint8)
    columns = np.flatnonzero(np.unpackbits(mask, bitorder="little"))
    if len(packed) != begin + count * len(columns) or count > MOST_RECORDS:
        raise MalformedMessage(f"{len(packed)} bytes are not {count} packed records")
    records = np.zeros((count, record_bytes), np.uint8)
    values = np.frombuffer(packed, np.uint8, offset=begin)
    records[:, columns] = values.reshape(len(columns), count).T
    return records.tobytes()


def any_bit_of(records: npt.NDArray[np.void]) -> np.void:
    """One record that has every bit which any of `records` (dtype `RECORD`) has."""
    words = np.ascontiguousarray(records).view(np.uint64).reshape(-1, RECORD_BYTES // 8)
    found: np.void = np.bitwise_or.reduce(words, axis=0).view(RECORD)[0]
    return found


def decode(body: bytes, schema: str = SCHEMA) -> npt.NDArray[np.void]:
    """The records of a raw message's body, without names, dtype `RECORD`, one element per flow.

    Raises:
        MalformedMessage: if the length is not a multiple of the record size.
    """
    layout = _LAYOUTS[schema]
    if len(body) % layout.itemsize:
        raise MalformedMessage(
            f"{len(body)} bytes are not a whole number of {layout.itemsize}-byte records"
        )
    records = np.frombuffer(body, dtype=layout)
    if layout is RECORD:
        return records
    current = np.zeros(len(records), RECORD)
    for name in set(layout.names or ()) & set(RECORD.names or ()):
        current[name] = records[name]
    if layout is _RECORD_1:
        _divide_retransmissions(records, current)
    return current


def _divide_retransmissions(old: npt.NDArray[np.void], records: npt.NDArray[np.void]) -> None:
    """Version 1 had SYN and SYN-ACK in one field; a server's are SYN-ACKs."""
    handshake = np.minimum(old["syn_retransmits"], old["retransmitted_segments"])
    is_server = old["role"] == ROLES.index("server")
    records["retransmitted_syns"] = np.where(is_server, 0, handshake)
    records["retransmitted_synacks"] = np.where(is_server, handshake, 0)
    records["retransmitted_data_segments"] = old["retransmitted_segments"] - handshake
