"""What boards, rules and readers show of several clusters in one store, whose pods and incidents
are called the same.
"""

from collections.abc import Iterator
from typing import Any

import pytest

from conftest import eventually
from flowverdict_provisioner.board import Board
from flowverdict_provisioner.boards import BOARDS
from flowverdict_provisioner.dashboard_json import build
from tests.real_prometheus import Series, needs_prometheus, query, running, store

INCIDENT = "0123456789abcdef"
CAUSE = {
    "incident_id": INCIDENT,
    "cause_kind": "pod",
    "cause_namespace": "shop",
    "cause_name": "cart-0",
    "cause_node": "worker1",
    "direction": "both",
    "cause_addresses": "",
}
FLOW = {
    f"{end}_{name}": value
    for end, pod, node, ip in (("src", "cart-0", "worker1", "7"), ("dst", "web-0", "worker0", "3"))
    for name, value in {
        "namespace": "shop",
        "pod": pod,
        "workload": pod.removesuffix("-0"),
        "node": node,
        "ip": f"10.244.0.{ip}",
        "zone": "",
    }.items()
}
RULE = {"incident_id": INCIDENT, "antecedents": "src_pod=shop/cart-0", "consequents": "FAIL"}
CLUSTERS = {"eu-1": 1, "us-1": 3}
"""What each of them measures differs by this factor."""


def series() -> Iterator[Series]:
    """What one cluster exports."""
    for name in ("active", "critical"):
        yield f"flowverdict_incident_{name}", CAUSE if name == "active" else one("incident_id"), 1
    for name, value in {
        "stale": 0.0,
        "score": 0.3,
        "explains_ratio": 0.2,
        "failing_flows": 5.0,
        "opened_timestamp_seconds": 1_700_000_000.0,
    }.items():
        yield f"flowverdict_incident_{name}", one("incident_id"), value
    yield "flowverdict_resolved_incident_timestamp_seconds", CAUSE, 1_700_000_900.0
    for name, value in {"opened_timestamp_seconds": 1_700_000_000.0, "score": 0.3,
                        "failing_flows": 5.0}.items():  # fmt: skip
        yield f"flowverdict_resolved_incident_{name}", one("incident_id"), value
    behind = {"service_namespace": "shop", "service_name": "web", "ip": FLOW["dst_ip"]}
    yield "flowverdict_service_address_info", behind, 1
    for name in ("opens", "failed_opens"):
        yield f"pair:tcp_{name}:rate2m", FLOW, 2
    yield "flowverdict_incident_info", {**one("incident_id"), "summary": "It loses segments."}, 1
    explains = {"by": "src_pod", "src_namespace": "shop", "src_pod": "cart-0"}
    yield "flowverdict_incident_explains", {**one("incident_id"), **explains}, 1
    for measure in ("support", "confidence", "lift"):
        yield f"flowverdict_incident_rule_{measure}", RULE, 0.3
    yield "pair:tcp_retransmission_ratio:rate2m", FLOW, 0.1
    yield "pair:tcp_retransmitted_data_segments:rate2m", FLOW, 10
    yield "pair:tcp_data_segments_sent:rate2m", FLOW, 100
    yield "flowverdict_exporter_pairs", {}, 1


def one(name: str) -> dict[str, str]:
    return {name: CAUSE[name]}


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A Prometheus with ten minutes of both clusters, as remote write would have brought them."""
    folder = tmp_path_factory.mktemp("store")
    store(
        folder,
        (
            (metric, {**labels, "cluster": cluster}, value * factor)
            for metric, labels, value in series()
            for cluster, factor in CLUSTERS.items()
        ),
    )
    with running(folder, {}) as url:
        yield url


Rows = dict[frozenset[tuple[str, str]], str]


def rows(url: str, promql: str) -> Rows:
    found = query(url, promql)
    return {frozenset(each["metric"].items()): each["value"][1] for each in found}


def asked(board: Board, expression: str, cluster: str) -> str:
    chosen = {
        "namespace": "shop", "pod": "cart-0", "workload": "cart", "node": "worker1",
        "service": "web", "source": FLOW["src_ip"], "destination": FLOW["dst_ip"],
    }  # fmt: skip
    is_single = {each.name: not each.several for each in board.variables}
    is_single |= dict.fromkeys(board.inputs, True)
    values = {name: value if is_single.get(name) else ".*" for name, value in chosen.items()}
    values |= {"cluster": cluster, "incident": INCIDENT, "__range": "5m", "__rate_interval": "1m"}
    for name, value in values.items():
        expression = expression.replace(f"${name}", value)
    return expression


@needs_prometheus
async def test_what_is_called_the_same_in_two_clusters_is_two_rows_of_a_board(
    prometheus: str,
) -> None:
    await eventually(lambda: bool(query(prometheus, "flowverdict_exporter_pairs")))
    seen = set()
    for board in BOARDS:
        shown = [
            (panel.title, each.expr)
            for panel in board.panels
            if panel.kind in ("table", "state-timeline")
            for each in panel.queries
            if panel.store == "prometheus"
        ]
        shown += [
            (each["name"], each["expr"])
            for each in build(board).get("annotations", {}).get("list", ())
            if "expr" in each
        ]
        for title, expression in shown:
            each = {name: rows(prometheus, asked(board, expression, name)) for name in CLUSTERS}
            both = rows(prometheus, asked(board, expression, ".*"))
            assert both == each["eu-1"] | each["us-1"], (board.title, title)
            seen |= {title} if both else set()
            assert len(both) == 2 * len(each["eu-1"]), (board.title, title)
    assert seen >= {"Open now", "Resolved", "Incidents", "Cause", "Top pairs", "Both ways",
                    "Its pods", "Its callers",
                    "Flows that it explains", "Rules behind the open verdicts"}  # fmt: skip


def links(model: Any) -> Iterator[str]:
    """The URLs in a dashboard's JSON."""
    if isinstance(model, dict):
        if isinstance(url := model.get("url"), str):
            yield url
        for each in model.values():
            yield from links(each)
    elif isinstance(model, list):
        for each in model:
            yield from links(each)


def test_a_link_from_a_row_leads_to_the_rows_own_cluster() -> None:
    urls = {url for board in BOARDS for url in links(build(board)) if "${__data.fields." in url}
    assert len(urls) > 5
    for url in urls:
        assert url.count("cluster") - url.count("fields.cluster") == 1, url
        if "fields.dst_node" not in url and "fields.dst_workload" not in url:
            assert "var-cluster=${__data.fields.cluster}" in url


def test_a_board_about_one_thing_is_about_one_cluster() -> None:
    for board in BOARDS:
        variables = {each.name: each for each in board.variables}
        is_about_one = bool(board.inputs) or any(
            not each.several for each in variables.values() if each.name != "cluster"
        )
        if "cluster" in variables:
            assert variables["cluster"].several != is_about_one, board.title
