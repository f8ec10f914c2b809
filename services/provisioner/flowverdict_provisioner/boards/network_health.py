"""*Network health*: is TCP well in this cluster, and where is it not?"""

from flowverdict_contracts.signals import METRICS, Signal
from flowverdict_provisioner.declare import Board, Column, Link, Panel, Query, Row
from flowverdict_provisioner.selecting import (
    FLOW_VARIABLES,
    FLOWS_FROM,
    OPEN_INCIDENTS,
    RATIO,
    RATIO_THRESHOLDS,
    SOME,
    quantile,
    rate,
    ratio,
    to_pod,
)

__all__ = ["NETWORK_HEALTH"]

_GRAFANA_UNITS = {
    "segments": "pps",
    "packets": "pps",
    "bytes": "Bps",
    "connections": "cps",
    "resets": "cps",
    "microseconds": "s",
}
_POD = Link(
    "This pod",
    "flowverdict-pod",
    {
        "namespace": "${__field.labels.src_namespace}",
        "pod": "${__field.labels.src_pod}",
    },
)


def _signal_panel(signal: Signal) -> Panel:
    """What a signal looks like by namespace; a new one is shown without a panel of its own."""
    queries: tuple[Query, ...]
    if signal.kind == "histogram":
        buckets = f"rate({signal.metric}_bucket{{{FLOWS_FROM}}}[$__rate_interval])"
        queries = (
            Query(f"histogram_quantile(0.5, sum by (le) ({buckets}))", "median", "A"),
            Query(f"histogram_quantile(0.99, sum by (le) ({buckets}))", "99th percentile", "B"),
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
        unit=_GRAFANA_UNITS[signal.unit],
        empty="nothing of this kind has been counted",
        width=8,
        height=6,
    )


def _between_pods(metric: str) -> str:
    """Sums by `from` and `to`, namespaces included, over all addresses of a pod."""
    flows = f'{metric}{{{FLOWS_FROM},src_pod!="",dst_pod!=""}}'
    named = f'label_join({flows}, "from", "/", "src_namespace", "src_pod")'
    named = f'label_join({named}, "to", "/", "dst_namespace", "dst_pod")'
    return f"sum by (from, to) ({named})"


_BETWEEN_PODS = (
    f"topk(400, clamp_max({_between_pods('pair:tcp_retransmissions:rate2m')}"
    f" / ({_between_pods('pair:tcp_data_segments_sent:rate2m')} > 1), 1))"
)

NETWORK_HEALTH = Board(
    uid="flowverdict-health",
    title="Network health",
    description="Is TCP well in this cluster, and where is it not? What the chosen pods send.",
    variables=FLOW_VARIABLES,
    rows=(
        Row(
            "Now",
            (
                OPEN_INCIDENTS,
                Panel(
                    title="Retransmission ratio",
                    kind="stat",
                    description="Segments sent again, of all segments with payload. Users notice from"
                    " about 5 %.",
                    queries=(Query(ratio(FLOWS_FROM)),),
                    unit="percentunit",
                    thresholds=RATIO_THRESHOLDS,
                    empty="these pods send nothing",
                    width=6,
                    height=4,
                ),
                Panel(
                    title="Failing pairs",
                    kind="stat",
                    description="Pairs of addresses that send more than 5 % of their segments again.",
                    queries=(Query(f"count({RATIO}{{{FLOWS_FROM}}} > 0.05) or vector(0)"),),
                    unit="none",
                    thresholds=SOME,
                    width=6,
                    height=4,
                ),
                Panel(
                    title="RTT, 95th percentile",
                    kind="stat",
                    description="Of the kernel's smoothed round-trip times, a reading of each flow"
                    " every second.",
                    queries=(Query(quantile(0.95, "tcp_rtt_seconds", FLOWS_FROM)),),
                    unit="s",
                    empty="no flow has an RTT yet, or these pairs are beyond the budget",
                    width=6,
                    height=4,
                ),
            ),
        ),
        Row(
            "Retransmissions",
            (
                Panel(
                    title="Retransmission ratio by pod",
                    kind="timeseries",
                    description="The ten pods that send the largest share of their segments again."
                    " Many red pods at once usually have one cause: see Verdicts.",
                    queries=(
                        Query(
                            f"topk(10, {ratio(FLOWS_FROM, 'src_namespace, src_pod')})",
                            "{{src_namespace}}/{{src_pod}}",
                        ),
                    ),
                    unit="percentunit",
                    thresholds=RATIO_THRESHOLDS,
                    empty="these pods send nothing",
                    link=_POD,
                ),
                Panel(
                    title="Pod × pod",
                    kind="matrix",
                    description="Retransmission ratio from the pod of the row to the pod of the"
                    " column. A red row and column are a pod, a red block is a node.",
                    queries=(Query(_BETWEEN_PODS),),
                    rows_by="from",
                    columns_by="to",
                    unit="percentunit",
                    thresholds=RATIO_THRESHOLDS,
                    empty="no pair of pods sends enough to have a ratio (one segment a second)",
                ),
                Panel(
                    title="Top pairs",
                    kind="table",
                    description="The pairs that send the largest share of their segments again.",
                    queries=(Query(f"topk(20, {RATIO}{{{FLOWS_FROM}}})"),),
                    columns=(
                        Column("src_namespace", "From namespace"),
                        Column("src_pod", "From pod", link=to_pod("src")),
                        Column("src_node", "From node"),
                        Column("dst_namespace", "To namespace"),
                        Column("dst_pod", "To pod", link=to_pod("dst")),
                        Column("dst_ip", "To address"),
                        Column("dst_node", "To node"),
                        Column("Value", "Ratio", "percentunit", thresholds=RATIO_THRESHOLDS),
                    ),
                    unit="percentunit",
                    empty="no pair sends enough to have a ratio (one segment a second)",
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
                    description="Smoothed round-trip time. A high median is distance or load, a high"
                    " 99th percentile is a few bad flows.",
                    queries=(
                        Query(quantile(0.5, "tcp_rtt_seconds", FLOWS_FROM), "median", "A"),
                        Query(
                            quantile(0.95, "tcp_rtt_seconds", FLOWS_FROM), "95th percentile", "B"
                        ),
                        Query(
                            quantile(0.99, "tcp_rtt_seconds", FLOWS_FROM), "99th percentile", "C"
                        ),
                    ),
                    unit="s",
                    empty="no flow has an RTT yet, or these pairs are beyond the budget",
                    width=8,
                ),
                Panel(
                    title="RTT, all readings",
                    kind="heatmap",
                    description="How many flows have which round-trip time. Two bands are two ways.",
                    queries=(
                        Query(
                            "sum by (le) (increase("
                            f"tcp_rtt_seconds_bucket{{{FLOWS_FROM}}}[$__rate_interval]))",
                            "{{le}}",
                        ),
                    ),
                    unit="s",
                    empty="no flow has an RTT yet, or these pairs are beyond the budget",
                    width=8,
                ),
                Panel(
                    title="Jitter",
                    kind="timeseries",
                    description="Mean deviation of the round-trip time, as the kernel keeps it for"
                    " its retransmission timer.",
                    queries=(
                        Query(
                            quantile(0.5, "tcp_rtt_variation_seconds", FLOWS_FROM), "median", "A"
                        ),
                        Query(
                            quantile(0.95, "tcp_rtt_variation_seconds", FLOWS_FROM),
                            "95th percentile",
                            "B",
                        ),
                    ),
                    unit="s",
                    empty="no flow has an RTT yet, or these pairs are beyond the budget",
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
                    description="Connection attempts that failed, by whom they were for: nobody"
                    " listens, a policy forbids it, or the way is broken.",
                    queries=(
                        Query(
                            f"topk(10, {rate('tcp_failed_opens_total', FLOWS_FROM, 'dst_namespace, dst_pod, dst_ip')} > 0)",
                            "{{dst_namespace}}/{{dst_pod}} {{dst_ip}}",
                        ),
                    ),
                    unit="cps",
                    empty="no attempt has failed",
                    width=8,
                ),
                Panel(
                    title="Resets",
                    kind="timeseries",
                    description="Connections cut off. Resets sent: a port nobody listens on, or a"
                    " process that ended. Resets received: the other end did so.",
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
                    description="By reason. Loss that is not here happened outside of the nodes.",
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
