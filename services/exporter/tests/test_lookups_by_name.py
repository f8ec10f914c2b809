"""DNS lookups by pod and name, as Prometheus gets them."""

import time
from typing import Any

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from conftest import enriched_batch, flow_row
from flowverdict_exporter import lookups as module
from flowverdict_exporter.lookups import Lookups

REST = {"data_segments_sent": 0, "dst_port": 53}


def row(name: str, **counts: int) -> dict[str, Any]:
    return flow_row("pod-a@n1", "dns@n2", **REST, **counts) | {"dns_name": name}


def page(lookups: Lookups) -> list[str]:
    registry = CollectorRegistry()
    registry.register(lookups)
    text = generate_latest(registry).decode()
    return [
        each for each in text.splitlines() if not each.startswith("#") and "_created" not in each
    ]


def test_lookups_are_shown_by_pod_name_and_how_they_ended() -> None:
    lookups = Lookups(3600)
    answers = {"dns_answers": 5, "dns_name_errors": 2, "dns_failures": 1, "dns_answer_us": 3000}
    lookups.add(enriched_batch(row("api", dns_lookups=7, **answers), row("", dns_lookups=1)))
    lookups.add(enriched_batch(row("api", dns_unanswered=2, dns_answers=1, dns_answer_us=1000)))
    shown = page(lookups)
    asked = 'dns_name="api",src_namespace="default",src_pod="pod-a"'
    for result, count in {"answered": 3, "name_error": 2, "failed": 1, "unanswered": 2}.items():
        labels = asked.replace(",", f',result="{result}",', 1)
        assert f"dns_lookups_by_name_total{{{labels}}} {count}.0" in shown
    assert f"dns_answer_by_name_seconds_count{{{asked}}} 2.0" in shown
    assert f"dns_answer_by_name_seconds_sum{{{asked}}} 0.004" in shown


def test_names_beyond_those_that_have_room_are_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_NAMES", 2)
    lookups = Lookups(3600)
    lookups.add(enriched_batch(*(row(f"name-{number}", dns_answers=1) for number in range(5))))
    answered = {line for line in page(lookups) if 'result="answered"' in line}
    assert len(answered) == 3
    assert any('dns_name="other"' in line and line.endswith(" 3.0") for line in answered)


def test_a_pod_that_looks_up_many_names_leaves_room_for_others() -> None:
    lookups = Lookups(3600)
    lookups.add(enriched_batch(*(row(f"name-{number}", dns_answers=1) for number in range(200))))
    other_pod = row("api", dns_unanswered=9) | {"src_pod": "pod-b"}
    lookups.add(enriched_batch(other_pod))
    shown = page(lookups)
    assert any('dns_name="api"' in line and line.endswith(" 9.0") for line in shown)
    beyond = [line for line in shown if 'dns_name="other"' in line and 'result="answered"' in line]
    assert [line.rsplit(" ", 1)[1] for line in beyond] == ["150.0"]
    assert 'src_pod="pod-a"' in beyond[0]


def test_what_a_name_holds_is_a_label_and_nothing_else() -> None:
    name = 'x"} 1\nevil 1'
    lookups = Lookups(3600)
    lookups.add(enriched_batch(row(name, dns_answers=1)))
    registry = CollectorRegistry()
    registry.register(lookups)
    families = list(text_string_to_metric_families(generate_latest(registry).decode()))
    samples = [each for family in families for each in family.samples]
    assert {each.labels["dns_name"] for each in samples} == {name}


def test_the_sums_go_on_after_a_restart_as_if_nothing_had_happened() -> None:
    one, other = Lookups(3600), Lookups(3600)
    one.add(enriched_batch(row("api", dns_answers=4, dns_answer_us=7)))
    other.restore(one.kept())
    for each in (one, other):
        each.add(enriched_batch(row("api", dns_unanswered=1)))
    assert page(other) == page(one)


def test_a_name_that_nobody_looks_up_any_more_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    lookups = Lookups(60)
    lookups.add(enriched_batch(row("api", dns_answers=1)))
    now = time.monotonic()
    monkeypatch.setattr(time, "monotonic", lambda: now + 61)
    assert page(lookups) == []
