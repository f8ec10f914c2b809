"""*Network health*: is TCP healthy in this cluster, and if not, where?"""

from flowverdict_contracts.signals import METRICS, Signal
from flowverdict_flows.ratios import CONNECT_RETRANSMISSION_RATIO
from flowverdict_provisioner.board import Board, Choice, Link, Panel, Query, Row, Threshold
from flowverdict_provisioner.flow_panels import FLOW_COLUMNS
from flowverdict_provisioner.promql import (
    FAIL_RATIO,
    FLOW_VARIABLES,
    FLOWS_FROM,
    OPEN_INCIDENTS,
    PAIR_RATIO,
    RED_ABOVE_ZERO,
    counter,
    quantile,
    rate,
    ratio,
)

__all__ = ["NETWORK_HEALTH"]

_GRAFANA_UNITS = {
    "segments": "pps",
    "packets": "pps",
    "bytes": "Bps",
    "connections": "cps",
    "lookups": "cps",
    "answers": "cps",
    "microseconds": "s",
    "resets": "cps",
    "windows": "cps",
    "reductions": "cps",
}
_READING_UNITS = {"microseconds": "s", "bytes": "decbytes"}
_POD = Link(
    "This pod",
    "flowverdict-pod",
    {
        "cluster": "${__field.labels.cluster}",
        "namespace": "${__field.labels.src_namespace}",
        "pod": "${__field.labels.src_pod}",
    },
)


def _signal_panel(signal: Signal) -> Panel:
    """A panel for a signal by namespace, so that a new signal needs no code here."""
    queries: tuple[Query, ...]
    units = _GRAFANA_UNITS if signal.kind == "counter" else _READING_UNITS
    if signal.kind == "summary":
        mean = " / ".join(
            rate(f"{signal.metric}_{part}", FLOWS_FROM, "src_namespace")
            for part in ("sum", "count")
        )
        queries = (Query(mean, "{{src_namespace}}"),)
    elif signal.kind == "histogram":
        queries = (
            Query(quantile(0.5, signal.sender_metric, FLOWS_FROM), "median", "A"),
            Query(quantile(0.99, signal.sender_metric, FLOWS_FROM), "99th percentile", "B"),
        )
    else:
        by = ", ".join(("src_namespace", *signal.labels))
        legend = " ".join(("{{src_namespace}}", *(f"{{{{{name}}}}}" for name in signal.labels)))
        queries = (Query(rate(f"{signal.metric}_total", FLOWS_FROM, by), legend),)
    return Panel(
        title=signal.metric,
        kind="timeseries",
        description=signal.meaning,
        queries=queries,
        unit=units[signal.unit],
        empty="none counted, or no exporter is running",
        width=8,
        height=6,
    )


def _between_pods(metric: str) -> str:
    """Sums by `from` and `to` (namespace/pod, after the cluster), over all addresses of a pod."""
    named = f'{metric}{{{FLOWS_FROM},src_pod!="",dst_pod!=""}}'
    for label, end in (("from", "src"), ("to", "dst")):
        named = f'label_join({named}, "{label}", "/", "{end}_namespace", "{end}_pod")'
        named = f'label_join({named}, "{label}", " ", "cluster", "{label}")'
        named = f'label_replace({named}, "{label}", "$1", "{label}", " (.*)")'
    return f"sum by (from, to) ({named})"


_METRIC, _LABELS = counter("retransmitted_synacks")
_SYNACKS = rate(_METRIC, f"{FLOWS_FROM}{_LABELS}", "cluster, src_namespace, src_pod")

_BETWEEN_PODS = (
    f"topk(400, clamp_max({_between_pods('pair:tcp_retransmitted_data_segments:rate2m')}"
    f" / ({_between_pods('pair:tcp_data_segments_sent:rate2m')} > 1), 1))"
)

NETWORK_HEALTH = Board(
    uid="flowverdict-health",
    title="Network health",
    description="Is TCP healthy in this cluster, and if not, where? Selects by sending pod.",
    variables=FLOW_VARIABLES,
    choices=(
        Choice(
            "objective",
            "At most retransmitted",
            {"0.1%": "0.001", "0.5%": "0.005", "1%": "0.01", "2%": "0.02"},
        ),
    ),
    rows=(
        Row(
            "Now",
            (
                OPEN_INCIDENTS,
                Panel(
                    title="Retransmission ratio",
                    kind="stat",
                    description="Share of the data segments sent that are retransmissions. Red above the"
                    " current threshold.",
                    queries=(Query(ratio(FLOWS_FROM)),),
                    unit="percentunit",
                    red_above_fail_ratio=True,
                    empty="these pods send no data",
                    width=6,
                    height=4,
                ),
                Panel(
                    title="Failing pairs",
                    kind="stat",
                    description="Pairs of addresses with a retransmission ratio above the threshold.",
                    queries=(
                        Query(
                            f"count({PAIR_RATIO}{{{FLOWS_FROM}}} > on () group_left () {FAIL_RATIO})"
                            f" or 0 * count({PAIR_RATIO}{{{FLOWS_FROM}}} <= on () group_left () {FAIL_RATIO})"
                        ),
                    ),
                    unit="none",
                    thresholds=RED_ABOVE_ZERO,
                    empty="none sends enough for a ratio (one segment per second)",
                    width=6,
                    height=4,
                ),
                Panel(
                    title="RTT, 95th percentile",
                    kind="stat",
                    description="The kernel's smoothed round-trip time, one sample per flow per second.",
                    queries=(Query(quantile(0.95, "tcp_sender_rtt_seconds", FLOWS_FROM)),),
                    unit="s",
                    empty="no flow has an RTT yet, or these pods are over the series budget",
                    width=6,
                    height=4,
                ),
            ),
        ),
        Row(
            "Retransmissions",
            (
                Panel(
                    title="Burn rate",
                    kind="timeseries",
                    description="How many times faster than the objective allows segments are"
                    " retransmitted. Above 1 for long, the objective is missed; above 14 for an"
                    " hour, a month's budget is gone in two days.",
                    queries=tuple(
                        Query(f"({ratio(FLOWS_FROM, over=over)}) / $objective", f"over {over}", ref)
                        for over, ref in (("5m", "A"), ("1h", "B"), ("6h", "C"))
                    ),
                    unit="none",
                    thresholds=(
                        Threshold(0, "green"),
                        Threshold(1, "yellow"),
                        Threshold(14, "red"),
                    ),
                    empty="these pods send no data",
                    width=24,
                ),
                Panel(
                    title="Retransmission ratio by pod",
                    kind="timeseries",
                    description="The ten pods with the highest ratio. Many red pods at once usually have"
                    " one cause: see Verdicts.",
                    queries=(
                        Query(
                            f"topk(10, {ratio(FLOWS_FROM, 'cluster, src_namespace, src_pod')})",
                            "{{cluster}} {{src_namespace}}/{{src_pod}}",
                        ),
                    ),
                    unit="percentunit",
                    red_above_fail_ratio=True,
                    empty="these pods send no data",
                    link=_POD,
                ),
                Panel(
                    title="Pod × pod",
                    kind="matrix",
                    description="Retransmission ratio from the pod of the row to the pod of the"
                    " column. A red row and column point to a pod, a red block to a node.",
                    queries=(Query(_BETWEEN_PODS),),
                    rows_by="from",
                    columns_by="to",
                    unit="percentunit",
                    red_above_fail_ratio=True,
                    empty="no pair of pods sends enough for a ratio (one segment per second)",
                ),
                Panel(
                    title="Top pairs",
                    kind="table",
                    description="The pairs with the highest retransmission ratio.",
                    queries=(Query(f"topk(20, {PAIR_RATIO}{{{FLOWS_FROM}}})"),),
                    columns=FLOW_COLUMNS,
                    unit="percentunit",
                    empty="no pair sends enough for a ratio (one segment per second)",
                    width=24,
                ),
            ),
        ),
        Row(
            "Latency",
            (
                Panel(
                    title="RTT",
                    kind="timeseries",
                    description="Smoothed round-trip time. A high median means distance or load; a high"
                    " 99th percentile, a few bad flows.",
                    queries=(
                        Query(quantile(0.5, "tcp_sender_rtt_seconds", FLOWS_FROM), "median", "A"),
                        Query(
                            quantile(0.95, "tcp_sender_rtt_seconds", FLOWS_FROM),
                            "95th percentile",
                            "B",
                        ),
                        Query(
                            quantile(0.99, "tcp_sender_rtt_seconds", FLOWS_FROM),
                            "99th percentile",
                            "C",
                        ),
                    ),
                    unit="s",
                    empty="no flow has an RTT yet, or these pods are over the series budget",
                    width=8,
                ),
                Panel(
                    title="RTT, all samples",
                    kind="heatmap",
                    description="How the round-trip times are distributed. Two bands suggest two paths.",
                    queries=(
                        Query(
                            "sum by (le) (increase("
                            f"tcp_sender_rtt_seconds_bucket{{{FLOWS_FROM}}}[$__rate_interval]))",
                            "{{le}}",
                        ),
                    ),
                    unit="s",
                    empty="no flow has an RTT yet, or these pods are over the series budget",
                    width=8,
                ),
                Panel(
                    title="Jitter",
                    kind="timeseries",
                    description="Mean deviation of the round-trip time, as the kernel keeps it for"
                    " its retransmission timer.",
                    queries=(
                        Query(
                            quantile(0.5, "tcp_sender_rtt_variation_seconds", FLOWS_FROM),
                            "median",
                            "A",
                        ),
                        Query(
                            quantile(0.95, "tcp_sender_rtt_variation_seconds", FLOWS_FROM),
                            "95th percentile",
                            "B",
                        ),
                    ),
                    unit="s",
                    empty="no flow has an RTT yet, or these pods are over the series budget",
                    width=8,
                ),
            ),
        ),
        Row(
            "Connections",
            (
                Panel(
                    title="Failed connects",
                    kind="timeseries",
                    description="Failed connection attempts by destination: nothing listens there, a"
                    " policy blocks them, or the path is failing.",
                    queries=(
                        Query(
                            f"topk(10, {rate('tcp_failed_opens_total', FLOWS_FROM, 'dst_namespace, dst_pod, dst_ip')} > 0)",
                            "{{dst_namespace}}/{{dst_pod}} {{dst_ip}}",
                        ),
                    ),
                    unit="cps",
                    empty="no connection attempt has failed, or no exporter is running",
                    width=8,
                ),
                Panel(
                    title="Connect retransmission ratio",
                    kind="timeseries",
                    description="Retransmitted SYN and SYN-ACK segments per connection attempt.",
                    queries=(
                        Query(
                            f"topk(10, {ratio(FLOWS_FROM, 'src_namespace, src_pod', CONNECT_RETRANSMISSION_RATIO)})",
                            "{{cluster}} {{src_namespace}}/{{src_pod}}",
                        ),
                    ),
                    unit="percentunit",
                    empty="these pods open no connections",
                    width=8,
                ),
                Panel(
                    title="Half-open connections",
                    kind="timeseries",
                    description="SYN-ACKs retransmitted by a pod, for connection requests that may never"
                    " complete: a SYN flood, a scan, or a failing path back to the clients.",
                    queries=(
                        Query(
                            f"topk(10, {_SYNACKS} > 0)",
                            "{{cluster}} {{src_namespace}}/{{src_pod}}",
                        ),
                    ),
                    unit="pps",
                    empty="no SYN-ACK was retransmitted, or no exporter is running",
                    width=8,
                ),
                Panel(
                    title="Resets",
                    kind="timeseries",
                    description="Connections reset. Sent: nothing listens on the port, or a process"
                    " exited. Received: the same at the other end.",
                    queries=(
                        Query(rate("tcp_resets_sent_total", FLOWS_FROM), "sent", "A"),
                        Query(rate("tcp_resets_received_total", FLOWS_FROM), "received", "B"),
                    ),
                    unit="cps",
                    width=8,
                ),
                Panel(
                    title="Packets dropped by the kernel",
                    kind="timeseries",
                    description="By reason. Loss not shown here happened outside the nodes.",
                    queries=(
                        Query(
                            rate("tcp_dropped_packets_total", FLOWS_FROM, "reason"), "{{reason}}"
                        ),
                    ),
                    unit="pps",
                    stacked=True,
                    width=8,
                ),
            ),
        ),
        Row("Every signal", tuple(_signal_panel(first) for first, *_ in METRICS.values())),
    ),
)
