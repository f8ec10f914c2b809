"""*Node*: one node's flows, and every node's beside each other."""

from flowverdict_provisioner.board import (
    Board,
    Column,
    Link,
    Panel,
    Query,
    Row,
    Threshold,
    Variable,
)
from flowverdict_provisioner.flow_panels import RATIO_COLUMN, ratio_now, rtt, throughput
from flowverdict_provisioner.promql import (
    CLUSTER,
    ONE_CLUSTER_VARIABLE,
    pairwise_ratio,
    rate,
    ratio,
    to_pod,
)

__all__ = ["NODE"]

_ANY = "tcp_data_segments_sent_total"
_FROM = f'{CLUSTER},src_node="$node"'
_TO = f'{CLUSTER},dst_node="$node"'
_OTHERS_FROM = f'{_FROM},dst_node!="$node"'
_OTHERS_TO = f'{_TO},src_node!="$node"'
_WITHIN = f'{_FROM},dst_node="$node"'
_THIS_NODE = f'{CLUSTER},node="$node"'
_BOTH_NAMED = f'{CLUSTER},src_node!="",dst_node!=""'


def _to_node(field: str) -> Link:
    return Link("This node", "flowverdict-node", {"node": f"${{__data.fields.{field}}}"})


NODE = Board(
    uid="flowverdict-node",
    title="Node",
    description="One node: is its path to the other nodes at fault, or one pod on it?",
    variables=(
        ONE_CLUSTER_VARIABLE,
        Variable("node", "src_node", _ANY, f'{CLUSTER},src_node!=""', several=False),
    ),
    since="now-3h",
    rows=(
        Row(
            "Now",
            (
                ratio_now(
                    "To other nodes",
                    "Retransmission ratio of what this node sends elsewhere.",
                    _OTHERS_FROM,
                    "this node sends no data elsewhere",
                ),
                ratio_now(
                    "From other nodes",
                    "Retransmission ratio of what others send to this node.",
                    _OTHERS_TO,
                    "nobody elsewhere sends data to this node",
                ),
                ratio_now(
                    "Within the node",
                    "Retransmission ratio between pods on this node. If this is high, too, the"
                    " node's own links are not to blame.",
                    _WITHIN,
                    "no two pods on this node exchange data",
                ),
                Panel(
                    title="Age of its last interval",
                    kind="stat",
                    description="How long ago its collector last reported.",
                    queries=(
                        Query(
                            "time() - max(flowverdict_node_last_interval_timestamp_seconds"
                            f"{{{_THIS_NODE}}})"
                        ),
                    ),
                    unit="s",
                    thresholds=(
                        Threshold(0, "green"),
                        Threshold(30, "yellow"),
                        Threshold(60, "red"),
                    ),
                    empty="this node has never reported: is a collector running?",
                    width=6,
                    height=4,
                ),
            ),
        ),
        Row(
            "Which path, which pod",
            (
                Panel(
                    title="Node × node",
                    kind="matrix",
                    description="Retransmission ratio from the node of the row to the node of the"
                    " column. A red row and column point to a node, one red cell to a path.",
                    queries=(Query(pairwise_ratio(_BOTH_NAMED, "src_node, dst_node")),),
                    rows_by="src_node",
                    columns_by="dst_node",
                    unit="percentunit",
                    red_above_fail_ratio=True,
                    empty="no two nodes exchange enough for a ratio (one segment per second)",
                    height=10,
                ),
                Panel(
                    title="Pods on this node",
                    kind="table",
                    description="Retransmission ratio of what each sends. If one of many is bad,"
                    " suspect that pod; if all are, suspect the node.",
                    queries=(Query(pairwise_ratio(_FROM, "src_namespace, src_pod")),),
                    columns=(
                        Column("src_namespace", "Namespace"),
                        Column("src_pod", "Pod", link=to_pod("src")),
                        RATIO_COLUMN,
                    ),
                    unit="percentunit",
                    empty="no pod on this node sends enough for a ratio (one segment per second)",
                    width=6,
                    height=10,
                ),
                Panel(
                    title="To each node",
                    kind="table",
                    description="Retransmission ratio of what this node sends to each.",
                    queries=(Query(pairwise_ratio(_FROM, "dst_node")),),
                    columns=(
                        Column("dst_node", "Node", link=_to_node("dst_node")),
                        RATIO_COLUMN,
                    ),
                    unit="percentunit",
                    empty="this node sends no other enough for a ratio (one segment per second)",
                    width=6,
                    height=10,
                ),
            ),
        ),
        Row(
            "History",
            (
                Panel(
                    title="Retransmission ratio",
                    kind="timeseries",
                    description="By direction. If only what crosses the node's edge is retransmitted,"
                    " suspect its interface, its cable, or its tunnel.",
                    queries=(
                        Query(ratio(_OTHERS_FROM), "to other nodes", "A"),
                        Query(ratio(_OTHERS_TO), "from other nodes", "B"),
                        Query(ratio(_WITHIN), "within the node", "C"),
                    ),
                    unit="percentunit",
                    red_above_fail_ratio=True,
                    empty="this node sends no data",
                ),
                rtt(
                    "Smoothed round-trip time of what its pods send.",
                    _FROM,
                    "no flow of this node has an RTT yet",
                ),
                Panel(
                    title="Packets dropped by kernels",
                    kind="timeseries",
                    description="Packets that this node's pods sent, by reason.",
                    queries=(
                        Query(rate("tcp_dropped_packets_total", _FROM, "reason"), "{{reason}}"),
                    ),
                    unit="pps",
                    stacked=True,
                    empty="this node sends no data",
                ),
                throughput(_FROM, "this node sends no data"),
            ),
        ),
    ),
)
