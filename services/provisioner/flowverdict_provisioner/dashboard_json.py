"""Converts declared dashboards to Grafana's JSON, with grafana-foundation-sdk."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from grafana_foundation_sdk.builders import (
    dashboard,
    heatmap,
    nodegraph,
    prometheus,
    stat,
    statetimeline,
    table,
    timeseries,
)
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.variants import Dataquery
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from flowverdict_provisioner.board import Board, Choice, Link, Panel, Query, Store, Variable
from flowverdict_provisioner.panel_kinds import FAIL_RATIO_REF, dashboard_url, drawn
from flowverdict_provisioner.promql import CLUSTER, FAIL_RATIO, WITH_SUMMARY
from flowverdict_provisioner.settings import PodLink

__all__ = ["TAG", "build"]

TAG = "flowverdict"
_SOURCE = {
    "prometheus": common.DataSourceRef(type_val="prometheus", uid="${datasource}"),
    "influxdb": common.DataSourceRef(type_val="influxdb", uid="${influxdb}"),
}
_BUILDERS: dict[str, Any] = {
    "stat": stat.Panel,
    "timeseries": timeseries.Panel,
    "table": table.Panel,
    "matrix": table.Panel,
    "heatmap": heatmap.Panel,
    "nodegraph": nodegraph.Panel,
    "state-timeline": statetimeline.Panel,
}
_INSTANT = ("stat", "table", "matrix", "nodegraph")


class _Flux(Dataquery):
    """An InfluxDB query; the SDK has no type for it."""

    def __init__(self, query: Query) -> None:
        self._query = query

    def to_json(self) -> dict[str, object]:
        return {"refId": self._query.ref, "query": self._query.expr}

    def build(self) -> "_Flux":
        return self


def build(
    board: Board,
    sources: Mapping[str, tuple[str, str]] | None = None,
    pod_links: Sequence[PodLink] = (),
) -> dict[str, Any]:
    """The dashboard's JSON model, as Grafana's API and its file provisioning accept it.

    `sources` has the uid and name of the data source to preselect for each kind; without it,
    Grafana's default of that kind is selected. `pod_links` are added to a dashboard of one pod.
    """
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags([TAG])
        .editable()
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .time(board.since, "now")
        .refresh(board.refresh)
        .timezone("browser")
        .link(
            dashboard.DashboardLink("Flowverdict")
            .type(models.DashboardLinkType.DASHBOARDS)
            .tags([TAG])
            .keep_time(True)
        )
    )
    for each in pod_links if board.is_of_one_pod else ():
        link = dashboard.DashboardLink(each.title).type(models.DashboardLinkType.LINK)
        built = built.link(link.url(each.url).keep_time(True).target_blank(True))
    for store in board.stores:
        built = built.with_variable(_source_variable(store, (sources or {}).get(store)))
    for variable in board.variables:
        built = built.with_variable(_variable(variable))
    for choice in board.choices:
        built = built.with_variable(_choice(choice))
    for name in board.inputs:
        typed = dashboard.TextBoxVariable(name).label(name.capitalize()).default_value("")
        built = built.with_variable(typed)
    if "prometheus" in board.stores:
        built = built.annotation(_verdict_annotation())
    for row in board.rows:
        built = built.with_row(dashboard.Row(row.title))
        for panel in row.panels:
            built = built.with_panel(_panel(panel))
    model: dict[str, Any] = json.loads(JSONEncoder(sort_keys=True).encode(built.build()))
    for number, panel in enumerate(model["panels"], 1):
        panel["id"] = number
    return model


def _source_variable(store: Store, current: tuple[str, str] | None) -> dashboard.DatasourceVariable:
    name = "datasource" if store == "prometheus" else "influxdb"
    label = {"prometheus": "Prometheus", "influxdb": "InfluxDB"}[store]
    built = dashboard.DatasourceVariable(name).label(label).type(store)
    if current is None:
        return built
    uid, text = current
    return built.current(models.VariableOption(selected=True, text=text, value=uid))


def _variable(variable: Variable) -> dashboard.QueryVariable:
    series = f"{variable.metric}{{{variable.given}}}" if variable.given else variable.metric
    query = f"label_values({series}, {variable.label})"
    built = (
        dashboard.QueryVariable(variable.name)
        .label(variable.name.capitalize())
        .datasource(_SOURCE["prometheus"])
        .query({"query": query, "refId": "variable"})
        .definition(query)
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(variable.several)
    )
    if variable.several:
        # Also matches series without the label: a single cluster has no cluster label.
        everything = models.VariableOption(selected=True, text="All", value="$__all")
        built = built.include_all(True).all_value(".*").current(everything)
    return built


def _choice(choice: Choice) -> dashboard.CustomVariable:
    options = [
        models.VariableOption(selected=not number, text=text, value=value)
        for number, (text, value) in enumerate(choice.values.items())
    ]
    return (
        dashboard.CustomVariable(choice.name)
        .label(choice.title)
        .values(", ".join(f"{text} : {value}" for text, value in choice.values.items()))
        .options(options)
        .current(options[0])
    )


def _verdict_annotation() -> dashboard.AnnotationQuery:
    opened = (
        "1000 * max by (cluster, incident_id)"
        f" (flowverdict_incident_opened_timestamp_seconds{{{CLUSTER}}})"
        " * on (cluster, incident_id) group_right ()"
        " max by (cluster, incident_id, cause_kind, cause_name)"
        f" (flowverdict_incident_active{{{CLUSTER}}}) {WITH_SUMMARY}"
    )
    return (
        dashboard.AnnotationQuery()
        .name("Verdicts")
        .datasource(_SOURCE["prometheus"])
        .enable(True)
        .icon_color("red")
        .expr(opened)
        .step("10s")
        .use_value_for_time(True)
        .title_format("{{cause_kind}} {{cause_name}}")
        .text_format("{{summary}}")
    )


def _panel(panel: Panel) -> Any:
    built = (
        _BUILDERS[panel.kind]()
        .title(panel.title)
        .description(panel.description)
        .datasource(_SOURCE[panel.store])
        .unit(panel.unit)
        .no_value(panel.empty)
        .span(panel.width)
        .height(panel.height)
    )
    for query in panel.queries:
        built = built.with_target(_target(panel, query))
    if panel.compares_with_fail_ratio:
        built = built.with_target(_fail_ratio_target(panel.store))
    if panel.thresholds:
        steps = [models.Threshold(value=each.value, color=each.color) for each in panel.thresholds]
        steps[0].value = None
        built = built.thresholds(
            dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)
        )
    if panel.link is not None:
        built = built.data_links([_data_link(panel.link)])
    if panel.maximum is not None:
        built = built.min(0).max(panel.maximum)
    return drawn(panel, built)


def _target(panel: Panel, query: Query) -> Any:
    if panel.store == "influxdb":
        return _Flux(query)
    built = prometheus.Dataquery().expr(query.expr).ref_id(query.ref)
    if query.legend:
        built = built.legend_format(query.legend)
    if panel.kind in ("table", "matrix", "nodegraph"):
        built = built.format(PromQueryFormat.TABLE)
    if panel.kind == "heatmap":
        built = built.format(PromQueryFormat.HEATMAP)
    return built.instant() if panel.kind in _INSTANT else built.range()


# The threshold in the last verdict in InfluxDB; empty before the first verdict.
_FLUX_FAIL_RATIO = f"""from(bucket: v.defaultBucket)
  |> range(start: -30d)
  |> filter(fn: (r) => r._measurement == "verdict" and r._field == "fail_ratio")
  |> group()
  |> last()
  |> keep(columns: ["_time", "_value"])
  |> rename(columns: {{_value: "{FAIL_RATIO_REF}"}})"""


def _fail_ratio_target(store: Store) -> Any:
    if store == "influxdb":
        return _Flux(Query(_FLUX_FAIL_RATIO, ref=FAIL_RATIO_REF))
    built = prometheus.Dataquery().expr(FAIL_RATIO).ref_id(FAIL_RATIO_REF)
    return built.legend_format(FAIL_RATIO_REF).instant()


def _data_link(link: Link) -> dashboard.DashboardLink:
    return (
        dashboard.DashboardLink(link.title)
        .type(models.DashboardLinkType.LINK)
        .url(dashboard_url(link))
    )
