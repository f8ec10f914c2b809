"""Sums by pair, as Prometheus sees them."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client.openmetrics.parser import (
    text_string_to_metric_families as openmetrics_families,
)
from prometheus_client.parser import text_string_to_metric_families

from conftest import enriched_batch, flow_row
from flowverdict_contracts.signals import METRICS, PAIR_LABELS, SIGNALS
from flowverdict_exporter.series import PairSeries


def scrape(
    series: PairSeries, openmetrics: bool = False
) -> dict[tuple[str, frozenset[tuple[str, str]]], float]:
    parse = openmetrics_families if openmetrics else text_string_to_metric_families
    text = series.text(openmetrics) + ("# EOF\n" if openmetrics else "")
    return {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in parse(text)
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
    overflow = "flowverdict_exporter_series_overflow_total"
    assert value(series, overflow, metric="tcp_retransmissions") == 3
    assert value(series, "flowverdict_exporter_pairs") == 2


def test_a_rare_metric_that_no_pair_has_is_not_over_its_budget() -> None:
    series = PairSeries(20, 60)
    rows = [flow_row(f"pod-{number}", "pod-x") for number in range(10)]
    series.add(enriched_batch(*rows))
    metric = "tcp_dropped_packets_by_kernel_reason"
    overflow = "flowverdict_exporter_series_overflow_total"
    assert value(series, overflow, metric=metric) == 0
    series.add(enriched_batch(*(row | {"drop_reason_tcp_csum": 2} for row in rows)))
    assert value(series, overflow, metric=metric) == 9
    assert value(series, f"{metric}_total", src_pod="other", reason="TCP_CSUM") == 18


def test_a_flood_from_addresses_without_a_name_takes_no_series_from_pods() -> None:
    series = PairSeries(6000, 60)
    quiet = len(series.text(openmetrics=False))
    for first in range(0, 40_000, 1000):
        rows = []
        for number in range(first, first + 1000):
            address = f"45.0.{number >> 8}.{number & 255}"
            row = flow_row("pod-a@w", "x") | {"dst_ip": address, "dst_kind": "external"}
            row |= dict.fromkeys(("dst_namespace", "dst_pod", "dst_workload", "dst_node"), "")
            counts = {"opens": 1} if number % 2 else {"opens": 0, "resets_sent": 1, "bytes_sent": 0}
            rows.append(row | counts)
        series.add(enriched_batch(*rows))
    series.add(enriched_batch(flow_row("pod-b@w", "pod-c@w", opens=7, rtt_us=300)))
    assert value(series, "tcp_opens_total", src_pod="pod-b", dst_pod="pod-c") == 7
    assert value(series, "tcp_rtt_seconds_count", src_pod="pod-b", dst_pod="pod-c") == 1
    shared = {"src_pod": "pod-a", "dst_ip": "other"}
    assert value(series, "tcp_resets_sent_total", **shared) == 20_000
    assert 0 < value(series, "tcp_opens_total", **shared) < 20_000
    assert len(series.text(openmetrics=False)) < quiet + 10_000_000
    assert 600 <= value(series, "flowverdict_exporter_pairs") <= 603


def test_a_pair_without_flows_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("flowverdict_exporter.sums.time.monotonic", lambda: clock[0])
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


def test_each_metric_has_a_budget_of_its_own() -> None:
    series = PairSeries(15, 60, histograms=True)
    for number in range(3):
        row = flow_row(f"pod-{number}", "pod-x", retransmitted_segments=1, rtt_us=700)
        series.add(enriched_batch(row | {"drops_queue": 1}))
    assert value(series, "tcp_retransmissions_total", src_pod="pod-2") == 1
    assert value(series, "tcp_rtt_seconds_count", src_pod="pod-0") == 1
    assert value(series, "tcp_rtt_seconds_count", src_pod="other") == 2
    assert value(series, "tcp_dropped_packets_total", src_pod="pod-2", reason="queue") == 1


def test_the_numbers_of_an_expired_pair_are_not_given_to_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [1000.0]
    monkeypatch.setattr("flowverdict_exporter.sums.time.monotonic", lambda: clock[0])
    series = PairSeries(1, 60)
    series.add(enriched_batch(flow_row("pod-a", "pod-b", retransmitted_segments=7)))
    clock[0] += 100
    series.add(enriched_batch(flow_row("pod-c", "pod-d", retransmitted_segments=1)))
    assert value(series, "tcp_retransmissions_total", src_pod="pod-c") == 1
    assert value(series, "flowverdict_exporter_pairs") == 1


@pytest.mark.parametrize(
    ("histograms", "metric"),
    [
        (False, "tcp_sender_rtt_seconds"),
        (True, "tcp_sender_rtt_seconds"),
        (True, "tcp_rtt_seconds"),
    ],
)
def test_round_trip_times_are_a_histogram_in_seconds_with_a_reading_for_each_flow(
    histograms: bool, metric: str
) -> None:
    series = PairSeries(1000, 60, histograms=histograms)
    for rtt_us in (0, 500, 501, 30_000, 2_000_000):
        series.add(enriched_batch(flow_row("pod-a", "pod-b", rtt_us=rtt_us)))
    for openmetrics in (False, True):
        buckets = {
            float(dict(labels)["le"]): number
            for (name, labels), number in scrape(series, openmetrics).items()
            if name == f"{metric}_bucket"
        }
        assert buckets[0.0005] == 1
        assert buckets[0.001] == 2
        assert buckets[0.05] == 3
        assert buckets[math.inf] == 4
    assert value(series, f"{metric}_sum") == pytest.approx(2.031001)


def test_unless_asked_for_buckets_are_shown_by_sender_only_and_a_pair_has_its_mean() -> None:
    series = PairSeries(1000, 60)
    for target, rtt_us in (("pod-b", 500), ("pod-c", 30_000)):
        series.add(enriched_batch(flow_row("pod-a@w", target, rtt_us=rtt_us)))
    bucketed = [dict(labels) for (name, labels) in scrape(series) if name.endswith("_bucket")]
    assert bucketed
    assert not any(label.startswith("dst_") for labels in bucketed for label in labels)
    assert value(series, "tcp_sender_rtt_seconds_count", src_pod="pod-a", src_node="w") == 2
    assert value(series, "tcp_rtt_seconds_count", dst_pod="pod-c") == 1
    assert value(series, "tcp_rtt_seconds_sum", dst_pod="pod-c") == pytest.approx(0.03)


def test_senders_without_a_name_are_one() -> None:
    series = PairSeries(1000, 60)
    for number in range(5):
        row = flow_row("x", "pod-a", rtt_us=500) | {"src_ip": f"45.0.0.{number}"}
        row |= dict.fromkeys(("src_namespace", "src_pod", "src_workload", "src_node"), "")
        series.add(enriched_batch(row | {"src_kind": "external"}))
    assert value(series, "tcp_sender_rtt_seconds_count", src_ip="other") == 5


def test_the_time_a_connect_takes_is_a_summary_in_seconds_of_the_connects_that_were_timed() -> None:
    series = PairSeries(1000, 60)
    for connect_us in (0, 500, 30_000):
        series.add(enriched_batch(flow_row("pod-a", "pod-b", connect_us=connect_us)))
    assert value(series, "tcp_connect_seconds_count") == 2
    assert value(series, "tcp_connect_seconds_sum") == pytest.approx(0.0305)
    names = {name for name, _ in scrape(series) if name.startswith("tcp_connect_seconds")}
    assert names == {"tcp_connect_seconds_count", "tcp_connect_seconds_sum"}


def test_both_text_formats_say_the_same() -> None:
    series = PairSeries(1000, 60)
    series.add(enriched_batch(flow_row("pod-a", "pod-b", bytes_sent=3, rtt_us=9)))
    assert scrape(series, openmetrics=True) == scrape(series, openmetrics=False)


counters = {signal.field: signal.metric for signal in SIGNALS if signal.kind == "counter"}
counts = st.dictionaries(st.sampled_from(sorted(counters)), st.integers(0, 2**31), max_size=9)
flows = st.tuples(st.sampled_from("abc"), st.sampled_from("abc"), counts)


@given(st.lists(st.lists(flows, max_size=8), max_size=5), st.integers(1, 12))
def test_no_count_is_lost_whatever_the_budget(
    messages: list[list[tuple[str, str, dict[str, int]]]], budget: int
) -> None:
    series = PairSeries(budget, 60)
    added: dict[str, float] = dict.fromkeys(counters.values(), 0)
    for message in messages:
        rows = [flow_row(source, target, **numbers) for source, target, numbers in message]
        series.add(enriched_batch(*rows))
        for field, metric in counters.items():
            added[metric] += sum(row.get(field, 0) for row in rows) * METRICS[metric][0].scale
    scraped = scrape(series)
    for metric, total in added.items():
        shown = sum(v for (name, _), v in scraped.items() if name == f"{metric}_total")
        assert shown == pytest.approx(total, rel=1e-12)


def test_labels_are_addresses_and_names_and_no_ports() -> None:
    assert PAIR_LABELS[:2] == ("src_ip", "dst_ip")
    assert not any("port" in label for label in PAIR_LABELS)
