"""*Pod*: one pod's peers and history, and who talks to whom around it."""

from flowverdict_provisioner.board import Board, Column, Panel, Query, Row, Variable
from flowverdict_provisioner.flow_panels import RATIO_COLUMN, ratio_now, throughput
from flowverdict_provisioner.promql import (
    CLUSTER,
    ONE_CLUSTER_VARIABLE,
    PAIR_RATIO,
    quantile,
    rate,
    ratio,
    to_pod,
)

__all__ = ["POD"]

_ANY = "tcp_data_segments_sent_total"
_FROM = f'{CLUSTER},src_namespace="$namespace",src_pod="$pod"'
_TO = f'{CLUSTER},dst_namespace="$namespace",dst_pod="$pod"'
_PEER = "cluster, dst_namespace, dst_pod, dst_ip, dst_node"
_FLOWS_FROM, _FLOWS_TO = f"{PAIR_RATIO}{{{_FROM}}}", f"{PAIR_RATIO}{{{_TO}}}"


def _named(series: str, label: str, end: str) -> str:
    """Adds a label with an end's namespace and pod, or its address if it is not a pod."""
    named = f'label_replace({series}, "{label}", "$1", "{end}_ip", "(.*)")'
    joined = f'label_join({named}, "{label}_pod", "/", "{end}_namespace", "{end}_pod")'
    return f'label_replace({joined}, "{label}", "$1", "{label}_pod", "(.+/.+)")'


def _near(end: str) -> str:
    """The addresses of this pod and its peers, as the label of one end."""
    peer = {"src": ("dst_ip", _FLOWS_FROM), "dst": ("src_ip", _FLOWS_TO)}[end]
    peers = (
        f'label_replace(count by ({peer[0]}) ({peer[1]}), "{end}_ip", "$1", "{peer[0]}", "(.*)")'
    )
    return f"count by ({end}_ip) ({_FLOWS_FROM} or {_FLOWS_TO} or {peers})"


def _near_flows() -> str:
    return (
        f"topk(200, {PAIR_RATIO}{{{CLUSTER}}} and on (src_ip) {_near('src')}"
        f" and on (dst_ip) {_near('dst')})"
    )


def _edges() -> str:
    """Who sends to whom, with a ratio: the pod's own flows and those between its peers."""
    named = _named(_named(_near_flows(), "source", "src"), "target", "dst")
    return f'max by (id, source, target) (label_join({named}, "id", " → ", "source", "target"))'


def _nodes() -> str:
    """The graph's nodes, each with the worst ratio of what it sends."""
    senders = _named(_near_flows(), "id", "src")
    receivers = _named(f"0 * {_near_flows()}", "id", "dst")
    both = f"max by (id) ({senders}) or max by (id) ({receivers})"
    return f'label_replace({both}, "title", "$1", "id", "(.*)")'


def _peers() -> str:
    there = f"count by (dst_ip) ({_ANY}{{{_FROM}}})"
    back = f"count by (src_ip) ({_ANY}{{{_TO}}})"
    return (
        f'count(count by (peer) (label_replace({there}, "peer", "$1", "dst_ip", "(.*)")'
        f' or label_replace({back}, "peer", "$1", "src_ip", "(.*)")))'
    )


POD = Board(
    uid="flowverdict-pod",
    title="Pod",
    description="One pod: the state of its flows, its peers, and its history.",
    variables=(
        ONE_CLUSTER_VARIABLE,
        Variable("namespace", "src_namespace", f"{_ANY}", f'{CLUSTER},src_pod!=""', several=False),
        Variable(
            "pod",
            "src_pod",
            _ANY,
            f'{CLUSTER},src_namespace="$namespace",src_pod!=""',
            several=False,
        ),
    ),
    since="now-3h",
    rows=(
        Row(
            "Now",
            (
                ratio_now(
                    "Retransmitted by this pod",
                    "Retransmission ratio of what this pod sends.",
                    _FROM,
                    "this pod sends no data",
                ),
                ratio_now(
                    "Retransmitted to this pod",
                    "Retransmission ratio of what others send to this pod.",
                    _TO,
                    "no pod sends data to this one",
                ),
                Panel(
                    title="Peers",
                    kind="stat",
                    description="Addresses that this pod exchanges segments with.",
                    queries=(Query(_peers()),),
                    unit="none",
                    empty="none, or no exporter is running",
                    width=6,
                    height=4,
                ),
                Panel(
                    title="RTT, median",
                    kind="stat",
                    description="Smoothed round-trip time of its flows.",
                    queries=(Query(quantile(0.5, "tcp_sender_rtt_seconds", _FROM)),),
                    unit="s",
                    empty="no flow has an RTT yet",
                    width=6,
                    height=4,
                ),
            ),
        ),
        Row(
            "Peers",
            (
                Panel(
                    title="Who talks to whom",
                    kind="nodegraph",
                    description="This pod and its peers; the number is the retransmission ratio in"
                    " the direction of the arrow.",
                    queries=(Query(_nodes(), ref="nodes"), Query(_edges(), ref="edges")),
                    unit="percentunit",
                    empty="this pod exchanges less than one data segment per second with each peer",
                    height=11,
                ),
                Panel(
                    title="To each peer",
                    kind="table",
                    description="Retransmission ratio by peer. If one of many is bad, suspect that peer;"
                    " if all are, suspect this pod or its node.",
                    queries=(Query(f"max by ({_PEER}) ({_FLOWS_FROM})"),),
                    columns=(
                        Column("dst_namespace", "Namespace"),
                        Column("dst_pod", "Pod", link=to_pod("dst")),
                        Column("dst_ip", "Address"),
                        Column("dst_node", "Node"),
                        RATIO_COLUMN,
                    ),
                    unit="percentunit",
                    empty="this pod sends less than one data segment per second to each peer",
                    height=11,
                ),
            ),
        ),
        Row(
            "History",
            (
                Panel(
                    title="Retransmission ratio",
                    kind="timeseries",
                    description="By direction. If both are high, suspect the pod; if only one is, suspect the"
                    " path in that direction.",
                    queries=(
                        Query(ratio(_FROM), "sent by this pod", "A"),
                        Query(ratio(_TO), "sent to this pod", "B"),
                    ),
                    unit="percentunit",
                    red_above_fail_ratio=True,
                    empty="this pod sends no data",
                ),
                Panel(
                    title="RTT and jitter",
                    kind="timeseries",
                    description="95th percentiles of its flows.",
                    queries=(
                        Query(quantile(0.95, "tcp_sender_rtt_seconds", _FROM), "RTT", "A"),
                        Query(
                            quantile(0.95, "tcp_sender_rtt_variation_seconds", _FROM), "jitter", "B"
                        ),
                    ),
                    unit="s",
                    empty="no flow has an RTT yet",
                ),
                throughput(_FROM, "this pod sends no data"),
                Panel(
                    title="Connections",
                    kind="timeseries",
                    description="Opened, failed, and reset.",
                    queries=(
                        Query(rate("tcp_opens_total", _FROM), "opened", "A"),
                        Query(rate("tcp_failed_opens_total", _FROM), "failed", "B"),
                        Query(rate("tcp_resets_sent_total", _FROM), "resets sent", "C"),
                        Query(rate("tcp_resets_received_total", _FROM), "resets received", "D"),
                    ),
                    unit="cps",
                    empty="this pod opens no connections",
                ),
            ),
        ),
    ),
)
