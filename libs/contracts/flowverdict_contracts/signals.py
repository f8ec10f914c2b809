"""What is measured for a pair of addresses: each number of an enriched row that is exported.

The only declaration behind the exporter's metrics, the InfluxDB fields and their documentation.
A new signal is a field of the raw record (`raw`), the hook that counts it, and an entry here.
"""

import dataclasses
from dataclasses import dataclass
from typing import Literal

from flowverdict_contracts.addresses import ADDRESSES, ENDS
from flowverdict_contracts.raw import DROP_REASONS

__all__ = [
    "END_LABELS",
    "MEASUREMENT",
    "METRICS",
    "OVER_BUDGET",
    "PAIR_LABELS",
    "SENDER_LABELS",
    "SIGNALS",
    "SLOT_SECONDS",
    "Signal",
]

END_LABELS = ("ip", "namespace", "pod", "workload", "node", "zone", "labels")
"""What identifies each end of a pair, without the end."""

PAIR_LABELS = (*ADDRESSES, *(f"{end}_{name}" for end in ENDS for name in END_LABELS[1:]))
"""What identifies a pair, as Prometheus labels and InfluxDB tags.

Ports are not included, since each connection would be a new series.
"""

SENDER_LABELS = tuple(f"src_{name}" for name in END_LABELS)
"""What identifies who sends, as Prometheus labels."""

OVER_BUDGET = "other"
"""The value of every label of the series that sums the pairs beyond the exporter's budget."""

MEASUREMENT = "flow"
"""The InfluxDB measurement for pairs."""
SLOT_SECONDS = 10
"""What a point in InfluxDB is the sum of."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One number of an enriched row, and how it is exported.

    Attributes:
        field: its name in an enriched row, and of the field in InfluxDB.
        metric: its name in Prometheus, without the suffixes of the exposition format (`_total`).
            Signals with the same metric differ in `labels`.
        kind: `counter` adds up over flows and intervals; the others are a reading of each flow in
            each interval, 0 if there was none, stored in InfluxDB as `<field>_sum` and
            `<field>_samples`. A `summary` is that in Prometheus, too, and takes fewer series than
            a `histogram`, which also shows how the readings are distributed.
        unit: of the number in the row.
        meaning: one sentence for the operator.
        scale: what the row's number is multiplied by to give Prometheus its base unit.
        bounds: upper bounds of a histogram's buckets, in Prometheus' base unit.
        sender_metric: of a histogram, the metric's name when summed by sender. That one always has
            buckets; `metric` has them if the exporter's FLOWVERDICT_PAIR_HISTOGRAMS is on, and is a
            summary otherwise.
        labels: further labels of the metric.
        sparse: whether Prometheus gets it only for pairs that have any, since most never will.
    """

    field: str
    metric: str
    kind: Literal["counter", "histogram", "summary"] = "counter"
    unit: str
    meaning: str
    scale: float = 1.0
    bounds: tuple[float, ...] = ()
    sender_metric: str = ""
    labels: dict[str, str] = dataclasses.field(default_factory=dict)
    sparse: bool = False


def _drops(reason: str) -> Signal:
    return Signal(
        field=f"drops_{reason}",
        metric="tcp_dropped_packets",
        unit="packets",
        meaning="Packets dropped by a node's kernel: by a netfilter rule, because a queue was "
        "full, because there was no room in a socket's buffer, because too many connections were "
        "waiting to be accepted, or for another reason. A packet that would have become several "
        "on the wire counts as those.",
        labels={"reason": reason},
    )


def _kernel_reason(field: str) -> Signal:
    return Signal(
        field=field,
        metric="tcp_dropped_packets_by_kernel_reason",
        sparse=True,
        unit="packets",
        meaning="The packets of tcp_dropped_packets once more, by the kernel's own name of the "
        "reason (enum skb_drop_reason), OTHER for those of rarer ones.",
        labels={"reason": DROP_REASONS[field]},
    )


def _lookup_errors(field: str, code: str) -> Signal:
    return Signal(
        field=field,
        metric="dns_failures_by_code",
        sparse=True,
        unit="lookups",
        meaning="DNS lookups over UDP that the server answered with an error other than NXDOMAIN, "
        "by its code.",
        labels={"code": code},
    )


def _handshake(field: str, segment: str) -> Signal:
    return Signal(
        field=field,
        metric="tcp_syn_retransmissions",
        unit="segments",
        meaning="SYN and SYN-ACK segments retransmitted.",
        labels={"segment": segment},
    )


def _retransmissions(field: str, cause: str) -> Signal:
    return Signal(
        field=field,
        metric="tcp_retransmissions_by_cause",
        unit="segments",
        meaning="TCP data segments retransmitted, by trigger: the retransmission timer, "
        "duplicate or selective ACKs, or a tail loss probe (RFC 8985).",
        labels={"cause": cause},
    )


SIGNALS = (
    Signal(
        field="retransmitted_segments",
        metric="tcp_retransmissions",
        unit="segments",
        meaning="TCP segments retransmitted: data, FIN, SYN and SYN-ACK.",
    ),
    Signal(
        field="segments_sent",
        metric="tcp_segments_sent",
        unit="segments",
        meaning="TCP segments sent, retransmissions and pure ACKs included.",
    ),
    Signal(
        field="segments_received",
        metric="tcp_segments_received",
        unit="segments",
        meaning="TCP segments received, pure ACKs included: what the peer sent, but for what was "
        "lost.",
    ),
    Signal(
        field="data_segments_sent",
        metric="tcp_data_segments_sent",
        unit="segments",
        meaning="TCP segments sent with payload, retransmissions included.",
    ),
    Signal(
        field="retransmitted_data_segments",
        metric="tcp_retransmitted_data_segments",
        unit="segments",
        meaning="TCP segments retransmitted, except SYN and SYN-ACK.",
    ),
    _handshake("retransmitted_syns", "syn"),
    _handshake("retransmitted_synacks", "syn_ack"),
    _retransmissions("retransmitted_after_timeout", "timeout"),
    _retransmissions("retransmitted_in_fast_recovery", "fast_recovery"),
    _retransmissions("retransmitted_by_tail_loss_probe", "tail_loss_probe"),
    Signal(
        field="spurious_retransmissions",
        metric="tcp_spurious_retransmissions",
        unit="segments",
        meaning="TCP segments that the peer reported to have received twice (DSACK, RFC 2883): "
        "sending them again was not necessary.",
    ),
    Signal(
        field="out_of_order_segments",
        metric="tcp_out_of_order_segments",
        unit="segments",
        meaning="TCP segments received ahead of one that was missing.",
    ),
    Signal(
        field="zero_windows_received",
        metric="tcp_zero_windows_received",
        unit="windows",
        meaning="Times the peer had no room left for data: its program reads too slowly.",
    ),
    Signal(
        field="path_mtu_reductions",
        metric="tcp_path_mtu_reductions",
        unit="reductions",
        meaning="Times a connection's path MTU became smaller, as after ICMP's fragmentation "
        "needed or packet too big.",
    ),
    Signal(
        field="bytes_sent",
        metric="tcp_sent_bytes",
        unit="bytes",
        meaning="TCP payload sent, retransmissions included.",
    ),
    Signal(
        field="bytes_received",
        metric="tcp_received_bytes",
        unit="bytes",
        meaning="TCP payload received; a FIN counts as one byte.",
    ),
    Signal(
        field="opens",
        metric="tcp_opens",
        unit="connections",
        meaning="TCP connections established.",
    ),
    Signal(
        field="failed_opens",
        metric="tcp_failed_opens",
        unit="connections",
        meaning="TCP connection attempts that failed, for any reason.",
    ),
    Signal(
        field="refused_opens",
        metric="tcp_refused_opens",
        unit="connections",
        meaning="TCP connection attempts that were refused (ECONNREFUSED).",
    ),
    Signal(
        field="timed_out_opens",
        metric="tcp_timed_out_opens",
        unit="connections",
        meaning="TCP connection attempts that timed out (ETIMEDOUT), or were given up by their "
        "program after a fifth of a second without an answer.",
    ),
    Signal(
        field="unreachable_opens",
        metric="tcp_unreachable_opens",
        unit="connections",
        meaning="TCP connection attempts that failed because the host or network could not be "
        "reached (EHOSTUNREACH, ENETUNREACH), after a SYN had been sent or waited for an address.",
    ),
    Signal(
        field="cancelled_opens",
        metric="tcp_cancelled_opens",
        unit="connections",
        meaning="TCP connection attempts closed by their own program within a fifth of a second. "
        "They do not count as failed.",
    ),
    Signal(
        field="resets_sent",
        metric="tcp_resets_sent",
        unit="resets",
        meaning="TCP resets sent.",
    ),
    Signal(
        field="resets_received",
        metric="tcp_resets_received",
        unit="resets",
        meaning="TCP resets received.",
    ),
    _drops("netfilter"),
    _drops("queue"),
    _drops("socket"),
    _drops("listen_queue"),
    _drops("other"),
    *(_kernel_reason(field) for field in DROP_REASONS),
    Signal(
        field="rtt_us",
        metric="tcp_rtt_seconds",
        kind="histogram",
        unit="microseconds",
        meaning="Smoothed round-trip time, one reading per flow and interval.",
        scale=1e-6,
        sender_metric="tcp_sender_rtt_seconds",
        bounds=(0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0),
    ),
    Signal(
        field="rtt_variation_us",
        metric="tcp_rtt_variation_seconds",
        kind="histogram",
        unit="microseconds",
        meaning="Jitter: mean deviation of the round-trip time (RTTVAR, RFC 6298).",
        scale=1e-6,
        sender_metric="tcp_sender_rtt_variation_seconds",
        bounds=(0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.05, 0.1, 1.0),
    ),
    Signal(
        field="minimum_rtt_us",
        metric="tcp_minimum_rtt_seconds",
        kind="summary",
        unit="microseconds",
        meaning="Shortest round-trip time of the last five minutes, one reading per flow and "
        "interval.",
        scale=1e-6,
    ),
    Signal(
        field="connect_us",
        metric="tcp_connect_seconds",
        kind="summary",
        unit="microseconds",
        meaning="Time from connect() to the answer to its SYN, for connections established.",
        scale=1e-6,
    ),
    Signal(
        field="answers",
        metric="tcp_answers",
        sparse=True,
        unit="answers",
        meaning="Answers that a client got from a server and whose time was measured: at most one "
        "of a connection in a tick of the kernel.",
    ),
    Signal(
        field="answers_us",
        metric="tcp_answer_seconds",
        sparse=True,
        unit="microseconds",
        meaning="How long the answers of tcp_answers took, added up: from the last data that the "
        "client had sent until the first that came back.",
        scale=1e-6,
    ),
    Signal(
        field="path_mtu_bytes",
        metric="tcp_path_mtu_bytes",
        kind="summary",
        unit="bytes",
        meaning="Path MTU, IP and TCP headers included, one reading per flow and interval.",
    ),
    Signal(
        field="mss",
        metric="tcp_mss_bytes",
        kind="summary",
        unit="bytes",
        meaning="Largest payload that a segment is sent with, one reading per flow and interval.",
    ),
    Signal(
        field="dns_lookups",
        metric="dns_lookups",
        sparse=True,
        unit="lookups",
        meaning="DNS lookups that a pod's programs asked a server for, if the collector's "
        "FLOWVERDICT_DNS is on; over TCP, a connection to port 53 is one.",
    ),
    Signal(
        field="dns_answers",
        metric="dns_answers",
        sparse=True,
        unit="lookups",
        meaning="DNS lookups that the server answered, with whatever result.",
    ),
    Signal(
        field="dns_name_errors",
        metric="dns_name_errors",
        sparse=True,
        unit="lookups",
        meaning="DNS lookups of names that do not exist (NXDOMAIN). Where names are tried with "
        "several suffixes, as in pods, most answers are.",
    ),
    Signal(
        field="dns_failures",
        metric="dns_failures",
        sparse=True,
        unit="lookups",
        meaning="DNS lookups that the server answered with an error other than NXDOMAIN, such as "
        "SERVFAIL or REFUSED.",
    ),
    Signal(
        field="dns_unanswered",
        metric="dns_unanswered",
        sparse=True,
        unit="lookups",
        meaning="DNS lookups without an answer for five seconds, or over TCP until the connection "
        "ended.",
    ),
    _lookup_errors("dns_server_failures", "SERVFAIL"),
    _lookup_errors("dns_refused", "REFUSED"),
    _lookup_errors("dns_format_errors", "FORMERR"),
    _lookup_errors("dns_not_implemented", "NOTIMP"),
    Signal(
        field="dns_answer_us",
        metric="dns_answer_seconds",
        sparse=True,
        kind="summary",
        unit="microseconds",
        meaning="Time from a DNS lookup to its answer, one reading per pair, name and interval.",
        scale=1e-6,
    ),
)
"""All signals, in the order in which they are shown."""

METRICS = {
    metric: tuple(signal for signal in SIGNALS if signal.metric == metric)
    for metric in dict.fromkeys(signal.metric for signal in SIGNALS)
}
"""Metric to its signals: one, or those that differ in a label."""
