"""PromQL shared by several dashboards: selectors, rates, ratios, quantiles."""

from collections.abc import Iterable
from dataclasses import replace

from flowverdict_contracts.signals import SIGNALS
from flowverdict_flows.ratios import RETRANSMISSION_RATIO, Ratio
from flowverdict_provisioner.board import Link, Panel, Query, Threshold, Variable

__all__ = [
    "CAUSE_LINK",
    "CLUSTER",
    "CLUSTER_VARIABLE",
    "FAIL_RATIO",
    "FLOWS_FROM",
    "FLOW_VARIABLES",
    "NONE_IF_JUDGED",
    "OF_CAUSE",
    "ONE_CLUSTER_VARIABLE",
    "OPEN_INCIDENTS",
    "PAIR_RATIO",
    "RED_ABOVE_ZERO",
    "WITH_SUMMARY",
    "counter",
    "none_if_up",
    "pairwise_ratio",
    "quantile",
    "rate",
    "ratio",
    "to_pod",
    "to_workload",
    "with_board",
    "with_summary",
]

CLUSTER = 'cluster=~"$cluster"'
FLOWS_FROM = f'{CLUSTER},src_namespace=~"$namespace",src_workload=~"$workload",src_pod=~"$pod"'
"""Selects the flows that the chosen pods send."""

_ANY = "tcp_data_segments_sent_total"

CLUSTER_VARIABLE = Variable("cluster", "cluster", "flowverdict_exporter_pairs")
ONE_CLUSTER_VARIABLE = replace(CLUSTER_VARIABLE, several=False)
"""For what may be called the same in several clusters. Empty if no cluster has a name."""

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

PAIR_RATIO = "pair:tcp_retransmission_ratio:rate2m"
"""The recording rule for each pair."""

FAIL_RATIO = f"max(cluster:flowverdict_fail_ratio:last{{{CLUSTER}}})"
"""The threshold, above which a flow is failing; the last one while the RCA worker is away."""

OF_CAUSE = (
    "cluster, incident_id, cause_kind, cause_namespace, cause_name, cause_node, direction,"
    " cause_addresses"
)
"""What identifies an incident and its cause."""


def with_summary(info: str = "flowverdict_incident_info") -> str:
    """`WITH_SUMMARY`, with the summaries in the labels of `info`."""
    return (
        "* on (cluster, incident_id) group_left (summary) topk by (cluster, incident_id)"
        f" (1, max by (cluster, incident_id, summary) ({info}))"
    )


WITH_SUMMARY = with_summary()
"""Appended to an expression over incidents: adds their summaries, even if exporters disagree."""

NONE_IF_JUDGED = (
    "0 * (count(count by (cluster)"
    f" (time() - flowverdict_rca_watermark_timestamp_seconds{{{CLUSTER}}} < 120))"
    f" == count(count by (cluster) (flowverdict_exporter_rows_total{{{CLUSTER}}})))"
)
"""0 if windows are being judged wherever an exporter tells of incidents, else nothing: then nobody
knows.
"""


def none_if_up(services: Iterable[str]) -> str:
    """0 if all of these services are up, else nothing."""
    jobs = (f'job=~".*{each}.*",{CLUSTER}' for each in services)
    return "0 * " + " * ".join(f"count(up{{{each}}} == 1)" for each in jobs)


CAUSE_LINK = Link(
    "Its dashboard",
    "flowverdict-${__data.fields.board}",
    {
        "cluster": "${__data.fields.cluster}",
        "namespace": "${__data.fields.cause_namespace}",
        "pod": "${__data.fields.cause_name}",
        "node": "${__data.fields.cause_name}",
        "workload": "${__data.fields.cause_name}",
        "service": "${__data.fields.cause_name}",
        "source": "${__data.fields.cause_addresses}",
        "destination": "${__data.fields.cause_addresses}",
        "incident": "${__data.fields.incident_id}",
    },
)
"""From a table with the labels of an incident and of `with_board`."""

RED_ABOVE_ZERO = (Threshold(0, "green"), Threshold(1, "red"))

OPEN_INCIDENTS = Panel(
    title="Open incidents",
    kind="stat",
    description="Incidents that have a verdict and are not resolved.",
    queries=(
        Query(
            f"count(count by (cluster, incident_id) (flowverdict_incident_active{{{CLUSTER}}}))"
            f" or {NONE_IF_JUDGED}"
        ),
    ),
    unit="none",
    empty="nothing is being judged",
    thresholds=RED_ABOVE_ZERO,
    link=Link("Verdicts", "flowverdict-verdicts"),
    width=6,
    height=4,
)


def rate(metric: str, selector: str, by: str = "", over: str = "$__rate_interval") -> str:
    """Sum of a counter's per-second rates."""
    grouping = f" by ({by})" if by else ""
    return f"sum{grouping} (rate({metric}{{{selector}}}[{over}]))"


def counter(field: str) -> tuple[str, str]:
    """The counter for a field of an enriched row, and the label matchers that select its series."""
    signal = next(each for each in SIGNALS if each.field == field)
    labels = "".join(f',{name}="{value}"' for name, value in signal.labels.items())
    return f"{signal.metric}_total", labels


def ratio(
    selector: str,
    by: str = "",
    of: Ratio = RETRANSMISSION_RATIO,
    over: str = "$__rate_interval",
) -> str:
    """A ratio of sums of rates, as `flowverdict_flows.ratios` defines it."""

    def total(fields: tuple[str, ...]) -> str:
        counters = (counter(field) for field in fields)
        return " + ".join(
            rate(metric, f"{selector}{labels}", by, over) for metric, labels in counters
        )

    quotient = f"({total(of.numerator)}) / (({total(of.denominator)}) > 0)"
    return quotient if of.at_most is None else f"clamp_max({quotient}, {of.at_most:g})"


def pairwise_ratio(selector: str, by: str) -> str:
    """The retransmission ratio of what is selected, of those that send a segment per second."""
    retransmitted = f"pair:tcp_retransmitted_data_segments:rate2m{{{selector}}}"
    sent = f"pair:tcp_data_segments_sent:rate2m{{{selector}}}"
    by = f"cluster, {by}"
    return f"clamp_max(sum by ({by}) ({retransmitted}) / (sum by ({by}) ({sent}) > 1), 1)"


def with_board(incidents: str) -> str:
    """Adds a label `board`: the end of the uid of the dashboard for an incident's cause."""
    any_cause = f'label_replace({incidents}, "board", "incident", "", "")'
    kinds = "(pod|node|workload|service|link)"
    return f'label_replace({any_cause}, "board", "$1", "cause_kind", "{kinds}")'


def quantile(share: float, histogram: str, selector: str, by: str = "") -> str:
    """The value that `share` of a histogram's samples are below."""
    grouping = f"le, {by}" if by else "le"
    buckets = f"rate({histogram}_bucket{{{selector}}}[$__rate_interval])"
    return f"histogram_quantile({share}, sum by ({grouping}) ({buckets}))"


def to_pod(end: str) -> Link:
    """A link from a table row to the dashboard of the pod at one end of the flow."""
    return _to("pod", end)


def to_workload(end: str) -> Link:
    """A link from a table row to the dashboard of the workload at one end of the flow."""
    return _to("workload", end)


def _to(kind: str, end: str) -> Link:
    fields = {"cluster": "cluster", "namespace": f"{end}_namespace", kind: f"{end}_{kind}"}
    variables = {name: f"${{__data.fields.{field}}}" for name, field in fields.items()}
    return Link(f"This {kind}", f"flowverdict-{kind}", variables)
