"""Messages on `flows.raw.<node>`: one interval of one node's flows.

The body is a sequence of `RECORD_BYTES`-byte records, laid out as in the collector's kernel map; in
columns (`byte_columns`) if a header says so. The names that were looked up follow, by `dns_name`,
and then the pods on the node's own network, by `owner`: `numbered_texts`, as many bytes of each as
headers say.
`FIELDS` is their only declaration: the C program gets its struct from it (`c_members`), readers get
their columns (`raw_records`). The headers say which node and interval the records belong to
(`interval_header`). This module does not need numpy, so that the collector stays small.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

__all__ = [
    "DROP_REASONS",
    "FIELDS",
    "KEY_BYTES",
    "KEY_FIELDS",
    "MOST_RECORDS",
    "RECORD_BYTES",
    "ROLES",
    "SCHEMA",
    "VERSION_2_FIELDS",
    "VERSION_2_RECORD_BYTES",
    "VERSION_3_FIELDS",
    "VERSION_3_RECORD_BYTES",
    "VERSION_4_FIELDS",
    "VERSION_4_RECORD_BYTES",
    "VERSION_5_FIELDS",
    "VERSION_5_RECORD_BYTES",
    "Field",
    "c_members",
]

SCHEMA = "flows.raw/6"

MOST_RECORDS = 2048
"""In a message: what NATS takes by default (1 MB), were they not packed."""

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
# Since version 3, which begins with what version 2 has.
_MORE_COUNTS = tuple(
    (name, 4)
    for name in (
        "spurious_retransmissions",
        "out_of_order_segments",
        "zero_windows_received",
        "path_mtu_reductions",
        "unreachable_opens",
        "cancelled_opens",
        "drops_listen_queue",
    )
)
_MORE_READINGS = (("minimum_rtt_us", 4), ("connect_us", 4), ("path_mtu_bytes", 2))
# Since version 4, which begins with what version 3 has.
_LOOKUPS = tuple(
    (name, 4)
    for name in (
        "dns_lookups",
        "dns_answers",
        "dns_failures",
        "dns_name_errors",
        "dns_unanswered",
    )
)
_LOOKUP_READINGS = (("dns_answer_us", 4),)
# Since version 5, which begins with what version 4 has.
_LOOKUP_CODES = tuple(
    (name, 4)
    for name in (
        "dns_format_errors",
        "dns_server_failures",
        "dns_not_implemented",
        "dns_refused",
    )
)
_REASON_PREFIX = "drop_reason_"
_KERNEL_REASONS = tuple(
    (f"{_REASON_PREFIX}{reason}", 4)
    for reason in (
        "netfilter_drop",
        "qdisc_drop",
        "qdisc_overlimit",
        "cpu_backlog",
        "socket_rcvbuff",
        "socket_backlog",
        "tcp_listen_overflow",
        "tcp_csum",
        "neigh_failed",
        "ip_outnoroutes",
        "ip_rpfilter",
        "pkt_too_big",
        "other",
    )
)
_NAMES = (("dns_name", 2),)
# Since version 6, which begins with what version 5 has.
_OWNERS = (("owner", 4),)
_ANSWERS = (("answers_us", 8), ("answers", 4))
_BEFORE_LOOKUPS = (_KEY, _COUNTS, _READINGS, _MORE_COUNTS, _MORE_READINGS)
_ADDED_UP = (_COUNTS, _MORE_COUNTS, _LOOKUPS, _LOOKUP_CODES, _KERNEL_REASONS, _ANSWERS)
_BEFORE_NAMES = (*_BEFORE_LOOKUPS, _LOOKUPS, _LOOKUP_READINGS)
_BEFORE_OWNERS = (*_BEFORE_NAMES, _LOOKUP_CODES, _KERNEL_REASONS, _NAMES)


def _layout() -> Iterable[Field]:
    """The fields in order, each aligned to its size, as a C compiler would lay them out."""
    at = 0
    for group in (*_BEFORE_OWNERS, _OWNERS, _ANSWERS):
        for name, size in group:
            alignment = 1 if size == 16 else size
            at = -(-at // alignment) * alignment
            yield Field(name, size, at, group in _ADDED_UP)
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
- `spurious_retransmissions` are segments that the peer reported to have received twice (DSACK,
  RFC 2883), so that sending them again was not necessary.
- `out_of_order_segments` were received ahead of one that was missing.
- `zero_windows_received` is how often the peer had no room left for data (RFC 9293, 3.8.6).
- `path_mtu_reductions` is how often the path MTU of a connection became smaller: "fragmentation
  needed" (RFC 1191), "packet too big" (RFC 8201), or a change of its route.
- `failed_opens` counts all failed attempts, among them `refused_opens` (ECONNREFUSED),
  `unreachable_opens` (EHOSTUNREACH, ENETUNREACH) and `timed_out_opens`: ETIMEDOUT, or closed by its
  program after it had waited for a fifth of a second. `cancelled_opens` were closed by their
  program before that, and have not failed. What fails before a SYN is sent, as without any route,
  is not an attempt.
- `drops_*` are packets from `src` to `dst` that this node's kernel discarded; one that would have
  become several on the wire (GSO) counts as those. Those of `drops_listen_queue` found too many
  connections waiting for their program to accept them.
- `drop_reason_*` are the same packets once more, by the kernel's reason (enum skb_drop_reason,
  include/net/dropreason-core.h), `drop_reason_other` those of all reasons without a field.
- `dns_lookups` are questions that a program on this node asked a DNS server, `dns_answers` those
  answered, among them `dns_name_errors` (NXDOMAIN) and `dns_failures` (any other error), of which
  `dns_format_errors` (FORMERR), `dns_server_failures` (SERVFAIL), `dns_not_implemented` (NOTIMP)
  and `dns_refused` (REFUSED) are a part. `dns_unanswered` had no answer for five seconds. Over UDP
  they are counted by client, server and name, in a record whose source port is `dns_name`, the
  number of the name in this message; 0 if it is not known. Over TCP, a connection to port 53 is one
  lookup: answered if anything came back, unanswered if it ended before that.

- `answers` are those that `src`, a client, got from a server whose first segment was looked at, and
  `answers_us` how long all of them took, in the kernel's ticks of 1 to 10 ms: from the last data
  that it had sent until the first that came back. Of several in one tick, one is looked at. A
  request that was sent again counts from then.

Readings are those of the interval's last sample, 0 if unknown. `rtt_us` is the kernel's smoothed
RTT, `rtt_variation_us` its mean deviation, `minimum_rtt_us` the shortest of the last five minutes
(tcp_min_rtt_wlen). `connect_us` is the time from a client's connect() to the answer to its SYN, in
the interval in which the connection was established. `path_mtu_bytes` includes IP and TCP headers.
`dns_answer_us` is how long an answer took; over TCP, from the connection's opening.

`owner` is the number of the control group (cgroup v2) whose process made the socket at `src`, if it
is on the node's own network; 0 if it is not, or not known. The message says of which pod it is.
"""

DROP_REASONS = {name: name.removeprefix(_REASON_PREFIX).upper() for name, _ in _KERNEL_REASONS}
"""The fields with packets by the kernel's drop reason, and its name there."""

KEY_FIELDS = FIELDS[: len(_KEY)]
"""What identifies a flow: the key of the kernel map."""

VERSION_2_FIELDS = FIELDS[: len(_KEY) + len(_COUNTS) + len(_READINGS)]
"""The fields of a record of `flows.raw/2`, whose records were as large as these need."""

VERSION_3_FIELDS = FIELDS[: sum(map(len, _BEFORE_LOOKUPS))]
"""The fields of a record of `flows.raw/3`, likewise."""

VERSION_4_FIELDS = FIELDS[: sum(map(len, _BEFORE_NAMES))]
"""The fields of a record of `flows.raw/4`, likewise."""

VERSION_5_FIELDS = FIELDS[: sum(map(len, _BEFORE_OWNERS))]
"""The fields of a record of `flows.raw/5`, likewise."""

KEY_BYTES = FIELDS[len(_KEY)].offset


def _record_bytes(fields: Sequence[Field]) -> int:
    return -(-(fields[-1].offset + fields[-1].bytes) // 8) * 8


RECORD_BYTES = _record_bytes(FIELDS)
VERSION_2_RECORD_BYTES = _record_bytes(VERSION_2_FIELDS)
VERSION_3_RECORD_BYTES = _record_bytes(VERSION_3_FIELDS)
VERSION_4_RECORD_BYTES = _record_bytes(VERSION_4_FIELDS)
VERSION_5_RECORD_BYTES = _record_bytes(VERSION_5_FIELDS)


def c_members(fields: Iterable[Field]) -> str:
    """The fields as members of a C struct, in the integer types that BCC knows."""
    types = {16: "u8", 8: "u64", 4: "u32", 2: "u16", 1: "u8"}
    return " ".join(
        f"{types[each.bytes]} {each.name}{'[16]' if each.bytes == 16 else ''};" for each in fields
    )
