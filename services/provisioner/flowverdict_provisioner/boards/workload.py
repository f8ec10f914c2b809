"""*Workload*: the pods of one workload, or of all in a namespace, and whom they call."""

from flowverdict_provisioner.board import Board, Column, Panel, Query, Row, Variable
from flowverdict_provisioner.flow_panels import RATIO_COLUMN, rtt, throughput
from flowverdict_provisioner.promql import (
    CLUSTER,
    ONE_CLUSTER_VARIABLE,
    pairwise_ratio,
    rate,
    ratio,
    to_pod,
    to_workload,
)

__all__ = ["WORKLOAD"]

_ANY = "tcp_data_segments_sent_total"
_FROM = f'{CLUSTER},src_namespace="$namespace",src_workload=~"$workload"'
_TO = f'{CLUSTER},dst_namespace="$namespace",dst_workload=~"$workload"'

WORKLOAD = Board(
    uid="flowverdict-workload",
    title="Workload",
    description="A workload, or all of a namespace: one bad pod, all of them, or one of those they"
    " call?",
    variables=(
        ONE_CLUSTER_VARIABLE,
        Variable("namespace", "src_namespace", _ANY, f'{CLUSTER},src_pod!=""', several=False),
        Variable("workload", "src_workload", _ANY, f'{CLUSTER},src_namespace="$namespace"'),
    ),
    since="now-3h",
    rows=(
        Row(
            "Which pod, which peer",
            (
                Panel(
                    title="Its pods",
                    kind="table",
                    description="Retransmission ratio of what each sends. If one of many is bad,"
                    " suspect that pod or its node; if all are, what they have in common.",
                    queries=(Query(pairwise_ratio(_FROM, "src_namespace, src_pod, src_node")),),
                    columns=(
                        Column("src_pod", "Pod", link=to_pod("src")),
                        Column("src_node", "Node"),
                        RATIO_COLUMN,
                    ),
                    unit="percentunit",
                    empty="none sends enough for a ratio (one segment per second)",
                ),
                Panel(
                    title="To each workload",
                    kind="table",
                    description="Retransmission ratio of what these pods send to each.",
                    queries=(Query(pairwise_ratio(_FROM, "dst_namespace, dst_workload")),),
                    columns=(
                        Column("dst_namespace", "Namespace"),
                        Column("dst_workload", "Workload", link=to_workload("dst")),
                        RATIO_COLUMN,
                    ),
                    unit="percentunit",
                    empty="none sends enough for a ratio (one segment per second)",
                ),
            ),
        ),
        Row(
            "History",
            (
                Panel(
                    title="Retransmission ratio",
                    kind="timeseries",
                    description="Sent by these pods, and sent to them.",
                    queries=(
                        Query(ratio(_FROM), "sent", "A"),
                        Query(ratio(_TO), "received", "B"),
                    ),
                    unit="percentunit",
                    red_above_fail_ratio=True,
                    empty="these pods send no data",
                ),
                rtt(
                    "Smoothed round-trip time of what these pods send.",
                    _FROM,
                    "no flow has an RTT yet, or these pods are over the series budget",
                ),
                Panel(
                    title="Connections",
                    kind="timeseries",
                    description="Opened by these pods or to them, failed, and reset.",
                    queries=(
                        Query(rate("tcp_opens_total", _FROM), "opened", "A"),
                        Query(rate("tcp_failed_opens_total", _FROM), "failed", "B"),
                        Query(rate("tcp_failed_opens_total", _TO), "failed towards them", "C"),
                        Query(rate("tcp_resets_received_total", _FROM), "resets received", "D"),
                    ),
                    unit="cps",
                    empty="these pods open no connections",
                ),
                throughput(_FROM, "these pods send no data"),
            ),
        ),
    ),
)
