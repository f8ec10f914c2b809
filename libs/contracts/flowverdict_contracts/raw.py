"""Messages on `flows.raw.<node>`: one interval of one node's flows.

The body is a sequence of `RECORD_BYTES`-byte records, laid out as in the collector's kernel map.
`FIELDS` is their only declaration: the C program gets its struct from it (`c_members`), readers get
their columns (`raw_records`). The headers say which node and interval the records belong to
(`interval_header`). This module does not need numpy, so that the collector stays small.
"""

from collections.abc import Iterable
from dataclasses import dataclass

__all__ = [
    "FIELDS",
    "KEY_BYTES",
    "KEY_FIELDS",
    "RECORD_BYTES",
    "ROLES",
    "SCHEMA",
    "Field",
    "c_members",
]

SCHEMA = "flows.raw/2"

ROLES = ("unknown", "client", "server")
"""The values of `role`, by number: which end of the connection `src` is."""


@dataclass(frozen=True, slots=True)
class Field:
    """One field of a record, little-endian.

    Attributes:
        bytes: its size: 16 for an address, else that of an unsigned integer.
        offset: from the record's start.
        adds_up: whether it is a count, summed over flows and intervals.
    """

    name: str
    bytes: int
    offset: int
    adds_up: bool


_KEY = (("src", 16), ("dst", 16), ("src_port", 2), ("dst_port", 2), ("netns", 4))
_COUNTS = (
    *((name, 8) for name in ("bytes_sent", "bytes_acked", "bytes_received")),
    *(
        (name, 4)
        for name in (
            "segments_sent",
            "segments_received",
            "data_segments_sent",
            "retransmitted_segments",
            "retransmitted_data_segments",
            "retransmitted_syns",
            "retransmitted_synacks",
            "retransmitted_after_timeout",
            "retransmitted_in_fast_recovery",
            "retransmitted_by_tail_loss_probe",
            "opens",
            "failed_opens",
            "refused_opens",
            "timed_out_opens",
            "resets_sent",
            "resets_received",
            "drops_netfilter",
            "drops_queue",
            "drops_socket",
            "drops_other",
        )
    ),
)
_READINGS = (("rtt_us", 4), ("rtt_variation_us", 4), ("mss", 2), ("role", 1))


def _layout() -> Iterable[Field]:
    """The fields in order, each aligned to its size, as a C compiler would lay them out."""
    at = 0
    for name, size in (*_KEY, *_COUNTS, *_READINGS):
        alignment = 1 if size == 16 else size
        at = -(-at // alignment) * alignment
        yield Field(name, size, at, (name, size) in _COUNTS)
        at += size


FIELDS = tuple(_layout())
"""The fields of a record, in order.

`src` is the local end. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2). Counts
are for the interval:

- `segments_sent` includes pure ACKs and retransmissions; `data_segments_sent` only segments with
  payload, retransmissions included.
- `retransmitted_segments` are all that the kernel retransmitted (TcpRetransSegs); each is one of
  `retransmitted_syns` (the SYN of an outgoing connection), `retransmitted_synacks` (the SYN-ACK of
  a request that was not yet a connection) and `retransmitted_data_segments` (all others, including
  FIN).
- Of the data segments, `retransmitted_after_timeout`, `retransmitted_in_fast_recovery` and
  `retransmitted_by_tail_loss_probe` are those whose cause the kernel reports.
- As in tcp_info, `bytes_received` includes one byte for a FIN, and `bytes_acked` one for a FIN and
  one for a client's SYN.
- `failed_opens` counts all failed attempts; `refused_opens` and `timed_out_opens` count those that
  failed with ECONNREFUSED and ETIMEDOUT.
- `drops_*` are packets from `src` to `dst` that this node's kernel discarded.

`rtt_us` is the kernel's smoothed RTT and `rtt_variation_us` its mean deviation, as of the
interval's last sample, 0 if unknown.
"""

KEY_FIELDS = FIELDS[: len(_KEY)]
"""What identifies a flow: the key of the kernel map."""

KEY_BYTES = FIELDS[len(_KEY)].offset
RECORD_BYTES = -(-(FIELDS[-1].offset + FIELDS[-1].bytes) // 8) * 8


def c_members(fields: Iterable[Field]) -> str:
    """The fields as members of a C struct, in the integer types that BCC knows."""
    types = {16: "u8", 8: "u64", 4: "u32", 2: "u16", 1: "u8"}
    return " ".join(
        f"{types[each.bytes]} {each.name}{'[16]' if each.bytes == 16 else ''};" for each in fields
    )
