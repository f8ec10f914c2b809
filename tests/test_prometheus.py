"""The seed's queries in a real Prometheus, and its offline analysis."""

import contextlib
import json
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import nats
import pytest

from conftest import NATS_THAT_TELLS, a_verdict, eventually
from flowverdict_contracts import verdicts
from flowverdict_contracts.subjects import SUBJECT_VERDICTS
from flowverdict_lab.cluster import make_cluster
from flowverdict_lab.faults import parse_fault
from flowverdict_lab.free_port import free_port
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import HTTP_PORT, Network
from flowverdict_lab.pipeline import Pipeline, start_process, stop_process
from flowverdict_provisioner.alerts import alert_rules
from flowverdict_provisioner.board import Board
from flowverdict_provisioner.boards import BOARDS
from flowverdict_provisioner.dashboard_json import build
from tests.dns_traffic import look_up, serve
from tests.real_prometheus import get, needs_prometheus, query
from tests.real_prometheus import running as running_prometheus
from tests.stand_ins.influx import InfluxStandIn

REASON = why_not_live()
RCA = str(Path(sys.executable).with_name("flowverdict-rca"))
CLUSTER = make_cluster(4, 2)
_, POD_B, POD_C, _ = (pod.ipv4 for pod in CLUSTER.pods)
SERVICE = "10.96.0.7"

pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=f"no live run: {REASON}"),
    needs_prometheus,
]


def configure(folder: Path, pipeline: Pipeline, influx_writer_port: int) -> dict[str, Any]:
    """A configuration that scrapes every service, with the shipped rules evaluated each second."""
    rules = folder / "rules"
    rules.mkdir()
    for file in Path("deploy/prometheus/rules").glob("*.yaml"):
        (rules / file.name).write_text(
            re.sub(r"interval: \d+[sm]", "interval: 1s", file.read_text())
        )
    ports = {**pipeline.ports, "influx-writer": influx_writer_port}
    return {
        "global": {"scrape_interval": "1s", "evaluation_interval": "1s"},
        "rule_files": [f"{rules}/*.yaml"],
        "scrape_configs": [
            {
                "job_name": f"flowverdict-{service}",
                "static_configs": [{"targets": [f"127.0.0.1:{port}"]}],
            }
            for service, port in ports.items()
        ],
    }


def with_service() -> str:
    """The lab's inventory, and a service with pod-c behind it."""
    service = {"namespace": "default", "name": "web", "addresses": [SERVICE], "pods": ["pod-c"]}
    return json.dumps({**json.loads(CLUSTER.inventory()), "services": [service]})


def translate_service(network: Network) -> None:
    """Have what pod-b sends to the service go to pod-c, as a cluster's nodes do."""
    rule = f"ip daddr {SERVICE} dnat to {POD_C}"
    chain = f"chain output {{\ntype nat hook output priority -100\n{rule}\n}}"
    network.inside("pod-b", ["nft", "-f", "-"], f"table ip services {{\n{chain}\n}}\n")


def call_service(network: Network) -> None:
    """Sixty requests from pod-b to the service, and a connect to a port that is closed there."""
    calls = (
        "import http.client, socket\n"
        f"client = http.client.HTTPConnection('{SERVICE}', {HTTP_PORT})\n"
        "for _ in range(60): client.request('GET', '/'); client.getresponse().read()\n"
        f"socket.socket().connect_ex(('{SERVICE}', 1))"
    )
    network.inside("pod-b", [sys.executable, "-c", calls])


@pytest.fixture(scope="module")
def prometheus(
    tmp_path_factory: pytest.TempPathFactory,
) -> Iterator[tuple[Network, Pipeline, str]]:
    """The lab with a broken pod-a, all services, and a Prometheus that scrapes them."""
    folder = tmp_path_factory.mktemp("prometheus")
    (folder / "logs").mkdir()
    influx, writer_port = InfluxStandIn(), free_port()
    nats_conf = folder / "nats.conf"
    nats_conf.write_text(NATS_THAT_TELLS)
    with (
        Network(CLUSTER, folder / "logs") as network,
        Pipeline(
            folder,
            with_service(),
            namespaces=network.namespaces(),
            environ={"FLOWVERDICT_DNS": "on"},
            nats_arguments=("-c", str(nats_conf)),
        ) as pipeline,
        contextlib.ExitStack() as running,
    ):
        influx.start()
        running.callback(influx.stop)
        environ = {
            "FLOWVERDICT_NATS_URL": pipeline.nats_url,
            "FLOWVERDICT_INFLUX_URL": influx.url,
            "FLOWVERDICT_INFLUX_TOKEN": influx.token,
            "FLOWVERDICT_INFLUX_VOLUME_BYTES": "1000000",
            "FLOWVERDICT_LISTEN": f"127.0.0.1:{writer_port}",
        }
        writer = [sys.executable, "-m", "flowverdict_influx_writer"]
        log = folder / "logs" / "influx-writer.log"
        running.callback(stop_process, start_process(writer, log, environ))
        config = configure(folder, pipeline, writer_port)
        url = running.enter_context(running_prometheus(folder, config))
        network.start_traffic(10)
        parse_fault("pod-loss", "pod-a", 20, CLUSTER).inject(network)
        yield network, pipeline, url


async def test_the_seeds_queries_return_the_labs_pairs_and_its_analysis_blames_the_pod(
    prometheus: tuple[Network, Pipeline, str], tmp_path: Path
) -> None:
    network, _, url = prometheus
    pods = {pod.ipv4 for pod in network.cluster.pods}
    pairs = {(src, dst) for src in pods for dst in pods if src != dst}
    pod_a, pod_c = network.cluster.pods[0].ipv4, network.cluster.pods[2].ipv4

    def found(promql: str) -> dict[tuple[str, str], float]:
        return {
            (each["metric"]["src_ip"], each["metric"]["dst_ip"]): float(each["value"][1])
            for each in query(url, promql)
            if each["metric"].get("src_ip") in pods
        }

    def failing(values: dict[tuple[str, str], float]) -> set[tuple[str, str]]:
        return {pair for pair, value in values.items() if value > 0}

    involved = {pair for pair in pairs if pod_a in pair}
    total = "sum(tcp_retransmissions_total) by (src_ip, dst_ip)"
    await eventually(lambda: failing(found(total)) >= involved, 60)
    assert set(found(total)) == pairs
    between = f'sum(tcp_retransmissions_total{{src_ip="{pod_a}", dst_ip="{pod_c}"}})'
    assert float(query(url, between)[0]["value"][1]) > 0
    rate = "sum(rate(tcp_retransmissions_total[5m])) by (src_ip, dst_ip)"
    await eventually(lambda: failing(found(rate)) >= involved, 60)
    assert set(found(rate)) == pairs

    file = tmp_path / "tcp_retransmissions.jsonl"

    def blamed() -> bool:
        """Whether nothing explains the failures better than the broken pod.

        The seed's analysis calls a pair failing that has a single retransmission. On a busy machine
        healthy pairs have one by chance, so other pods may be blamed beside it.
        """
        fetched = subprocess.run(
            [RCA, "fetch", url, "--out", str(file)], capture_output=True, text=True, check=True
        )
        assert str(file) in fetched.stdout
        analysed = subprocess.run(
            [RCA, "analyse", str(file), "--json"], capture_output=True, text=True, check=True
        )
        best = {
            each["antecedents"][0]: (each["confidence"], each["support"])
            for each in json.loads(analysed.stdout)["rules"]
            if each["consequents"] == ["FAIL"] and len(each["antecedents"]) == 1
        }
        return pod_a in best and best[pod_a] == max(best.values())

    # A pair of the broken pod may be without a retransmission at the moment of the query.
    await eventually(blamed, 60)


def asked(board: Board, expression: str, incident: str = "", node: str = "worker0") -> str:
    """A panel's query as Grafana sends it: everything chosen, or pod-a where it is one thing."""
    values = {"$__rate_interval": "30s", "$__range": "5m", "$objective": "0.001", "$cluster": ".*"}
    values |= {"$pod": ".*", "$workload": ".*", "$namespace": ".*", "$node": node}
    values |= {"$service": "web", "$source": POD_B, "$destination": POD_C}
    if board.uid in ("flowverdict-pod", "flowverdict-workload", "flowverdict-service"):
        values["$namespace"] = "default"
    if board.uid == "flowverdict-pod":
        values["$pod"] = "pod-a"
    for name, value in {**values, "$incident": incident}.items():
        expression = expression.replace(name, value)
    # One collector counts for all nodes of the lab, which are on one kernel.
    return expression.replace('",node="worker0"', '",node="lab"')


async def test_while_a_pod_is_broken_no_query_of_any_panel_is_empty(
    prometheus: tuple[Network, Pipeline, str],
) -> None:
    network, pipeline, url = prometheus
    _, pod_b, pod_c, pod_d = network.cluster.pods
    serve(network, pod_d, pod_d.ipv4)
    refused = f"import socket; [socket.socket().connect_ex(('{pod_c.ipv4}', 1)) for _ in range(5)]"
    (opened,) = await eventually(lambda: query(url, "flowverdict_incident_active"), 60)
    incident = opened["metric"]["incident_id"]
    now = int(time.time())
    client = await nats.connect(pipeline.nats_url)
    for status in ("opened", "resolved"):
        verdict = a_verdict(incident_id="0", status=status, second=now)
        await client.jetstream().publish(SUBJECT_VERDICTS, verdicts.encode(verdict))
    await client.close()
    translate_service(network)
    queries = {
        (board.title, panel.title, each.ref): asked(board, each.expr, incident)
        for board in BOARDS
        for panel in board.panels
        if panel.store == "prometheus"
        for each in panel.queries
    }
    assert len(queries) > 100

    # What falls back to nothing would hide a metric that is not there.
    metrics = {
        name
        for promql in queries.values()
        if " or 0 * " in promql
        for name in re.findall(r"(?:flowverdict|tcp)_\w+|pair:[\w:]+", promql)
    }
    # Nobody here publishes what cannot be.
    impossible = "flowverdict_rows_left_out_total"
    assert impossible in Path("docs/metrics.md").read_text()
    metrics.remove(impossible)
    queries |= {("metric", name, ""): f"count({name})" for name in metrics}

    def empty() -> list[tuple[str, str, str]]:
        network.inside("pod-b", [sys.executable, "-c", refused])
        call_service(network)
        look_up(network, pod_b, pod_d.ipv4, [*["0"] * 20, "2", "3", "9"])  # few are unanswered
        return [key for key, promql in queries.items() if not query(url, promql)]

    still: list[tuple[str, str, str]] = []

    def all_have_data() -> bool:
        still[:] = empty()
        return not still

    try:
        await eventually(all_have_data, 90)
    except AssertionError:
        raise AssertionError(f"empty: {still}") from None
    for board in BOARDS:
        for annotation in build(board).get("annotations", {}).get("list", ()):
            assert query(url, asked(board, annotation["expr"])), annotation
        for variable in board.variables:
            series = f"{variable.metric}{{{asked(board, variable.given)}}}"
            values = query(url, f"count by ({variable.label}) ({series})")
            assert values, variable


async def test_a_verdict_is_one_alert_and_says_which_flows_it_explains(
    prometheus: tuple[Network, Pipeline, str],
) -> None:
    _, _, url = prometheus

    def alerts(name: str) -> list[dict[str, str]]:
        firing = query(url, f'ALERTS{{alertname="{name}", alertstate="firing"}}')
        return [each["metric"] for each in firing]

    (verdict,) = await eventually(lambda: alerts("FlowverdictVerdict"), 60)
    assert (verdict["cause_kind"], verdict["cause_namespace"]) == ("pod", "default")
    assert verdict["cause_name"] == "pod-a"
    (firing,) = [
        alert
        for alert in get(url, "/api/v1/alerts")["alerts"]
        if alert["labels"]["alertname"] == "FlowverdictVerdict"
    ]
    assert "pod-a" in firing["annotations"]["summary"]
    assert "segments are retransmitted" in firing["annotations"]["summary"]
    explained = await eventually(lambda: alerts("FlowverdictExplains"))
    assert {each["by"] for each in explained} <= {"src_pod", "dst_pod"}
    assert not query(
        url, 'ALERTS{alertname=~"Flowverdict(CountsLost|MessagesMalformed|NodeSilent)"}'
    )


async def test_grafanas_rules_are_promql_and_that_of_a_verdict_has_its_summary(
    prometheus: tuple[Network, Pipeline, str],
) -> None:
    _, _, url = prometheus
    asked_for = {rule["title"]: rule["data"][0]["model"]["expr"] for rule in alert_rules(False, "")}
    for title, promql in asked_for.items():
        assert get(url, f"/api/v1/format_query?{urlencode({'query': promql})}"), title
    found = await eventually(lambda: query(url, asked_for["FlowverdictVerdict"]), 60)
    (summary,) = (each["metric"]["summary"] for each in found)
    assert "pod-a" in summary
