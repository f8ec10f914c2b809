"""*Pod*: one pod's peers and history, and who talks to whom around it."""

from flowverdict_provisioner.declare import Board, Column, Panel, Query, Row, Variable
from flowverdict_provisioner.selecting import (
    CLUSTER,
    CLUSTER_VARIABLE,
    RATIO,
    RATIO_THRESHOLDS,
    quantile,
    rate,
    ratio,
    to_pod,
)

__all__ = ["POD"]

_ANY = "tcp_data_segments_sent_total"
_FROM = f'{CLUSTER},src_namespace="$namespace",src_pod="$pod"'
_TO = f'{CLUSTER},dst_namespace="$namespace",dst_pod="$pod"'
_PEER = "dst_namespace, dst_pod, dst_ip, dst_node"
_NAME_OF = (
    'label_replace(label_replace({series}, "{label}", "$1", "{end}_ip", "(.*)"),'
    ' "{label}", "$1", "{end}_pod", "(.+)")'
)


def _edges() -> str:
    """Who sends to whom, with a ratio: the pod's own edges and those between its peers."""
    series = f"({RATIO}{{{_FROM}}} or {RATIO}{{{_TO}}})"
    source = _NAME_OF.format(series=series, label="source", end="src")
    target = _NAME_OF.format(series=source, label="target", end="dst")
    return f'sum by (id, source, target) (label_join({target}, "id", " → ", "source", "target"))'


def _nodes() -> str:
    """Everything that the pod talks with, and itself: how much of what it sends is sent again."""
    sources = _NAME_OF.format(
        series=f"({RATIO}{{{_FROM}}} or {RATIO}{{{_TO}}})", label="id", end="src"
    )
    targets = _NAME_OF.format(
        series=f"0 * ({RATIO}{{{_FROM}}} or {RATIO}{{{_TO}}})", label="id", end="dst"
    )
    both = f"max by (id) ({sources}) or max by (id) ({targets})"
    return f'label_replace({both}, "title", "$1", "id", "(.*)")'


POD = Board(
    uid="flowverdict-pod",
    title="Pod",
    description="One pod: how its flows are, with whom it talks, and how that was before.",
    variables=(
        CLUSTER_VARIABLE,
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
                Panel(
                    title="Sent again",
                    kind="stat",
                    description="Share of the segments that this pod sends again.",
                    queries=(Query(ratio(_FROM)),),
                    unit="percentunit",
                    thresholds=RATIO_THRESHOLDS,
                    empty="this pod sends nothing",
                    width=6,
                    height=4,
                ),
                Panel(
                    title="Sent again to it",
                    kind="stat",
                    description="Share of the segments that others send to this pod again.",
                    queries=(Query(ratio(_TO)),),
                    unit="percentunit",
                    thresholds=RATIO_THRESHOLDS,
                    empty="nobody sends to this pod",
                    width=6,
                    height=4,
                ),
                Panel(
                    title="Peers",
                    kind="stat",
                    description="Addresses that it exchanges segments with.",
                    queries=(
                        Query(
                            f"count(count by (dst_ip) ({_ANY}{{{_FROM}}})"
                            f" or count by (dst_ip) (label_replace({_ANY}{{{_TO}}},"
                            ' "dst_ip", "$1", "src_ip", "(.*)")))'
                        ),
                    ),
                    unit="none",
                    empty="none",
                    width=6,
                    height=4,
                ),
                Panel(
                    title="RTT, median",
                    kind="stat",
                    description="Smoothed round-trip time of its flows.",
                    queries=(Query(quantile(0.5, "tcp_rtt_seconds", _FROM)),),
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
                    description="This pod and its peers; the number is the retransmission ratio of"
                    " what is sent along the arrow.",
                    queries=(Query(_nodes(), ref="nodes"), Query(_edges(), ref="edges")),
                    unit="percentunit",
                    empty="it exchanges less than one segment a second with anybody",
                    height=11,
                ),
                Panel(
                    title="To each peer",
                    kind="table",
                    description="What this pod sends again, by peer. One bad peer among many is the"
                    " peer's fault; all of them bad is this pod's or its node's.",
                    queries=(Query(f"sum by ({_PEER}) ({RATIO}{{{_FROM}}})"),),
                    columns=(
                        Column("dst_namespace", "Namespace"),
                        Column("dst_pod", "Pod", link=to_pod("dst")),
                        Column("dst_ip", "Address"),
                        Column("dst_node", "Node"),
                        Column("Value", "Sent again", "percentunit", thresholds=RATIO_THRESHOLDS),
                    ),
                    unit="percentunit",
                    empty="it sends less than one segment a second to anybody",
                    height=11,
                ),
            ),
        ),
        Row(
            "History",
            (
                Panel(
                    title="Sent again",
                    kind="timeseries",
                    description="By direction; both high is the pod, one high is one way to it.",
                    queries=(
                        Query(ratio(_FROM), "by this pod", "A"),
                        Query(ratio(_TO), "by others, to it", "B"),
                    ),
                    unit="percentunit",
                    thresholds=RATIO_THRESHOLDS,
                    empty="this pod sends nothing",
                ),
                Panel(
                    title="RTT and jitter",
                    kind="timeseries",
                    description="95th percentiles of its flows.",
                    queries=(
                        Query(quantile(0.95, "tcp_rtt_seconds", _FROM), "RTT", "A"),
                        Query(quantile(0.95, "tcp_rtt_variation_seconds", _FROM), "jitter", "B"),
                    ),
                    unit="s",
                    empty="no flow has an RTT yet",
                ),
                Panel(
                    title="Throughput",
                    kind="timeseries",
                    description="TCP payload; what is sent includes what is sent again.",
                    queries=(
                        Query(rate("tcp_sent_bytes_total", _FROM), "sent", "A"),
                        Query(rate("tcp_received_bytes_total", _FROM), "received", "B"),
                    ),
                    unit="Bps",
                    empty="this pod sends nothing",
                ),
                Panel(
                    title="Connections",
                    kind="timeseries",
                    description="Opened, failed, and cut off by a reset.",
                    queries=(
                        Query(rate("tcp_opens_total", _FROM), "opened", "A"),
                        Query(rate("tcp_failed_opens_total", _FROM), "failed", "B"),
                        Query(rate("tcp_resets_sent_total", _FROM), "resets sent", "C"),
                        Query(rate("tcp_resets_received_total", _FROM), "resets received", "D"),
                    ),
                    unit="cps",
                    empty="this pod opens no connection",
                ),
            ),
        ),
    ),
)
