"""The same rows give the same two ratios everywhere that a person or a program reads them."""

import asyncio
import contextlib
import io
import json
import re
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import nats
import pytest
from influxdb_client.client.write_api import SYNCHRONOUS
from nats.aio.client import Client
from nats.js import JetStreamContext
from rich.console import Console, RenderableType

from conftest import enriched_batch, eventually, flow_row
from flowverdict_contracts import enriched, verdicts
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.subjects import RCA_VERDICTS, SUBJECT_ENRICHED
from flowverdict_contracts.verdicts import FailingFlow, Verdict
from flowverdict_flows.ratios import CONNECT_RETRANSMISSION_RATIO, RATIOS, RETRANSMISSION_RATIO
from flowverdict_influx_writer.points import FlowPoints
from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import Pipeline
from flowverdict_provisioner.boards import BOARDS
from flowverdict_provisioner.promql import FAIL_RATIO
from flowverdict_runtime.stored_messages import stored_messages
from flowverdict_tail.overview import Overview
from flowverdict_tail.table import LiveFlows
from tests.real_influxdb import InfluxDB, from_grafana
from tests.real_prometheus import needs_prometheus, query, running
from tests.skips import needs_influxdb
from tests.test_prometheus import POD_B, POD_C, asked, configure

pytestmark = needs_prometheus

COUNTS = {
    "data_segments_sent": 100,
    "retransmitted_segments": 12,
    "retransmitted_syns": 4,
    "retransmitted_synacks": 2,
    "opens": 50,
    "failed_opens": 3,
    "rtt_us": 700,
}
ROW = flow_row("pod-a@w0", "pod-b@w1", **COUNTS)
BATCH = enriched_batch(ROW | {"src_ip": POD_B, "dst_ip": POD_C, "dst_service": "web"})
DATA, CONNECT = 6 / 100, (4 + 2) / (50 + 3)
THRESHOLD = "0.055"


def test_both_ratios_are_what_their_declaration_says() -> None:
    counts = COUNTS | {"retransmitted_data_segments": 6}
    assert RETRANSMISSION_RATIO.of(counts) == pytest.approx(DATA)
    assert CONNECT_RETRANSMISSION_RATIO.of(counts) == pytest.approx(CONNECT)
    nothing = dict.fromkeys(counts, 0)
    assert [ratio.of(nothing) for ratio in RATIOS] == [None, None]


def text_of(shown: RenderableType) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(shown)
    return str(console.file.getvalue())  # type: ignore[attr-defined] # a StringIO


def test_both_tables_of_tail_show_it() -> None:
    table, overview = LiveFlows(), Overview()
    table.add(BATCH)
    overview.add_flows(IntervalHeader("n1", "run", 1, 0, 1), BATCH)
    assert text_of(table.render()).count("6.0%") == 1
    overview_text = text_of(overview.render())
    assert overview_text.count("6.0%") == 2, "the rate of all pairs, and the pair's own"


@needs_influxdb
def test_influxdbs_board_computes_it_from_the_points(tmp_path: Path) -> None:
    points = FlowPoints()
    lines = points.lines("n1", time.time_ns(), points.rows(BATCH))
    with InfluxDB(tmp_path) as influxdb:
        assert influxdb.set_up(tmp_path).returncode == 0
        with influxdb.client() as client, client.write_api(SYNCHRONOUS) as api:
            api.write("flowverdict", record="".join(lines))
        queries = [
            each.expr
            for board in BOARDS
            for panel in board.panels
            if panel.store == "influxdb" and panel.red_above_fail_ratio
            for each in panel.queries
        ]
        assert len(queries) == 1
        for each in queries:
            (row,) = influxdb.query(from_grafana(each))
            assert row["_value"] == pytest.approx(DATA)


@pytest.fixture
def pipeline(tmp_path: Path) -> Iterator[Pipeline]:
    environ = {"FLOWVERDICT_FAIL_RATIO": THRESHOLD}
    inventory = json.dumps({"nodes": [], "pods": []})
    with Pipeline(tmp_path, inventory, collector=False, environ=environ) as running:
        yield running


@pytest.fixture
def prometheus(pipeline: Pipeline, tmp_path: Path) -> Iterator[str]:
    with running(tmp_path, configure(tmp_path, pipeline, free_port())) as url:
        yield url


@contextlib.asynccontextmanager
async def rows_each_second(client: Client) -> AsyncIterator[JetStreamContext]:
    """While inside, the rows are published once a second, as an enricher would."""
    jetstream = client.jetstream()

    async def publish() -> None:
        for sequence in range(1, 1000):
            end = time.time_ns() // 10**9 * 10**9
            header = IntervalHeader("n1", "run", sequence, end - 10**9, end)
            body = enriched.encode(BATCH)
            await jetstream.publish(SUBJECT_ENRICHED, body, headers=header.encode(enriched.SCHEMA))
            await asyncio.sleep(1 - time.time() % 1)

    publishing = asyncio.create_task(publish())
    try:
        yield jetstream
    finally:
        publishing.cancel()


async def first_verdict(jetstream: JetStreamContext) -> Verdict | None:
    async for message in stored_messages(jetstream, RCA_VERDICTS):
        return verdicts.decode(message.data)
    return None


async def test_verdict_report_rules_and_every_panel_give_the_same_numbers(
    pipeline: Pipeline, prometheus: str, tmp_path: Path
) -> None:
    client = await nats.connect(pipeline.nats_url)
    async with rows_each_second(client) as jetstream:
        verdict: Verdict = await eventually(lambda: first_verdict(jetstream), 60)
        (flow,) = verdict.failing_flows
        check_verdict(verdict, flow)
        await check_report(pipeline, tmp_path)
        await check_promql(prometheus, verdict.incident_id)
    await client.close()


def check_verdict(verdict: Verdict, flow: FailingFlow) -> None:
    assert flow.retransmission_ratio == pytest.approx(DATA, abs=1e-4)
    assert flow.connect_retransmission_ratio == pytest.approx(CONNECT, abs=1e-4)
    assert verdict.fail_ratio == float(THRESHOLD)


async def check_report(pipeline: Pipeline, folder: Path) -> None:
    argv = [sys.executable, "-m", "flowverdict_rca", "report", "--nats", pipeline.nats_url]
    argv += ["--out", str(folder / "report.html")]
    await asyncio.to_thread(subprocess.run, argv, check=True, capture_output=True)
    page = (folder / "report.html").read_text()
    (again, sent), *_ = re.findall(r"(\d+) of (\d+) data segments retransmitted", page)
    assert int(again) / int(sent) == pytest.approx(DATA)
    assert "retransmission ratio above\n    5.5%" in page


async def check_promql(url: str, incident: str) -> None:
    def values(promql: str) -> list[float]:
        found = [float(each["value"][1]) for each in query(url, promql)]
        # A pair of addresses that has no other end of this name has no value of its own.
        return [value for value in found if value == value]  # noqa: PLR0124 # not NaN

    rules = {
        "pair:tcp_retransmission_ratio:rate2m": DATA,
        "pair:tcp_connect_retransmission_ratio:rate2m": CONNECT,
    }
    panels = {}
    for board in BOARDS:
        for panel in board.panels:
            if panel.store != "prometheus" or panel.unit != "percentunit":
                continue
            for each in panel.queries:
                promql = asked(board, each.expr, incident, "w0")
                if "tcp_syn_retransmissions_total" in promql:
                    panels[promql] = CONNECT
                elif "retransmi" in promql and "0 *" not in promql:
                    panels[promql] = DATA
    # What is sent to pod-a and its node, and by the service, which is nothing, has no ratio.
    to_them = ('dst_pod="pod-a"}', 'dst_node="w0"', '"src_ip", "$1", "ip"')
    panels = {
        each: ratio for each, ratio in panels.items() if not any(to in each for to in to_them)
    }
    assert len(panels) >= 14
    for promql, ratio in {**rules, **panels}.items():
        try:
            found = await eventually(lambda promql=promql: values(promql), 60)
        except AssertionError:
            raise AssertionError(f"empty: {promql}") from None
        assert found == pytest.approx([ratio] * len(found)), promql
    assert values(asked(BOARDS[0], FAIL_RATIO)) == [float(THRESHOLD)]
    above = "pair:tcp_retransmission_ratio:rate2m > on (cluster) group_left () "
    assert values(f"{above} max by (cluster) (flowverdict_fail_ratio)")
