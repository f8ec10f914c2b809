"""The dashboard *History*: its queries, run by a real InfluxDB on what the writer writes."""

import time
from collections.abc import Iterator
from typing import Any

import pytest
from influxdb_client.client.write_api import SYNCHRONOUS

from conftest import a_verdict, enriched_batch, flow_row, load_program
from flowverdict_contracts.addresses import ENDS
from flowverdict_influx_writer.points import FlowPoints, summed, verdict_point
from flowverdict_provisioner.board import Panel
from flowverdict_provisioner.boards.history import HISTORY
from tests.real_influxdb import PROGRAM, InfluxDB, from_grafana
from tests.skips import needs_influxdb

pytestmark = needs_influxdb
NAMES = {"zone": "z1", "labels": "team=a"}
PANELS = {panel.title: panel for panel in HISTORY.panels}


@pytest.fixture(scope="module")
def five_minutes_end() -> float:
    """When the last five minutes ended that the task sums: not at the start of a long run of all
    tests, of which the panels would no longer show anything.
    """
    return time.time() // 300 * 300


@pytest.fixture(scope="module")
def influxdb(
    tmp_path_factory: pytest.TempPathFactory, five_minutes_end: float
) -> Iterator[InfluxDB]:
    """Ten seconds of two flows, one of which retransmits, and a verdict, some minutes ago."""
    folder = tmp_path_factory.mktemp("history")
    with InfluxDB(folder) as database:
        assert database.set_up(folder).returncode == 0
        names = {f"{end}_{name}": value for end in ENDS for name, value in NAMES.items()}
        rows = [
            names
            | flow_row("pod-a@n1", "pod-b@n1", retransmitted_segments=5, rtt_us=700, bytes_sent=9),
            names | flow_row("pod-b@n1", "pod-a@n1", rtt_us=700, bytes_sent=9),
        ]
        points, now = FlowPoints(), five_minutes_end - 60
        counted = [points.rows(enriched_batch(*rows))] * 10
        lines = points.lines("n1", int(now * 10**9), summed(counted))
        lines.append(verdict_point(a_verdict(second=int(now))))
        with database.client() as client, client.write_api(SYNCHRONOUS) as api:
            api.write("flowverdict", record="".join(lines))
        yield database


@pytest.mark.parametrize("title", PANELS)
def test_every_panel_has_something_to_show(influxdb: InfluxDB, title: str) -> None:
    panel: Panel = PANELS[title]
    token = (influxdb.folder / "influxdb-read-token").read_text()
    for query in panel.queries:
        rows = influxdb.query(from_grafana(query.expr), token)
        assert rows
        wanted = {column.name for column in panel.columns} or {"_time", "_value"}
        assert wanted <= set(rows[0])


def test_the_panels_show_what_was_written(influxdb: InfluxDB) -> None:
    def values(title: str, by: str = "src_node") -> list[dict[str, object]]:
        (query,) = PANELS[title].queries
        return influxdb.query(from_grafana(query.expr, by=by))

    for by, value in (("src_node", "n1"), ("src_zone", "z1"), ("src_labels", "team=a")):
        ratios = {row[by]: row["_value"] for row in values("Retransmission ratio", by)}
        assert ratios == {value: pytest.approx(0.025)}
    of_all = values("Retransmission ratio", "src_workload")  # which nobody has
    assert of_all == [row | {"_value": pytest.approx(0.025)} for row in of_all]
    worst = values("Pairs with the most retransmissions")
    assert [(row["src_pod"], row["_value"]) for row in worst] == [("pod-a", 50), ("pod-b", 0)]
    (verdict,) = values("Verdicts")
    assert verdict["_value"] == a_verdict().summary


def test_more_than_an_hour_is_shown_from_sums_of_five_minutes_that_influxdb_makes(
    influxdb: InfluxDB, five_minutes_end: float
) -> None:
    """They are the same: what Grafana asks for is asked of either."""
    (query,) = PANELS["Retransmission ratio"].queries
    influxdb.run_task(load_program(PROGRAM).TASK, five_minutes_end)
    token = (influxdb.folder / "influxdb-read-token").read_text()

    def shown() -> list[dict[str, Any]]:
        return influxdb.query(from_grafana(query.expr, 24, "10m", "src_node"), token)

    deadline = time.monotonic() + 30
    while not (rows := shown()) and time.monotonic() < deadline:
        time.sleep(0.2)
    assert {row["src_node"]: row["_value"] for row in rows} == {"n1": pytest.approx(0.025)}
