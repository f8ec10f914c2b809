"""What is specific to each kind of panel, and the targets of links."""

import re
from collections.abc import Callable, Iterator, Sequence
from typing import Any
from urllib.parse import quote

from grafana_foundation_sdk.builders import heatmap
from grafana_foundation_sdk.builders.common import (
    GraphThresholdsStyleConfig,
    ReduceDataOptions,
    StackingConfig,
    TableFooterOptions,
    TableSortByFieldState,
    VizLegendOptions,
    VizTooltipOptions,
)
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

from flowverdict_provisioner.board import Column, Link, Panel

__all__ = ["FAIL_RATIO_REF", "dashboard_url", "drawn"]

_HIDDEN = (
    models.DynamicConfigValue(id_val="custom.hidden", value=True),  # until Grafana 12.1
    models.DynamicConfigValue(
        id_val="custom.hideFrom", value={"viz": True, "legend": False, "tooltip": False}
    ),
)

FAIL_RATIO_REF = "threshold"
"""The ref id of the query for the current threshold, and the name of its field."""


def drawn(panel: Panel, built: Any) -> Any:
    """The SDK's panel builder, completed with what is specific to the panel's kind."""
    if panel.compares_with_fail_ratio:
        built = built.with_transformation(_red_above_fail_ratio())
    return _KINDS[panel.kind](panel, built) if panel.kind in _KINDS else built


def dashboard_url(link: Link) -> str:
    """The URL of a dashboard within Grafana that sets its variables and the time range.

    What a table says of no cluster has none: the variable is then empty, and selects just that. For
    `time`, see "Control the time range using a URL" in Grafana's documentation.
    """
    when = f"time=${{__value.raw}}&time.window={link.hours_around * 3_600_000}"
    cluster = "" if "cluster" in link.variables else "&${cluster:queryparam}"
    pairs = "".join(f"&var-{name}={quote(v, safe='${}._')}" for name, v in link.variables.items())
    return f"/d/{link.uid}?{when if link.hours_around else '${__url_time_range}'}{cluster}{pairs}"


def _red_above_fail_ratio() -> models.DataTransformerConfig:
    """Grafana's *Config from query results*: a red step at the value of the threshold's query.

    See public/app/features/transformers/fieldToConfigMapping in Grafana's source.
    """
    red = {"threshold": {"color": "red"}}
    mapping = {
        "fieldName": FAIL_RATIO_REF,
        "handlerKey": "threshold1",
        "handlerArguments": red,
        "reducerId": "lastNotNull",
    }
    options = {"configRefId": FAIL_RATIO_REF, "mappings": [mapping]}
    return _transformation("configFromData", options)


def _stat(_: Panel, built: Any) -> Any:
    return built.reduce_options(ReduceDataOptions().calcs(["lastNotNull"]))


def _timeseries(panel: Panel, built: Any) -> Any:
    built = built.fill_opacity(10).line_width(1).show_points(common.VisibilityMode.NEVER)
    legend = VizLegendOptions().show_legend(True).display_mode(common.LegendDisplayMode.LIST)
    built = built.legend(legend.placement(common.LegendPlacement.BOTTOM).calcs([]))
    tooltip = VizTooltipOptions().mode(common.TooltipDisplayMode.MULTI)
    built = built.tooltip(tooltip.sort(common.SortOrder.DESCENDING))
    if panel.thresholds or panel.red_above_fail_ratio:
        dashed = GraphThresholdsStyleConfig().mode(common.GraphThresholdsStyleMode.DASHED)
        built = built.thresholds_style(dashed)
    if panel.stacked:
        built = built.stacking(StackingConfig().mode(common.StackingMode.NORMAL))
    return built


def _table(panel: Panel, built: Any) -> Any:
    built = built.footer(TableFooterOptions().show(False)).sort_by(
        [
            TableSortByFieldState().display_name(column.title).desc(True)
            for column in panel.columns
            if column.highest_first
        ]
    )
    names = [column.name for column in panel.columns]
    hidden = sorted(_fields_of_links(panel.columns) - {*names})
    if len(panel.queries) > 1:
        built = built.with_transformation(_transformation("merge", {}))
    built = built.with_transformation(
        _transformation("filterFieldsByName", {"include": {"names": [*names, *hidden]}})
    )
    organized = {
        "indexByName": {name: position for position, name in enumerate(names)},
        "renameByName": {column.name: column.title for column in panel.columns},
    }
    built = built.with_transformation(_transformation("organize", organized))
    for column in panel.columns:
        built = built.override_by_name(column.title, list(_column_properties(column)))
    for name in hidden:
        built = built.override_by_name(name, list(_HIDDEN))
    return built


def _fields_of_links(columns: Sequence[Column]) -> set[str]:
    """The fields that are part of a link: a link sees none that the table does not have."""
    links = (column.link for column in columns if column.link is not None)
    texts = (text for link in links for text in (link.uid, *link.variables.values()))
    return {name for text in texts for name in re.findall(r"__data\.fields\.(\w+)", text)}


def _matrix(panel: Panel, built: Any) -> Any:
    fields = {"rowField": panel.rows_by, "columnField": panel.columns_by, "valueField": "Value"}
    return built.with_transformation(
        _transformation("groupingToMatrix", fields | {"emptyValue": "null"})
    ).cell_options(common.TableColoredBackgroundCellOptions())


def _node_graph(panel: Panel, built: Any) -> Any:
    # The panel expects this field name; with several queries, Grafana names fields by ref id.
    for query in panel.queries:
        named = {
            "mode": "binary",
            "alias": "mainstat",
            "binary": {"left": f"Value #{query.ref}", "operator": "*", "right": "1"},
        }
        built = built.with_transformation(_transformation("calculateField", named))
    return built


def _heatmap(panel: Panel, built: Any) -> Any:
    return built.calculate(False).y_axis(heatmap.YAxisConfig().unit(panel.unit))


def _state_timeline(panel: Panel, built: Any) -> Any:
    results = {
        str(each.value): models.ValueMappingResult(text=each.name, color=each.color, index=at)
        for at, each in enumerate(panel.states)
    }
    return built.mappings([models.ValueMap(options=results)]).merge_values(True)


_KINDS: dict[str, Callable[[Panel, Any], Any]] = {
    "stat": _stat,
    "timeseries": _timeseries,
    "table": _table,
    "matrix": _matrix,
    "nodegraph": _node_graph,
    "heatmap": _heatmap,
    "state-timeline": _state_timeline,
}


def _transformation(name: str, options: dict[str, Any]) -> models.DataTransformerConfig:
    return models.DataTransformerConfig(id_val=name, options=options)


def _column_properties(column: Column) -> Iterator[models.DynamicConfigValue]:
    if column.unit:
        yield models.DynamicConfigValue(id_val="unit", value=column.unit)
    if column.link is not None:
        link = {"title": column.link.title, "url": dashboard_url(column.link)}
        yield models.DynamicConfigValue(id_val="links", value=[link])
    if column.red_above_fail_ratio:
        yield models.DynamicConfigValue(id_val="color", value={"mode": "thresholds"})
        yield models.DynamicConfigValue(
            id_val="custom.cellOptions", value={"type": "color-background"}
        )
