"""What panels of several dashboards ask in the same way: whose flows, ratios, quantiles."""

from flowverdict_provisioner.declare import Link, Panel, Query, Threshold, Variable

__all__ = [
    "CLUSTER",
    "CLUSTER_VARIABLE",
    "FLOWS_FROM",
    "FLOW_VARIABLES",
    "OPEN_INCIDENTS",
    "RATIO",
    "RATIO_THRESHOLDS",
    "SOME",
    "WITH_SUMMARY",
    "quantile",
    "rate",
    "ratio",
    "to_pod",
]

CLUSTER = 'cluster=~"$cluster"'
FLOWS_FROM = f'{CLUSTER},src_namespace=~"$namespace",src_workload=~"$workload",src_pod=~"$pod"'
"""Selects what the chosen pods send."""

_ANY = "tcp_data_segments_sent_total"

CLUSTER_VARIABLE = Variable("cluster", "cluster", "flowverdict_exporter_pairs")

FLOW_VARIABLES = (
    CLUSTER_VARIABLE,
    Variable("namespace", "src_namespace", _ANY, CLUSTER),
    Variable("workload", "src_workload", _ANY, f'{CLUSTER},src_namespace=~"$namespace"'),
    Variable(
        "pod",
        "src_pod",
        _ANY,
        f'{CLUSTER},src_namespace=~"$namespace",src_workload=~"$workload"',
    ),
)

RATIO = "pair:tcp_retransmission_ratio:rate2m"
RATIO_THRESHOLDS = (
    Threshold(0, "green"),
    Threshold(0.01, "yellow"),
    Threshold(0.05, "red"),
)

WITH_SUMMARY = (
    "* on (incident_id) group_left (summary)"
    " topk by (incident_id) (1, max by (incident_id, summary) (flowverdict_incident_info))"
)
"""After an expression of incidents: gives each its verdict's words, also where exporters differ."""

SOME = (Threshold(0, "green"), Threshold(1, "red"))
"""For a number that should be 0."""

OPEN_INCIDENTS = Panel(
    title="Open incidents",
    kind="stat",
    description="Incidents that have a verdict and are not resolved.",
    queries=(
        Query(
            f"count(count by (incident_id) (flowverdict_incident_active{{{CLUSTER}}})) or vector(0)"
        ),
    ),
    unit="none",
    thresholds=SOME,
    link=Link("Verdicts", "flowverdict-verdicts"),
    width=6,
    height=4,
)


def rate(metric: str, selector: str, by: str = "") -> str:
    """Sum of a counter's increase a second."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{selector}}}[$__rate_interval]))"


def ratio(selector: str, by: str = "") -> str:
    """Retransmitted segments by segments sent with payload; at most 1."""
    again = rate("tcp_retransmissions_total", selector, by)
    sent = rate("tcp_data_segments_sent_total", selector, by)
    return f"clamp_max({again} / ({sent} > 0), 1)"


def quantile(share: float, histogram: str, selector: str, by: str = "") -> str:
    """The value that `share` of a histogram's readings are below."""
    grouping = f"le, {by}" if by else "le"
    buckets = f"rate({histogram}_bucket{{{selector}}}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by ({grouping}) ({buckets}))"


def to_pod(end: str) -> Link:
    """From a row of a table to the dashboard of the pod at one of its ends."""
    return Link(
        "This pod",
        "flowverdict-pod",
        {
            "namespace": f"${{__data.fields.{end}_namespace}}",
            "pod": f"${{__data.fields.{end}_pod}}",
        },
    )
