"""Sums by pair, as Prometheus sees them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from conftest import enriched_batch, flow_row
from flowverdict_exporter.series import COUNTERS, LABELS, PairSeries


def scrape(series: PairSeries) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    registry = CollectorRegistry()
    registry.register(series)
    text = generate_latest(registry).decode()
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def value(series: PairSeries, name: str, **labels: str) -> float:
    found = [
        number
        for (metric, pairs), number in scrape(series).items()
        if metric == name and set(labels.items()) <= pairs
    ]
    assert len(found) == 1, found
    return found[0]


def test_the_flows_of_a_pair_are_one_series_whatever_their_ports() -> None:
    series = PairSeries(10, 60)
    series.add(
        enriched_batch(
            flow_row("pod-a@w", "pod-b@w", retransmitted_segments=3, src_port=1),
            flow_row("pod-a@w", "pod-b@w", retransmitted_segments=4, src_port=2),
            flow_row("pod-b@w", "pod-a@w", retransmitted_segments=5),
        )
    )
    series.add(enriched_batch(flow_row("pod-a@w", "pod-b@w", retransmitted_segments=1)))
    assert value(series, "tcp_retransmissions_total", src_pod="pod-a", dst_pod="pod-b") == 8
    assert value(series, "tcp_retransmissions_total", src_pod="pod-b", dst_pod="pod-a") == 5


def test_a_healthy_pair_has_a_series_at_zero_so_that_its_first_increase_is_seen() -> None:
    series = PairSeries(10, 60)
    series.add(enriched_batch(flow_row("pod-a@w", "pod-b@w")))
    assert value(series, "tcp_retransmissions_total", src_pod="pod-a") == 0


def test_beyond_the_budget_pairs_are_summed_as_other_and_the_overflow_is_counted() -> None:
    series = PairSeries(2, 60)
    for number in range(5):
        series.add(enriched_batch(flow_row(f"pod-{number}", "pod-x", retransmitted_segments=1)))
    assert value(series, "tcp_retransmissions_total", src_pod="other") == 3
    assert value(series, "flowverdict_exporter_overflow_total") == 3
    assert value(series, "flowverdict_exporter_pairs") == 3


def test_a_pair_without_flows_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("flowverdict_exporter.series.time.monotonic", lambda: clock[0])
    series = PairSeries(10, 60)
    series.add(enriched_batch(flow_row("pod-a", "pod-b")))
    clock[0] += 30
    series.add(enriched_batch(flow_row("pod-c", "pod-b")))
    clock[0] += 40
    assert value(series, "flowverdict_exporter_pairs") == 1
    assert value(series, "tcp_segments_sent_total", src_pod="pod-c") == 0


def test_labels_with_every_special_character_are_served_as_they_are() -> None:
    odd = 'a"b\\c\nd'
    series = PairSeries(10, 60)
    row = flow_row("pod-a", "pod-b", retransmitted_segments=2) | {"dst_workload": odd}
    series.add(enriched_batch(row))
    assert value(series, "tcp_retransmissions_total", dst_workload=odd) == 2


counts = st.dictionaries(st.sampled_from(sorted(COUNTERS)), st.integers(0, 2**31), max_size=9)
flows = st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), counts)


@given(st.lists(st.lists(flows, max_size=8), max_size=5), st.integers(1, 12))
def test_no_count_is_lost_whatever_the_budget(
    messages: list[list[tuple[str, str, dict[str, int]]]], budget: int
) -> None:
    series = PairSeries(budget, 60)
    for message in messages:
        series.add(enriched_batch(*(flow_row(s, d, **c) for s, d, c in message)))
    scraped = scrape(series)
    for field, (name, _) in COUNTERS.items():
        total = math.fsum(
            flow_row(s, d, **c).get(field, 0) for message in messages for s, d, c in message
        )
        assert total == sum(v for (metric, _), v in scraped.items() if metric == f"{name}_total")


def test_labels_are_addresses_and_names_and_no_ports() -> None:
    assert LABELS[:2] == ("src_ip", "dst_ip")
    assert not any("port" in label for label in LABELS)
