"""The dashboards' models: nothing that an operator would stumble over."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.dashboard import Dashboard

from flowverdict_contracts.signals import PAIR_LABELS, SIGNALS
from flowverdict_provisioner.board import Board, Panel
from flowverdict_provisioner.boards import BOARDS
from flowverdict_provisioner.dashboard_json import build
from flowverdict_provisioner.promql import CAUSE_LINK, with_board

MODELS = {board.uid: build(board) for board in BOARDS}
every_board = pytest.mark.parametrize("board", BOARDS, ids=lambda board: str(board.title))


def panels() -> Iterator[tuple[Board, Panel]]:
    for board in BOARDS:
        for panel in board.panels:
            yield board, panel


every_panel = pytest.mark.parametrize(
    ("board", "panel"), list(panels()), ids=lambda each: str(each.title).replace(" ", "-")
)


def drawn(uid: str) -> list[dict[str, Any]]:
    return [each for each in MODELS[uid]["panels"] if each["type"] != "row"]


def coloured_by_threshold(panel: Panel) -> bool:
    return panel.red_above_fail_ratio or any(each.red_above_fail_ratio for each in panel.columns)


@every_panel
def test_a_panel_has_a_unit_a_description_and_says_what_empty_means(
    board: Board, panel: Panel
) -> None:
    model = next(
        each
        for each in drawn(board.uid)
        if (each["title"], each["description"]) == (panel.title, panel.description)
    )
    assert model["fieldConfig"]["defaults"]["unit"] == panel.unit != ""
    assert model["fieldConfig"]["defaults"]["noValue"] == panel.empty != ""
    assert panel.description.endswith((".", "?"))
    refs = [each["refId"] for each in model["targets"]]
    if coloured_by_threshold(panel):
        assert refs.pop() == "threshold"
        config = model["transformations"][0]
        assert (config["id"], config["options"]["configRefId"]) == ("configFromData", "threshold")
    assert refs == sorted({q.ref for q in panel.queries}) or (panel.kind == "nodegraph")
    if panel.kind == "table":
        assert panel.columns
    if panel.kind == "timeseries":
        assert model["options"]["legend"]["showLegend"] is True
        assert model["options"]["tooltip"]["mode"] == "multi"
    if panel.kind == "nodegraph":
        numbers = {each["options"]["binary"]["left"] for each in model["transformations"]}
        assert numbers == {f"Value #{query.ref}" for query in panel.queries}


@every_board
def test_panels_stand_side_by_side_and_never_on_each_other(board: Board) -> None:
    taken: set[tuple[int, int]] = set()
    for panel in MODELS[board.uid]["panels"]:
        at = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(at["x"], at["x"] + at["w"])
            for y in range(at["y"], at["y"] + at["h"])
        }
        assert at["x"] + at["w"] <= 24
        assert not taken & cells, panel["title"]
        taken |= cells
    ids = [panel["id"] for panel in MODELS[board.uid]["panels"]]
    assert len(set(ids)) == len(ids)


@every_board
def test_a_query_uses_no_variable_that_the_dashboard_does_not_have(board: Board) -> None:
    names = {each["name"] for each in MODELS[board.uid]["templating"]["list"]}
    for panel in board.panels:
        for query in panel.queries:
            used = set(re.findall(r"\$(\w+)", query.expr)) - {"1", "__rate_interval", "__range"}
            assert used <= names, (panel.title, used - names)


def test_links_lead_to_dashboards_and_variables_that_exist() -> None:
    text = str(MODELS)
    links = re.findall(r"/d/([\w-]+)\?([^'\"]*)", text)
    assert links
    for uid, query in links:
        names = {each["name"] for each in MODELS[uid]["templating"]["list"]}
        assert set(re.findall(r"var-(\w+)=", query)) <= names


@every_board
def test_a_link_from_a_row_finds_what_it_needs_in_the_table_though_it_may_be_hidden(
    board: Board,
) -> None:
    for panel, model in zip(board.panels, drawn(board.uid), strict=True):
        asked = set(re.findall(r"__data\.fields\.(\w+)", str(model["fieldConfig"]["overrides"])))
        kept = [
            name
            for each in model.get("transformations", ())
            if each["id"] == "filterFieldsByName"
            for name in each["options"]["include"]["names"]
        ]
        assert asked <= set(kept), panel.title
        hidden = {
            each["matcher"]["options"]
            for each in model["fieldConfig"]["overrides"]
            if {"id": "custom.hidden", "value": True} in each["properties"]
        }
        assert asked - {column.name for column in panel.columns} == hidden, panel.title
        for query in panel.queries:
            # The recording rule has every label of a pair, unless it is summed.
            labels = query.expr if " by (" in query.expr else " ".join(("cluster", *PAIR_LABELS))
            assert all(name in labels for name in asked), panel.title


def test_the_link_of_a_verdict_leads_to_the_dashboard_of_its_kind_of_cause() -> None:
    """`board` is the end of a dashboard's uid, and each has the variable that says which it is."""
    uid = CAUSE_LINK.uid.replace("${__data.fields.board}", "")
    kinds = re.search(r'"cause_kind", "\((.*)\)"', with_board("x"))
    assert kinds
    for kind in (*kinds[1].split("|"), "incident"):
        names = {each["name"] for each in MODELS[f"{uid}{kind}"]["templating"]["list"]}
        for name in ("source", "destination") if kind == "link" else (kind,):
            assert name in names
            assert name in CAUSE_LINK.variables


def test_a_state_timeline_names_and_colours_what_it_shows() -> None:
    (incidents,) = [each for _, each in panels() if each.kind == "state-timeline"]
    (model,) = [e for e in drawn("flowverdict-verdicts") if e["type"] == "state-timeline"]
    (mapping,) = model["fieldConfig"]["defaults"]["mappings"]
    assert {value: (each["text"], each["color"]) for value, each in mapping["options"].items()} == {
        str(state.value): (state.name, state.color) for state in incidents.states
    }


def test_nothing_counts_as_zero_when_nobody_knows() -> None:
    for board, panel in panels():
        for query in panel.queries:
            assert "vector(0)" not in query.expr, (board.title, panel.title)


def test_dashboards_are_linked_with_each_other_and_show_verdicts_on_their_graphs() -> None:
    for board in BOARDS:
        model = MODELS[board.uid]
        assert [link["type"] for link in model["links"]] == ["dashboards"]
        # What one dashboard has all of, another may have one of: no variables along.
        assert not model["links"][0]["includeVars"]
        assert model["tags"] == ["flowverdict"]
        if "prometheus" in board.stores:
            assert "Verdicts" in [each["name"] for each in model["annotations"]["list"]]


def test_every_signal_has_a_panel() -> None:
    shown = " ".join(q.expr for _, panel in panels() for q in panel.queries)
    for signal in SIGNALS:
        assert (signal.sender_metric or signal.metric) in shown


def test_flux_asks_only_for_fields_and_tags_that_are_written() -> None:
    written = {"summary", "_value", "_time", "_field", "_measurement", "status"}
    for signal in SIGNALS:
        reading = {f"{signal.field}_sum", f"{signal.field}_samples"}
        written |= {signal.field} if signal.kind == "counter" else reading
    for board, panel in panels():
        for choice in board.choices:
            assert "influxdb" not in board.stores or {*choice.values.values()} <= {*PAIR_LABELS}
        for query in panel.queries:
            if panel.store != "influxdb":
                continue
            assert "prometheus" not in board.stores
            assert re.search(
                r"^from\(bucket: .*\bv\.defaultBucket\)\n  \|> range\(", query.expr, re.MULTILINE
            )
            for opening, closing in ("()", "[]", "{}"):
                assert query.expr.count(opening) == query.expr.count(closing)
            assert query.expr.count('"') % 2 == 0
            assert set(re.findall(r"\br\.(\w+)", query.expr)) <= written
            assert set(re.findall(r'_field == "(\w+)"', query.expr)) <= written


@every_board
def test_the_model_is_what_the_sdks_own_reader_reads(board: Board) -> None:
    model = MODELS[board.uid]
    read = json.loads(JSONEncoder(sort_keys=True).encode(Dashboard.from_json(model)))
    for panel, again in zip(model["panels"], read["panels"], strict=True):
        for key in ("id", "type", "title", "description", "gridPos", "fieldConfig", "options"):
            assert again.get(key) == panel.get(key), (panel["title"], key)
    for key in ("uid", "title", "tags", "time", "refresh", "templating", "annotations", "links"):
        assert read.get(key) == model.get(key), key
