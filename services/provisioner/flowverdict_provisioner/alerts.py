"""Prometheus alert rules converted to Grafana's, for installations without Alertmanager.

The rules come from deploy/prometheus/rules. Alerts on individual flows are left out, since Grafana
cannot inhibit them while a verdict explains them. So are the rules that notify nobody (`info`),
those that only inhibit others, and the watchdog, which would watch Grafana itself.
"""

from collections.abc import Iterator
from importlib.resources import files
from typing import Any

import yaml

from flowverdict_provisioner.promql import with_summary

__all__ = ["FOLDER_UID", "GROUP_INTERVAL_SECONDS", "alert_groups", "alert_rules"]

FOLDER_UID = "flowverdict"

GROUP_INTERVAL_SECONDS = 10
"""Grafana's shortest evaluation interval; its default of a minute would delay verdicts."""

_FILES = ("verdicts.yaml", "pipeline.yaml")
_FOR_PEOPLE = ("critical", "warning")
_VERDICTS = ("FlowverdictVerdict", "FlowverdictWarning")
_WITH_LAST_SUMMARY = with_summary(
    "timestamp(flowverdict_incident_info)"
    " or max_over_time(timestamp(flowverdict_incident_info)[1h:15s])"
)
"""As a label it is part of the alert, which must not change while the exporter is away. The first
half is for an incident younger than the subquery's step.
"""


def alert_rules(paused: bool, prometheus_uid: str) -> list[dict[str, Any]]:
    """The rules in the form that Grafana's provisioning API expects.

    Args:
        paused: whether they start paused.
        prometheus_uid: the data source that they query.
    """
    return [
        _grafana_rule(group, rule, paused, prometheus_uid) for group, rule in _prometheus_rules()
    ]


def alert_groups() -> list[str]:
    """The names of the groups that the rules are in."""
    return list(dict.fromkeys(group for group, _ in _prometheus_rules()))


def _prometheus_rules() -> Iterator[tuple[str, dict[str, Any]]]:
    folder = files("flowverdict_provisioner") / "rules"
    for name in _FILES:
        for group in yaml.safe_load((folder / name).read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule and rule["labels"]["severity"] in _FOR_PEOPLE:
                    yield group["name"], rule


def _grafana_rule(
    group: str, rule: dict[str, Any], paused: bool, prometheus_uid: str
) -> dict[str, Any]:
    name, expression, annotations = rule["alert"], rule["expr"], rule["annotations"]
    if name in _VERDICTS:
        # The Prometheus template queries for the verdict's summary; Grafana's templates cannot.
        expression = f"({expression}) {_WITH_LAST_SUMMARY}"
        annotations = {**annotations, "summary": "{{ $labels.summary }}"}
    query = {"refId": "A", "expr": expression, "instant": True, "range": False}
    # A Prometheus rule fires for every series of its result, whatever its value.
    has_value = {"refId": "B", "type": "math", "expression": "is_number($A)"}
    recent = {"from": 600, "to": 0}
    return {
        "uid": f"flowverdict-{name.removeprefix('Flowverdict').lower()}",
        "title": name,
        "folderUID": FOLDER_UID,
        "ruleGroup": group,
        "condition": "B",
        "data": [
            {
                "refId": "A",
                "datasourceUid": prometheus_uid,
                "relativeTimeRange": recent,
                "model": query,
            },
            {
                "refId": "B",
                "datasourceUid": "__expr__",
                "relativeTimeRange": recent,
                "model": has_value,
            },
        ],
        "for": rule.get("for", "0s"),
        **({"keep_firing_for": rule["keep_firing_for"]} if "keep_firing_for" in rule else {}),
        "noDataState": "OK",
        "execErrState": "Error",
        "isPaused": paused,
        "labels": rule["labels"],
        "annotations": {
            key: " ".join(text.split()).replace("$value", "$values.A.Value")
            for key, text in annotations.items()
        },
    }
