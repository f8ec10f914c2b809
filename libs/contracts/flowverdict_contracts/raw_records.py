"""The body of a raw message as a numpy array of records."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.interval_header import IntervalHeader, schema_of
from flowverdict_contracts.raw import FIELDS, RECORD_BYTES, ROLES, SCHEMA

__all__ = ["COUNTS", "OLD_SCHEMA", "RECORD", "SCHEMAS", "decode", "read"]

RECORD = np.dtype(
    {
        "names": [field.name for field in FIELDS],
        # "V16", not "S16": numpy strips trailing zeros from byte strings.
        "formats": ["V16" if each.bytes == 16 else f"<u{each.bytes}" for each in FIELDS],
        "offsets": [field.offset for field in FIELDS],
        "itemsize": RECORD_BYTES,
    }
)

COUNTS = tuple(field.name for field in FIELDS if field.adds_up)
"""The fields that add up over flows and intervals."""

OLD_SCHEMA = "flows.raw/1"
"""What collectors used to publish; still read, since nodes are upgraded one by one."""

SCHEMAS = (SCHEMA, OLD_SCHEMA)

_OLD_RECORD = np.dtype(
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


def read(
    headers: Mapping[str, str] | None, body: bytes
) -> tuple[IntervalHeader, npt.NDArray[np.void], dict[str, int]]:
    """The header and the records of a raw message of any version in `SCHEMAS`.

    Records that cannot be true are left out: a collector may read a socket that is not what it
    seems, and its counts are then anything. That is no reason to lose the other records.

    Returns:
        The header, the records, and how many were left out, by the field that gave them away.

    Raises:
        MalformedMessage: if either is malformed.
    """
    header = IntervalHeader.decode(headers, *SCHEMAS)
    return header, *_possible(decode(body, schema_of(headers)))


_LIMITS = {
    field.name: 1 << 48 if field.bytes == 8 else 1 << 31 for field in FIELDS if field.adds_up
} | {"rtt_us": 600_000_000, "rtt_variation_us": 600_000_000, "role": len(ROLES) - 1}
"""The most that a field of an interval can hold: no flow sends 256 TiB or two thousand million
segments in it, and TCP gives up long before a round trip takes ten minutes."""


def _possible(
    records: npt.NDArray[np.void],
) -> tuple[npt.NDArray[np.void], dict[str, int]]:
    refused: dict[str, int] = {}
    possible = np.ones(len(records), np.bool_)
    for name, limit in _LIMITS.items():
        beyond = possible & (records[name] > limit)
        if beyond.any():
            refused[name] = int(beyond.sum())
            possible &= ~beyond
    return (records[possible], refused) if refused else (records, refused)


def decode(body: bytes, schema: str = SCHEMA) -> npt.NDArray[np.void]:
    """The records of a raw message's body, dtype `RECORD`, one element per flow.

    Raises:
        MalformedMessage: if the length is not a multiple of the record size.
    """
    layout = _OLD_RECORD if schema == OLD_SCHEMA else RECORD
    if len(body) % layout.itemsize:
        raise MalformedMessage(
            f"{len(body)} bytes are not a whole number of {layout.itemsize}-byte records"
        )
    records = np.frombuffer(body, dtype=layout)
    return _from_old(records) if schema == OLD_SCHEMA else records


def _from_old(old: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """Version 1 had SYN and SYN-ACK in one field; a server's are SYN-ACKs."""
    records = np.zeros(len(old), RECORD)
    for name in _OLD_RECORD.names or ():
        if name in RECORD.names:  # type: ignore[operator] # it has names
            records[name] = old[name]
    handshake = np.minimum(old["syn_retransmits"], old["retransmitted_segments"])
    is_server = old["role"] == ROLES.index("server")
    records["retransmitted_syns"] = np.where(is_server, 0, handshake)
    records["retransmitted_synacks"] = np.where(is_server, handshake, 0)
    records["retransmitted_data_segments"] = old["retransmitted_segments"] - handshake
    return records
