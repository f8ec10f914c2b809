"""Prometheus' rules and Alertmanager's configuration, by their own tools and servers."""

import itertools
import json
import re
import subprocess
import urllib.request
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml
from msgspec.structs import replace

from conftest import a_cause, eventually
from flowverdict_contracts.signals import PAIR_LABELS
from flowverdict_exporter.incident_labels import EXPLAINS_LABELS, explained
from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process, stop_process
from flowverdict_lab.servers import server_program
from flowverdict_provisioner.boards import BOARDS
from flowverdict_provisioner.promql import NONE_IF_JUDGED, none_if_up

DEPLOY = Path("deploy")
RULES = sorted((DEPLOY / "prometheus/rules").glob("*.yaml"))
TESTS = sorted((DEPLOY / "prometheus/tests").glob("*.yaml"))
PROMTOOL, AMTOOL = (str(server_program(each)) for each in ("promtool", "amtool"))
ALERTMANAGER = str(server_program("alertmanager"))

pytestmark = pytest.mark.skipif(
    not Path(PROMTOOL).exists() or not Path(ALERTMANAGER).exists(),
    reason="Prometheus and Alertmanager have not been built, which needs Go",
)


def rules() -> Iterator[dict[str, Any]]:
    for file in RULES:
        for group in yaml.safe_load(file.read_text())["groups"]:
            yield from group["rules"]


def run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_prometheus_takes_the_rules_and_the_configuration() -> None:
    run(PROMTOOL, "check", "rules", *map(str, RULES))
    run(PROMTOOL, "check", "config", str(DEPLOY / "prometheus/prometheus.yml"))


@pytest.mark.parametrize("file", TESTS, ids=lambda file: file.name)
def test_the_rules_do_what_their_tests_say(file: Path) -> None:
    run(PROMTOOL, "test", "rules", str(file))


def test_every_rule_has_a_test() -> None:
    tests = [test for file in TESTS for test in yaml.safe_load(file.read_text())["tests"]]
    fired = {
        each["alertname"]
        for test in tests
        for each in test.get("alert_rule_test", ())
        if each.get("exp_alerts")
    }
    asked = " ".join(each["expr"] for test in tests for each in test.get("promql_expr_test", ()))
    for rule in rules():
        assert rule.get("alert") in fired or rule.get("record", "-") in asked, rule


def test_every_alert_says_in_a_sentence_what_is_wrong_and_how_bad_that_is() -> None:
    for rule in rules():
        if "alert" in rule:
            assert rule["annotations"]["summary"]
            assert rule["labels"]["severity"] in ("critical", "warning", "info", "none")


def test_every_alert_has_a_section_to_read_and_a_board_to_look_at() -> None:
    sections = re.findall(r"^### (\w+)$", Path("docs/alerts.md").read_text(), re.MULTILINE)
    boards = {f"/d/{board.uid}" for board in BOARDS}
    for rule in rules():
        if "alert" in rule:
            page = rule["annotations"]["runbook_url"].rpartition("docs/alerts.md#")[2]
            assert page in {each.lower() for each in sections}, rule["alert"]
            assert re.split("[?{]", rule["annotations"]["dashboard"])[0] in boards, rule["alert"]
    assert {each.lower() for each in sections} == {
        rule["annotations"]["runbook_url"].rpartition("#")[2] for rule in rules() if "alert" in rule
    }


def test_pairs_are_told_apart_by_the_labels_that_the_exporter_gives_them() -> None:
    labels = "(cluster, " + ", ".join(sorted(PAIR_LABELS, key=_by_end)) + ")"
    for rule in rules():
        if rule.get("record", "").startswith("pair:") and "_total" in rule["expr"]:
            assert labels in rule["expr"].replace("\n", " ")


def _by_end(label: str) -> tuple[bool, bool, int]:
    return (not label.endswith("_ip"), label.startswith("dst"), PAIR_LABELS.index(label))


def test_every_kind_of_explanation_has_an_inhibition_and_is_on_the_incidents_board() -> None:
    run(AMTOOL, "check-config", str(DEPLOY / "alertmanager/alertmanager.yml"))
    config = yaml.safe_load((DEPLOY / "alertmanager/alertmanager.yml").read_text())
    equal = {
        rule["source_matchers"][1].removeprefix("by = "): set(rule["equal"])
        for rule in config["inhibit_rules"]
        if "FlowverdictExplains" in rule["source_matchers"][0]
    }
    names = {
        "pod": "shop/cart", "workload": "shop/cart", "node": "w1", "external": "192.0.2.7",
        "service": "shop/cart", "node_link": "w1 <-> w2", "unknown": "10.9.9.9", "zone": "z1",
        "label": "team=payments", "workload_link": "shop/cart <-> shop/db",
    }  # fmt: skip
    causes = [
        replace(a_cause(kind, name, direction=direction), service_addresses=("10.96.0.1",))
        for (kind, name), direction in itertools.product(
            names.items(), ("sending", "receiving", "both")
        )
    ]
    link = a_cause("link", "shop/cart <-> w1")
    causes.append(replace(link, addresses=("10.0.0.1", "192.0.2.7", "fd00::1")))
    shown = str(next(each for each in BOARDS if each.uid == "flowverdict-incident"))
    for cause in causes:
        for labels in explained(cause):
            assert set(labels) <= set(EXPLAINS_LABELS)
            assert equal[labels["by"]] == {"cluster", *labels} - {"by"}, cause
            assert f'by="{labels["by"]}"' in shown, cause


def test_the_operators_inhibition_rules_are_those_of_the_configuration() -> None:
    overlay = DEPLOY / "k8s/overlays/kube-prometheus-stack/alertmanager.yaml"
    theirs = yaml.safe_load(overlay.read_text())["spec"]["inhibitRules"]
    ours = yaml.safe_load((DEPLOY / "alertmanager/alertmanager.yml").read_text())["inhibit_rules"]

    def written(matchers: list[dict[str, str]]) -> list[str]:
        return [f"{e['name']} {e.get('matchType', '=')} {e['value']}" for e in matchers]

    assert [(written(e["sourceMatch"]), written(e["targetMatch"]), e["equal"]) for e in theirs] == [
        ([text.replace('"', "") for text in each["source_matchers"]],
         [text.replace('"', "") for text in each["target_matchers"]], each["equal"])
        for each in ours
    ]  # fmt: skip


@pytest.fixture
def alertmanager(tmp_path: Path) -> Iterator[str]:
    port = free_port()
    config = DEPLOY.absolute() / "alertmanager/alertmanager.yml"
    argv = [ALERTMANAGER, f"--config.file={config}"]
    argv += [f"--storage.path={tmp_path}", f"--web.listen-address=127.0.0.1:{port}"]
    argv += ["--cluster.listen-address="]
    process = start_process(argv, tmp_path / "alertmanager.log")
    yield f"http://127.0.0.1:{port}"
    stop_process(process)


def called(url: str, body: object = None) -> Any:
    """What a request returns; None if nobody answers yet."""
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return json.loads(answer.read() or b"true")
    except OSError:
        return None


async def posted(alertmanager: str, alerts: list[dict[str, str]]) -> None:
    ends = (datetime.now(UTC) + timedelta(minutes=5)).isoformat()
    body = [{"labels": labels, "endsAt": ends} for labels in alerts]
    await eventually(lambda: called(f"{alertmanager}/api/v2/alerts", body))


@pytest.mark.parametrize(
    ("source", "follow"),
    [
        ({"alertname": "FlowverdictJudgingLate"}, ["FlowverdictNodeSilent"]),
        (
            {"alertname": "FlowverdictNatsDown"},
            ["FlowverdictNodeSilent", "FlowverdictJudgingLate", "FlowverdictConsumerLag"],
        ),
        (
            {"alertname": "FlowverdictServiceDown", "job": "flowverdict-nats"},
            ["FlowverdictNodeSilent", "FlowverdictJudgingLate", "FlowverdictConsumerLag"],
        ),
        (
            {"alertname": "FlowverdictServiceDown", "job": "flowverdict-rca"},
            ["FlowverdictJudgingLate", "FlowverdictServiceAbsent"],
        ),
        (
            {"alertname": "FlowverdictServiceDown", "job": "flowverdict-enricher"},
            ["FlowverdictJudgingLate", "FlowverdictNodeSilent"],
        ),
        (
            {"alertname": "FlowverdictServiceAbsent", "service": "enricher"},
            ["FlowverdictJudgingLate", "FlowverdictNodeSilent"],
        ),
        (
            {"alertname": "FlowverdictVolumeNearlyFull"},
            ["FlowverdictVolumeFilling", "FlowverdictConsumerLag"],
        ),
        (
            {"alertname": "FlowverdictServiceDown", "job": "influxdb"},
            ["FlowverdictConsumerLag"],
        ),
    ],
)
async def test_what_follows_from_something_of_ours_that_is_down_is_held_back_in_that_cluster(
    alertmanager: str, source: dict[str, str], follow: list[str]
) -> None:
    names = [{"alertname": each, "service": "rca", "job": "influx-writer"} for each in follow]
    alerts = [each | {"cluster": cluster} for each in names for cluster in ("eu-1", "us-1")]
    await posted(alertmanager, [source | {"cluster": "eu-1"}, *alerts])

    def suppressed() -> set[tuple[str, str]]:
        return {
            (each["labels"]["alertname"], each["labels"]["cluster"])
            for each in called(f"{alertmanager}/api/v2/alerts") or ()
            if each["status"]["state"] == "suppressed"
        }

    only_here = {(each, "eu-1") for each in follow}
    await eventually(lambda: suppressed() >= only_here)
    by_its_own = {("FlowverdictNodeSilent", "us-1"), ("FlowverdictJudgingLate", "us-1")}
    assert suppressed() - only_here <= by_its_own


async def test_a_collector_that_does_not_answer_is_no_second_alert_where_its_node_is_silent(
    alertmanager: str,
) -> None:
    down = {"alertname": "FlowverdictServiceDown", "job": "flowverdict-collector"}
    alerts = [down | {"node": node, "instance": f"collector-{node}"} for node in ("w1", "w2")]
    await posted(alertmanager, [{"alertname": "FlowverdictNodeSilent", "node": "w1"}, *alerts])

    def suppressed() -> list[str]:
        return [
            each["labels"]["instance"]
            for each in called(f"{alertmanager}/api/v2/alerts") or ()
            if each["status"]["state"] == "suppressed"
        ]

    await eventually(suppressed)
    assert suppressed() == ["collector-w1"]


async def test_a_verdict_holds_back_the_alerts_of_the_flows_it_explains_and_no_others(
    alertmanager: str,
) -> None:
    def flow(src_pod: str, dst_pod: str) -> dict[str, str]:
        names = {"src_namespace": "shop", "src_pod": src_pod, "src_node": "w0"}
        names |= {"dst_namespace": "shop", "dst_pod": dst_pod, "dst_node": "w1"}
        return {"alertname": "TcpRetransmissionRatioHigh", "scope": "flow", **names}

    alerts = [flow("cart", "db"), flow("web", "cart"), flow("web", "db")]
    cause = a_cause("pod", "shop/cart")
    alerts += [
        {"alertname": "FlowverdictExplains", "severity": "none", "incident_id": "c1", **each}
        for each in explained(cause)
    ]
    alerts.append({"alertname": "TcpRetransmissionRatioZScore", "severity": "info"})
    alerts.append({"alertname": "FlowverdictVerdict", "incident_id": "c1", "cause_name": "cart"})

    await posted(alertmanager, alerts)

    def by_state(state: str) -> set[tuple[str, str, str]]:
        found = called(f"{alertmanager}/api/v2/alerts") or ()
        return {
            tuple(each["labels"].get(name, "") for name in ("alertname", "src_pod", "dst_pod"))
            for each in found
            if each["status"]["state"] == state
            and each["labels"]["alertname"] != "FlowverdictExplains"
        }

    held_back = {("TcpRetransmissionRatioHigh", "cart", "db")}
    held_back |= {("TcpRetransmissionRatioHigh", "web", "cart")}
    await eventually(lambda: by_state("suppressed") == held_back)
    told = {("TcpRetransmissionRatioHigh", "web", "db"), ("FlowverdictVerdict", "", "")}
    told |= {("TcpRetransmissionRatioZScore", "", "")}
    await eventually(lambda: by_state("active") == told)

    groups = called(f"{alertmanager}/api/v2/alerts/groups?receiver=operators|pager")
    verdicts = [g for g in groups if g["labels"].get("alertname") == "FlowverdictVerdict"]
    told_to = [(group["receiver"]["name"], len(group["alerts"])) for group in verdicts]
    assert told_to == [("pager", 1)]
    notified = {group["labels"]["alertname"] for group in groups}
    assert not notified & {"FlowverdictExplains", "TcpRetransmissionRatioZScore"}


@pytest.mark.parametrize(
    ("labels", "receiver"),
    [
        ("alertname=FlowverdictVerdict severity=critical", "pager"),
        ("alertname=FlowverdictWarning severity=warning", "operators"),
        ("alertname=FlowverdictVolumeFilling severity=critical", "pager"),
        ("alertname=FlowverdictServiceDown severity=warning", "operators"),
        ("alertname=TcpRetransmissionRatioZScore severity=info", "nobody"),
        ("alertname=FlowverdictExplains severity=none", "nobody"),
    ],
)
def test_only_what_is_worth_waking_somebody_goes_to_the_pager(labels: str, receiver: str) -> None:
    config = str(DEPLOY / "alertmanager/alertmanager.yml")
    told = run(AMTOOL, "config", "routes", "test", f"--config.file={config}", *labels.split())
    assert told.split() == [receiver]


ROWS = "flowverdict_exporter_rows_total"
WATERMARK = "flowverdict_rca_watermark_timestamp_seconds"
UP = [f'up{{job="flowverdict-{each}"}}' for each in ("enricher", "exporter", "rca")]


@pytest.mark.parametrize(
    ("query", "series", "knows"),
    [
        (NONE_IF_JUDGED, [f"{WATERMARK}{{}}", f"{ROWS}{{}}"], True),
        (NONE_IF_JUDGED, [f"{WATERMARK}{{}}"], False),
        (NONE_IF_JUDGED, [f"{ROWS}{{}}"], False),
        (
            NONE_IF_JUDGED,
            [f'{WATERMARK}{{cluster="a"}}', *(f'{ROWS}{{cluster="{each}"}}' for each in "ab")],
            False,
        ),
        (none_if_up(("enricher", "exporter", "rca")), UP, True),
        (none_if_up(("enricher", "exporter", "rca")), UP[1:], False),
        (none_if_up(("exporter",)), ['up{job="flowverdict-nats"}'], False),
    ],
)
def test_a_board_shows_zero_only_where_somebody_would_know(
    tmp_path: Path, query: str, series: list[str], knows: bool
) -> None:
    asked: dict[str, Any] = {"expr": query.replace("$cluster", ".*"), "eval_time": "10m"}
    asked |= {"exp_samples": [{"labels": "{}", "value": 0}] if knows else []}
    values = {name: "1x100" if name.startswith("up") else "0+15x100" for name in series}
    told = [{"series": name, "values": value} for name, value in values.items()]
    test = {"interval": "15s", "input_series": told, "promql_expr_test": [asked]}
    (tmp_path / "test.yaml").write_text(yaml.safe_dump({"rule_files": [], "tests": [test]}))
    run(PROMTOOL, "test", "rules", str(tmp_path / "test.yaml"))
