"""Messages on `flows.raw.<node>`: one interval of one node's flows.

The body is a run of 128-byte records, as the collector's kernel map holds them
(`struct flow_record` in services/collector/flowverdict_collector/bpf/flows.bpf.c). The headers say
which node and interval they belong to (`header`). This module needs no numpy, so that the
collector stays small; `columns` turns bodies into columns.
"""

__all__ = ["FIELDS", "RECORD_BYTES", "ROLES", "SCHEMA"]

SCHEMA = "flows.raw/1"

ROLES = ("unknown", "client", "server")
"""What `role` counts: which end of the connection `src` is."""

FIELDS: tuple[tuple[str, str, int], ...] = (
    ("src", "16s", 0),
    ("dst", "16s", 16),
    ("src_port", "u2", 32),
    ("dst_port", "u2", 34),
    ("netns", "u4", 36),
    ("bytes_sent", "u8", 40),
    ("bytes_acked", "u8", 48),
    ("bytes_received", "u8", 56),
    ("segments_sent", "u4", 64),
    ("segments_received", "u4", 68),
    ("retransmitted_segments", "u4", 72),
    ("syn_retransmits", "u4", 76),
    ("opens", "u4", 80),
    ("failed_opens", "u4", 84),
    ("resets_sent", "u4", 88),
    ("resets_received", "u4", 92),
    ("drops_netfilter", "u4", 96),
    ("drops_queue", "u4", 100),
    ("drops_socket", "u4", 104),
    ("drops_other", "u4", 108),
    ("rtt_us", "u4", 112),
    ("rtt_variation_us", "u4", 116),
    ("mss", "u2", 120),
    ("role", "u1", 122),
    ("data_segments_sent", "u4", 124),
)
"""Name, little-endian type and byte offset of each field.

`src` is the local end. Addresses are 16 bytes, IPv4 as ::ffff:a.b.c.d (RFC 4291, 2.5.5.2).
Counts are of the interval. `segments_sent` includes pure ACKs and retransmissions,
`data_segments_sent` only segments with payload, retransmissions included. `rtt_us` is the kernel's
smoothed RTT and `rtt_variation_us` its mean deviation, as of the interval's last sample, 0 where
unknown.
`bytes_acked` and `bytes_received` count SYN and FIN as a byte each, as the kernel's tcp_info does.
The `drops_*` fields count packets from `src` to `dst` that this node's kernel discarded.
"""

RECORD_BYTES = 128
