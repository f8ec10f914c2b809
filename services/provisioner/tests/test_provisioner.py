"""The command against a Grafana that keeps state, refuses, starts late and disappears."""

import copy
import json
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowverdict_provisioner import grafana as module
from flowverdict_provisioner.boards import BOARDS
from flowverdict_provisioner.command import run
from tests.stand_ins.grafana import GrafanaStandIn

UIDS = {board.uid for board in BOARDS}


@pytest.fixture
def grafana(monkeypatch: pytest.MonkeyPatch) -> Iterator[GrafanaStandIn]:
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 0.05)
    stand_in = GrafanaStandIn()
    stand_in.start()
    monkeypatch.setenv("FLOWVERDICT_GRAFANA_URL", stand_in.url)
    monkeypatch.setenv("FLOWVERDICT_GRAFANA_PASSWORD", "secret")
    monkeypatch.setenv("FLOWVERDICT_GRAFANA_WAIT_SECONDS", "20")
    monkeypatch.setenv("FLOWVERDICT_INFLUX_TOKEN", "influx-secret")
    yield stand_in
    stand_in.stop()


def provision(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["flowverdict-provisioner", *arguments])
    return run()


def state(grafana: GrafanaStandIn) -> dict[str, Any]:
    kinds = ("data_sources", "secrets", "folders", "dashboards", "alert_rules", "intervals")
    return {kind: copy.deepcopy(getattr(grafana, kind)) for kind in kinds}


def test_everything_is_there_after_one_run_and_a_second_changes_nothing(
    grafana: GrafanaStandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert provision(monkeypatch) == 0
    assert set(grafana.dashboards) == UIDS
    assert set(grafana.data_sources) == {"flowverdict-prometheus", "flowverdict-influxdb"}
    assert grafana.secrets["flowverdict-influxdb"] == {"token": "influx-secret"}
    assert "flowverdict-verdict" in grafana.alert_rules
    assert set(grafana.intervals.values()) == {10}
    sources = grafana.dashboards["flowverdict-pod"]["dashboard"]["templating"]["list"][0]
    assert sources["current"]["value"] == "flowverdict-prometheus"
    assert all(each["meta"]["folderUid"] == "flowverdict" for each in grafana.dashboards.values())
    before, changed = state(grafana), sum(grafana.requests.values())
    capsys.readouterr()
    assert provision(monkeypatch) == 0
    assert state(grafana) == before
    assert sum(grafana.requests.values()) == changed
    said = capsys.readouterr().out
    assert "updated" not in said
    assert "created" not in said


def test_the_dashboard_of_a_pod_links_to_its_logs_where_the_setting_says(
    grafana: GrafanaStandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    logs = "https://logs.example.org/explore?q=${namespace}/${pod}"
    monkeypatch.setenv("FLOWVERDICT_POD_LINKS", f"Logs={logs} Traces=https://traces.example.org")
    assert provision(monkeypatch) == 0
    for uid, stored in grafana.dashboards.items():
        links = {each["title"]: each["url"] for each in stored["dashboard"]["links"][1:]}
        expected = {"Logs": logs, "Traces": "https://traces.example.org"}
        assert links == (expected if uid == "flowverdict-pod" else {})
    for wrong in ("Logs", "Logs=javascript:alert(1)", "=https://logs.example.org"):
        monkeypatch.setenv("FLOWVERDICT_POD_LINKS", wrong)
        assert provision(monkeypatch) == 2
        assert "FLOWVERDICT_POD_LINKS" in capsys.readouterr().err


def test_diff_says_what_would_be_done_and_does_nothing(
    grafana: GrafanaStandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert provision(monkeypatch, "--diff") == 0
    assert not grafana.dashboards
    assert "Network health                  would be created" in capsys.readouterr().out
    provision(monkeypatch)
    grafana.dashboards["flowverdict-pod"]["dashboard"]["panels"][1]["title"] = "Mine"
    before = state(grafana)
    capsys.readouterr()
    assert provision(monkeypatch, "--diff") == 0
    assert state(grafana) == before
    said = capsys.readouterr().out
    assert "Pod                             would be updated" in said
    assert "panels[1].title: 'Mine' → 'Retransmitted by this pod'" in said


def test_what_others_changed_elsewhere_is_kept(
    grafana: GrafanaStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    provision(monkeypatch)
    grafana.folders["team"] = {"uid": "team", "title": "Team"}
    grafana.dashboards["theirs"] = {"dashboard": {"uid": "theirs", "version": 3}, "meta": {}}
    moved = grafana.dashboards["flowverdict-pod"]
    moved["meta"]["folderUid"] = "team"
    moved["dashboard"]["time"] = {"from": "now-2d", "to": "now"}
    chosen = {"text": "Other", "value": "other-prometheus"}
    moved["dashboard"]["templating"]["list"][0]["current"] = chosen
    moved["dashboard"]["panels"][0]["title"] = "changed"
    source = grafana.data_sources["flowverdict-prometheus"]
    source["basicAuth"] = True
    source["jsonData"]["customQueryParameters"] = "tenant=1"
    source["url"] = "http://old:9090"
    grafana.alert_rules["flowverdict-verdict"]["isPaused"] = True
    grafana.alert_rules["flowverdict-verdict"]["for"] = "9m"
    assert provision(monkeypatch) == 0
    pod = grafana.dashboards["flowverdict-pod"]
    assert pod["dashboard"]["panels"][0]["title"] == "Now"
    assert pod["dashboard"]["time"] == {"from": "now-2d", "to": "now"}
    assert pod["dashboard"]["templating"]["list"][0]["current"] == chosen
    assert pod["meta"]["folderUid"] == "team"
    assert grafana.dashboards["theirs"]["dashboard"]["version"] == 3
    source = grafana.data_sources["flowverdict-prometheus"]
    assert source["url"] == "http://127.0.0.1:9090"
    assert source["basicAuth"] is True
    assert source["jsonData"]["customQueryParameters"] == "tenant=1"
    rule = grafana.alert_rules["flowverdict-verdict"]
    assert (rule["isPaused"], rule["for"]) == (True, "0s")


def test_a_dashboard_that_somebody_saves_meanwhile_is_read_again(
    grafana: GrafanaStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    provision(monkeypatch)
    stored = grafana.dashboards["flowverdict-pod"]["dashboard"]
    stored["title"] = "old"

    def somebody_saves(uid: str) -> None:
        grafana.before_save = None
        grafana.dashboards[uid]["dashboard"]["version"] += 1
        grafana.dashboards[uid]["dashboard"]["refresh"] = "1m"

    grafana.before_save = somebody_saves
    assert provision(monkeypatch) == 0
    saved = grafana.dashboards["flowverdict-pod"]["dashboard"]
    assert (saved["title"], saved["refresh"], saved["version"]) == ("Pod", "1m", 3)


@pytest.mark.parametrize("close_before", [False, True])
@pytest.mark.parametrize("close_after", [0, 1, 2, 3, 8])
def test_a_grafana_that_starts_late_is_waited_for_and_one_that_goes_away_comes_back_to(
    grafana: GrafanaStandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    close_after: int,
    close_before: bool,
) -> None:
    grafana.stop()
    grafana.starting, grafana.close_after = 3, close_after
    grafana.close_before = close_before
    returned = threading.Timer(0.5, grafana.start)
    returned.start()

    def comes_back() -> None:
        returned.join()
        while grafana._server is not None:
            pass
        grafana.close_after = None
        grafana.start()

    waiting = threading.Thread(target=comes_back)
    waiting.start()
    assert provision(monkeypatch) == 0
    waiting.join()
    assert set(grafana.dashboards) == UIDS
    assert all(each["dashboard"]["version"] == 1 for each in grafana.dashboards.values())
    said = capsys.readouterr().err
    assert "nothing listens there" in said
    assert "it returned 503" in said


def test_a_grafana_that_never_comes_is_an_error_in_words(
    grafana: GrafanaStandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    grafana.stop()
    monkeypatch.setenv("FLOWVERDICT_GRAFANA_WAIT_SECONDS", "0")
    assert provision(monkeypatch) == 1
    assert f"gave up on Grafana at {grafana.url}: nothing listens" in capsys.readouterr().err


def test_wrong_credentials_are_an_error_that_names_the_settings(
    grafana: GrafanaStandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("FLOWVERDICT_GRAFANA_PASSWORD", "wrong")
    assert provision(monkeypatch) == 1
    assert "FLOWVERDICT_GRAFANA_TOKEN" in capsys.readouterr().err
    monkeypatch.setenv("FLOWVERDICT_GRAFANA_PASSWORD", "")
    assert provision(monkeypatch) == 2
    monkeypatch.setenv("FLOWVERDICT_GRAFANA_TOKEN", "token")
    assert provision(monkeypatch, "--check") == 0
    assert "organisation Main Org." in capsys.readouterr().out
    assert not grafana.folders, "a check changes nothing"


REFUSED: dict[str, tuple[int, str]] = {
    "POST folders": (409, "a folder with the same name already exists in the current location"),
    "PUT datasources/uid/flowverdict-prometheus": (403, "Cannot update read-only data source"),
    "POST datasources": (403, "You'll need additional permissions to perform this action."),
    "POST v1/provisioning/alert-rules": (403, "Permissions needed: alert.rules:create"),
}


@pytest.mark.parametrize("request_", REFUSED)
def test_what_grafana_refuses_is_shown_in_its_words_and_the_rest_is_installed(
    grafana: GrafanaStandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    request_: str,
) -> None:
    status, sentence = REFUSED[request_]
    if request_.startswith("PUT"):
        existing = {"uid": "flowverdict-prometheus", "name": "Mine", "type": "prometheus"}
        grafana.data_sources["flowverdict-prometheus"] = existing
    grafana.refuses[request_] = (status, {"message": sentence})
    monkeypatch.setattr(module, "_PAUSE_SECONDS", 3600)
    assert provision(monkeypatch) == 1
    printed = capsys.readouterr()
    assert sentence in printed.err
    assert "the others are as they should be" in printed.err
    assert set(grafana.dashboards) == UIDS


def test_data_sources_that_exist_are_used_as_they_are(
    grafana: GrafanaStandIn, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = {"uid": "theirs", "name": "Thanos", "type": "prometheus", "readOnly": True}
    grafana.data_sources["theirs"] = dict(theirs)
    monkeypatch.setenv("FLOWVERDICT_PROMETHEUS_UID", "theirs")
    assert provision(monkeypatch) == 0
    assert grafana.data_sources["theirs"] == theirs
    assert set(grafana.data_sources) == {"theirs", "flowverdict-influxdb"}
    chosen = grafana.dashboards["flowverdict-pod"]["dashboard"]["templating"]["list"][0]["current"]
    assert (chosen["value"], chosen["text"]) == ("theirs", "Thanos")
    queried = {rule["data"][0]["datasourceUid"] for rule in grafana.alert_rules.values()}
    assert queried == {"theirs"}
    assert "Thanos                          left alone" in capsys.readouterr().out
    monkeypatch.setenv("FLOWVERDICT_PROMETHEUS_UID", "nowhere")
    assert provision(monkeypatch) == 1
    assert "has no data source with the uid nowhere" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ((200, "text/html", b"<html>log in</html>"), "not Grafana's"),
        ((200, "application/json", b"[]"), "not Grafana's"),
        ((200, "application/json", b"null"), "not Grafana's"),
        ((204, "text/plain", b""), "not Grafana's"),
        ((302, "text/html", b""), "redirects to http://login.example/"),
        ((404, "application/json", b"{}"), "has no such API"),
        ((404, "text/html", b"<html>"), "has no such API"),
        ((400, "application/json", b'{"message": "no"}'), "refuses"),
        ((502, "text/html", b"Fehler \xfc"), "returned 502"),
    ],
)
@pytest.mark.parametrize("arguments", [(), ("--check",)])
def test_what_is_not_grafana_is_an_error_in_words(
    grafana: GrafanaStandIn,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    answer: tuple[int, str, bytes],
    words: str,
    arguments: tuple[str, ...],
) -> None:
    monkeypatch.setenv("FLOWVERDICT_GRAFANA_WAIT_SECONDS", "0")
    grafana.answer_with = answer
    assert provision(monkeypatch, *arguments) == 1
    said = capsys.readouterr()
    assert words in said.err
    assert "created" not in said.out


def test_a_new_secret_is_sent(grafana: GrafanaStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    provision(monkeypatch)
    monkeypatch.setenv("FLOWVERDICT_INFLUX_TOKEN", "rotated")
    assert provision(monkeypatch) == 0
    assert grafana.secrets["flowverdict-influxdb"] == {"token": "rotated"}
    assert "rotated" not in json.dumps(grafana.data_sources)


def test_grafana_gets_rules_for_people_only_and_for_how_long_they_go_on(
    grafana: GrafanaStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert provision(monkeypatch) == 0
    rules = grafana.alert_rules
    assert {each["labels"]["severity"] for each in rules.values()} == {"critical", "warning"}
    assert rules["flowverdict-servicedown"]["keep_firing_for"] == "10m"


def test_with_an_alertmanager_grafanas_own_rules_start_paused(
    grafana: GrafanaStandIn, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FLOWVERDICT_ALERTMANAGER_URL", "http://alertmanager:9093")
    assert provision(monkeypatch) == 0
    assert all(rule["isPaused"] for rule in grafana.alert_rules.values())
    assert "flowverdict-alertmanager" in grafana.data_sources


def test_export_writes_the_dashboards_without_grafana_or_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert provision(monkeypatch, "--export", str(tmp_path / "boards")) == 0
    written = {each.stem: json.loads(each.read_text()) for each in (tmp_path / "boards").iterdir()}
    assert set(written) == UIDS
    assert all(model["uid"] == uid and "id" not in model for uid, model in written.items())
