"""*Incident*: one incident, whatever its cause is: the flows that it explains, and how it went."""

from flowverdict_contracts.signals import END_LABELS
from flowverdict_provisioner.board import Board, Column, Panel, Query, Row, Variable
from flowverdict_provisioner.flow_panels import CLUSTER_COLUMN, FLOW_COLUMNS
from flowverdict_provisioner.promql import (
    CAUSE_LINK,
    CLUSTER,
    OF_CAUSE,
    ONE_CLUSTER_VARIABLE,
    PAIR_RATIO,
    WITH_SUMMARY,
    with_board,
)

__all__ = ["INCIDENT"]

_THIS = f'{CLUSTER},incident_id="$incident"'
_OPEN_OR_RESOLVED = '__name__=~"flowverdict_(incident_active|resolved_incident_timestamp_seconds)"'
_ALL_OF_THEM = "cluster, " + ", ".join(
    f"{end}_{name}" for name in END_LABELS[:6] for end in ("src", "dst")
)
_EXPLAINED_BY = (
    ("src_ip", "dst_ip"), ("src_ip",), ("dst_ip",),
    ("src_node", "dst_node"), ("src_node", "dst_ip"),
    ("src_namespace", "src_workload", "dst_namespace", "dst_workload"),
    ("src_namespace", "src_workload", "dst_ip"),
    ("src_namespace", "src_pod"), ("dst_namespace", "dst_pod"),
    ("src_namespace", "src_workload"), ("dst_namespace", "dst_workload"),
    ("src_node",), ("dst_node",), ("src_zone",), ("dst_zone",),
)  # fmt: skip
"""By which labels an incident can explain a flow; `by` joins them without the namespaces."""


def _explained() -> str:
    """The ratios of the flows that the incident explains."""
    flows = f"{PAIR_RATIO}{{{CLUSTER}}}"
    parts = []
    for labels in _EXPLAINED_BY:
        by = "+".join(name for name in labels if not name.endswith("namespace"))
        sets = f'flowverdict_incident_explains{{{_THIS},by="{by}"}}'
        parts.append(f"({flows} and on (cluster, {', '.join(labels)}) {sets})")
    return f"max by ({_ALL_OF_THEM}) ({' or '.join(parts)})"


def _cause() -> str:
    """The cause of the incident, with its summary as long as it is open."""
    now, over = (
        f"max by ({OF_CAUSE}) (flowverdict_{metric}{{{_THIS}}})"
        for metric in ("incident_active", "resolved_incident_timestamp_seconds")
    )
    return f"({now} {WITH_SUMMARY} or on (cluster, incident_id) {over})"


def _number(metric: str) -> str:
    return f"max(flowverdict_incident_{metric}{{{_THIS}}})"


INCIDENT = Board(
    uid="flowverdict-incident",
    title="Incident",
    description="One incident: what it explains, and how it went.",
    variables=(
        ONE_CLUSTER_VARIABLE,
        Variable("incident", "incident_id", "", f"{_OPEN_OR_RESOLVED},{CLUSTER}", several=False),
    ),
    rows=(
        Row(
            "Verdict",
            (
                Panel(
                    title="Cause",
                    kind="table",
                    description="What is to blame, in the first verdict's words; once it is over,"
                    " without them.",
                    queries=(Query(with_board(_cause())),),
                    columns=(
                        CLUSTER_COLUMN,
                        Column("summary", "Verdict"),
                        Column("cause_kind", "Kind"),
                        Column("cause_namespace", "Namespace"),
                        Column("cause_name", "Cause", link=CAUSE_LINK),
                        Column("cause_node", "Node"),
                        Column("direction", "Direction"),
                        Column("cause_addresses", "Addresses"),
                        Column("incident_id", "Incident"),
                    ),
                    unit="none",
                    empty="Prometheus does not keep data for that long, it was resolved more than"
                    " thirty days before, or 500 were after it",
                    width=24,
                    height=4,
                ),
            ),
        ),
        Row(
            "Flows",
            (
                Panel(
                    title="Flows that it explains",
                    kind="table",
                    description="Retransmission ratio of each, now. Of failed connects and latency,"
                    " see the verdict itself.",
                    queries=(Query(f"topk(100, {_explained()})"),),
                    columns=FLOW_COLUMNS,
                    unit="percentunit",
                    empty="it is over, or none of its flows sends enough for a ratio",
                    width=24,
                    height=10,
                ),
            ),
        ),
        Row(
            "How it went",
            (
                Panel(
                    title="Failing flows",
                    kind="timeseries",
                    description="Directed pairs of endpoints that failed in each window.",
                    queries=(Query(_number("failing_flows"), "failing flows"),),
                    unit="none",
                    empty="it was not open in this time range",
                ),
                Panel(
                    title="Score",
                    kind="timeseries",
                    description="How well the cause explains the failing flows: 1 means all of them"
                    " and no others.",
                    queries=(
                        Query(_number("score"), "score", "A"),
                        Query(_number("explains_ratio"), "share of the failing flows", "B"),
                    ),
                    unit="percentunit",
                    maximum=1,
                    empty="it was not open in this time range",
                ),
            ),
        ),
    ),
)
