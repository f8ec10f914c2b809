"""*Verdicts*: current and recent causes, how certain they are, and how complete the data is."""

from dataclasses import replace

from flowverdict_provisioner.board import Board, Column, Link, Panel, Query, Row, State, Threshold
from flowverdict_provisioner.flow_panels import CLUSTER_COLUMN
from flowverdict_provisioner.promql import (
    CAUSE_LINK,
    CLUSTER,
    CLUSTER_VARIABLE,
    NONE_IF_JUDGED,
    OF_CAUSE,
    OPEN_INCIDENTS,
    RED_ABOVE_ZERO,
    WITH_SUMMARY,
    with_board,
)

__all__ = ["VERDICTS"]


def _by_cause(metric: str) -> str:
    """A metric of each incident, labelled with its cause."""
    return (
        f"max by (cluster, incident_id) ({metric}) * on (cluster, incident_id) group_right () "
        f"max by (cluster, incident_id, cause_kind, cause_namespace, cause_name) (flowverdict_incident_active{{{CLUSTER}}})"
    )


_CAUSE = "{{cluster}} {{cause_kind}} {{cause_namespace}} {{cause_name}}"
_INCIDENT = Link(
    "This incident",
    "flowverdict-incident",
    {"cluster": "${__data.fields.cluster}", "incident": "${__data.fields.incident_id}"},
)
_THEN = replace(_INCIDENT, title="This incident, then", hours_around=2)
_ENDED = f"max by ({OF_CAUSE}) (flowverdict_resolved_incident_timestamp_seconds{{{CLUSTER}}})"


def _of_past(metric: str) -> str:
    series = f"flowverdict_resolved_incident_{metric}{{{CLUSTER}}}"
    return f"on (cluster, incident_id) group_left () max by (cluster, incident_id) ({series})"


def _rule(measure: str) -> str:
    return f"max by (cluster, incident_id, antecedents, consequents) (flowverdict_incident_rule_{measure}{{{CLUSTER}}})"


VERDICTS = Board(
    uid="flowverdict-verdicts",
    title="Verdicts",
    description="What causes the failing flows, how certain that is, and why.",
    since="now-6h",
    refresh="5s",
    variables=(CLUSTER_VARIABLE,),
    rows=(
        Row(
            "Now",
            (
                replace(OPEN_INCIDENTS, link=None, width=4, height=5),
                Panel(
                    title="Failing flows",
                    kind="stat",
                    description="Directed pairs of endpoints that failed in the last window.",
                    queries=(
                        Query(
                            f"max(flowverdict_incident_failing_flows{{{CLUSTER}}}) or {NONE_IF_JUDGED}"
                        ),
                    ),
                    unit="none",
                    empty="nothing is being judged",
                    thresholds=RED_ABOVE_ZERO,
                    width=4,
                    height=5,
                ),
                Panel(
                    title="Open now",
                    kind="table",
                    description="The cause of each open incident, with its first summary. An empty"
                    " cause means that flows fail but no cause stands out.",
                    queries=(
                        Query(
                            with_board(
                                f"max by ({OF_CAUSE}) (flowverdict_incident_active{{{CLUSTER}}})"
                                f" {WITH_SUMMARY}"
                            )
                        ),
                    ),
                    columns=(
                        CLUSTER_COLUMN,
                        Column("summary", "Verdict"),
                        Column("cause_kind", "Kind"),
                        Column("cause_namespace", "Namespace"),
                        Column("cause_name", "Cause", link=CAUSE_LINK),
                        Column("cause_node", "Node"),
                        Column("direction", "Direction"),
                        Column("incident_id", "Incident", link=_INCIDENT),
                    ),
                    unit="none",
                    empty="no incident is open, or nothing is being judged: see Open incidents",
                    width=16,
                    height=5,
                ),
            ),
        ),
        Row(
            "Timeline",
            (
                Panel(
                    title="Incidents",
                    kind="state-timeline",
                    description="When each incident was open, by cause, and whether it is worth"
                    " waking somebody.",
                    queries=(
                        Query(
                            _by_cause(
                                f"(1 + flowverdict_incident_critical{{{CLUSTER}}})"
                                f" * (1 - flowverdict_incident_stale{{{CLUSTER}}})"
                            ),
                            _CAUSE,
                        ),
                    ),
                    unit="none",
                    states=(
                        State(0, "stale", "purple"),
                        State(1, "warning", "yellow"),
                        State(2, "critical", "red"),
                    ),
                    empty="no incident was open in this time range, as far as anything was judged",
                ),
                Panel(
                    title="Score",
                    kind="timeseries",
                    description="How well the cause explains the failing flows: 1 means all of them and"
                    " no others.",
                    queries=(
                        Query(
                            _by_cause(f"flowverdict_incident_score{{{CLUSTER}}}"),
                            _CAUSE,
                        ),
                    ),
                    unit="percentunit",
                    maximum=1,
                    empty="no incident was open in this time range, as far as anything was judged",
                ),
            ),
        ),
        Row(
            "Past incidents",
            (
                Panel(
                    title="Resolved",
                    kind="table",
                    description="The last 500 of the thirty days before the end of the time range."
                    " The time it was opened leads to the incident as it was then.",
                    queries=(
                        Query(
                            with_board(
                                f"1000 * (0 * {_ENDED} + {_of_past('opened_timestamp_seconds')})"
                            )
                        ),
                        Query(
                            with_board(f"{_ENDED} - {_of_past('opened_timestamp_seconds')}"),
                            ref="B",
                        ),
                        Query(with_board(f"0 * {_ENDED} + {_of_past('score')}"), ref="C"),
                        Query(with_board(f"0 * {_ENDED} + {_of_past('failing_flows')}"), ref="D"),
                    ),
                    columns=(
                        CLUSTER_COLUMN,
                        Column(
                            "Value #A",
                            "Opened",
                            "dateTimeAsIso",
                            link=_THEN,
                            highest_first=True,
                        ),
                        Column("Value #B", "Open for", "s"),
                        Column("cause_kind", "Kind"),
                        Column("cause_namespace", "Namespace"),
                        Column("cause_name", "Cause", link=CAUSE_LINK),
                        Column("cause_node", "Node"),
                        Column("Value #C", "Score", "percentunit"),
                        Column("Value #D", "Failing flows, at most", "none"),
                        Column("incident_id", "Incident", link=_INCIDENT),
                    ),
                    unit="none",
                    empty="none was resolved in the last thirty days, or no exporter is running",
                    width=24,
                ),
            ),
        ),
        Row(
            "Why",
            (
                Panel(
                    title="Rules behind the open verdicts",
                    kind="table",
                    description="Association rules over the flows of the last window. Support: share"
                    " of all flows that match both sides. Confidence: share of those matching the left"
                    " side that also match the right. Lift: how much more often than by chance.",
                    queries=(
                        Query(_rule("support"), ref="A"),
                        Query(_rule("confidence"), ref="B"),
                        Query(_rule("lift"), ref="C"),
                    ),
                    columns=(
                        CLUSTER_COLUMN,
                        Column("antecedents", "If"),
                        Column("consequents", "then"),
                        Column("Value #A", "Support", "percentunit"),
                        Column("Value #B", "Confidence", "percentunit"),
                        Column("Value #C", "Lift", "none"),
                        Column("incident_id", "Incident"),
                    ),
                    unit="none",
                    empty="no open incident has rules, or nothing is being judged",
                ),
                Panel(
                    title="Share of the failing flows explained",
                    kind="timeseries",
                    description="The rest, up to 100%, fails for other reasons.",
                    queries=(
                        Query(
                            _by_cause(f"flowverdict_incident_explains_ratio{{{CLUSTER}}}"),
                            _CAUSE,
                        ),
                    ),
                    unit="percentunit",
                    maximum=1,
                    empty="no incident was open in this time range, as far as anything was judged",
                ),
            ),
        ),
        Row(
            "Coverage: the data behind verdicts",
            (
                Panel(
                    title="Age of each node's last interval",
                    kind="timeseries",
                    description="A silent node is not judged. This should be a second or two.",
                    queries=(
                        Query(
                            "time() - max by (cluster, node)"
                            f" (flowverdict_node_last_interval_timestamp_seconds{{{CLUSTER}}})",
                            "{{cluster}} {{node}}",
                        ),
                    ),
                    unit="s",
                    thresholds=(
                        Threshold(0, "green"),
                        Threshold(30, "yellow"),
                        Threshold(60, "red"),
                    ),
                    empty="no node has reported: is a collector running?",
                    width=8,
                ),
                Panel(
                    title="Lost in the kernel",
                    kind="timeseries",
                    description="Flow updates and sockets that a node's kernel maps had no room for. This"
                    " should be zero.",
                    queries=(
                        Query(
                            f"sum by (cluster, node) (rate(flowverdict_lost_flow_updates_total{{{CLUSTER}}}[$__rate_interval]))"
                            f" + sum by (cluster, node) (rate(flowverdict_lost_sockets_total{{{CLUSTER}}}[$__rate_interval]))",
                            "{{cluster}} {{node}}",
                        ),
                    ),
                    unit="cps",
                    empty="no node has reported: is a collector running?",
                    width=8,
                ),
                Panel(
                    title="Age of the last judged window",
                    kind="timeseries",
                    description="This should be below ten seconds.",
                    queries=(
                        Query(
                            "time() - max by (cluster)"
                            f" (flowverdict_rca_watermark_timestamp_seconds{{{CLUSTER}}} > 0)",
                            "{{cluster}} last window",
                        ),
                    ),
                    unit="s",
                    thresholds=(
                        Threshold(0, "green"),
                        Threshold(30, "yellow"),
                        Threshold(60, "red"),
                    ),
                    empty="no window has been judged yet",
                    width=8,
                ),
            ),
        ),
    ),
)
