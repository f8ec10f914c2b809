"""Rows of batches, grouped and summed by pair."""

from collections import Counter
from random import Random
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conftest import enriched_batch, flow_row
from flowverdict_contracts.signals import PAIR_LABELS
from flowverdict_flows.pairs import NO_PAIR, EndpointPairs, LabelledPairs, PairSums

rows = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=12)


def labels(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row.get(name, "") for name in PAIR_LABELS)


@given(st.lists(st.tuples(rows, st.integers(0, 40)), max_size=8), st.integers(1, 30))
def test_a_number_stands_for_one_pair_as_long_as_it_is_not_forgotten(
    steps: list[tuple[list[tuple[str, str]], int]], room: int
) -> None:
    pairs = LabelledPairs(room)
    known: dict[int, tuple[str, ...]] = {}
    for names, forgotten in steps:
        made = [flow_row(source, target) for source, target in names]
        grouped = pairs.group(enriched_batch(*made))
        numbers, taken = grouped.numbers, grouped.rows
        assert taken.tolist() == list(range(len(made)))
        for row, number in zip(made, numbers[grouped.pair_of_row].tolist(), strict=True):
            if number == NO_PAIR:
                assert len(known) + len(set(numbers.tolist())) > room
                continue
            assert tuple(pairs.labels(number).values()) == labels(row)
            known[number] = labels(row)
        assert len(set(known.values())) == len(known) == len(pairs) <= room
        assert pairs.numbers().tolist() == sorted(known)
        if forgotten in known:
            pairs.forget(np.array([forgotten]))
            del known[forgotten]


def test_an_address_with_other_names_is_another_pair() -> None:
    pairs, row = LabelledPairs(9), flow_row("pod-a", "pod-b")
    first = pairs.group(enriched_batch(row)).numbers
    second = pairs.group(enriched_batch(row | {"src_pod": "pod-new"})).numbers
    again = pairs.group(enriched_batch(row)).numbers
    assert first.tolist() == again.tolist() != second.tolist()


def test_flows_over_loopback_are_left_out() -> None:
    row = flow_row("pod-a", "pod-b")
    over_loopback = row | {"src_ip": "127.0.0.1", "dst_ip": "::1"}
    grouped = LabelledPairs(9).group(enriched_batch(over_loopback, row))
    assert grouped.rows.tolist() == [1]
    assert len(grouped.numbers) == 1


def test_ends_that_found_no_room_are_not_kept_for_ever() -> None:
    pairs = LabelledPairs(1)
    for number in range(12_000):
        row = flow_row("pod-a", "pod-b") | {"src_pod": f"pod-{number}"}
        pairs.group(enriched_batch(row))
    assert len(pairs._ends) < 11_000


@given(st.lists(rows, max_size=6), st.randoms())
def test_sums_by_pair_are_those_of_the_rows_whatever_the_batches(
    batches: list[list[tuple[str, str]]], random: Random
) -> None:
    pairs, sums = EndpointPairs(), PairSums(1, np.int64)
    expected: Counter[tuple[str, str]] = Counter()
    for names in batches:
        made = []
        for source, target in names:
            count = random.randrange(1000)
            expected[source, target] += count
            made.append(flow_row(source, target, data_segments_sent=count))
        grouped = pairs.group(enriched_batch(*made))
        sums.add(grouped.numbers, grouped.sums("data_segments_sent")[:, None])
    for number in pairs.numbers().tolist():
        sums.reach(number)
        src, dst = pairs.pair(number)
        assert sums.values[number, 0] == expected[src.name, dst.name]
    assert len(pairs) == len(expected)


def test_a_pod_with_two_addresses_is_one_endpoint() -> None:
    row = flow_row("pod-a@w0", "pod-b@w1")
    pairs = EndpointPairs()
    grouped = pairs.group(enriched_batch(row, row | {"src_ip": "fd00::1"}))
    assert len(set(grouped.numbers.tolist())) == len(pairs) == 1
    assert grouped.sums("data_segments_sent").sum() == 200
    src, _ = pairs.pair(int(grouped.numbers[0]))
    assert {each.address for each in pairs.seen if each.endpoint == src} == {
        row["src_ip"],
        "fd00::1",
    }
    pairs.group(enriched_batch(row))
    assert {each.address for each in pairs.seen if each.endpoint == src} == {row["src_ip"]}


def from_internet(number: int, **counts: int) -> dict[str, Any]:
    """A row from one of many addresses outside the cluster."""
    address = f"45.{number >> 16}.{number >> 8 & 255}.{number & 255}"
    away = {"src_ip": address, "src_kind": "external"}
    away |= dict.fromkeys(("src_namespace", "src_pod", "src_workload", "src_node"), "")
    nothing = {"data_segments_sent": 0, "bytes_sent": 0, "opens": 0}
    return flow_row("pod-a", "pod-b@w1") | away | nothing | counts


def test_what_never_was_a_connection_is_one_pair_for_all_addresses_without_a_name() -> None:
    pairs, sums = LabelledPairs(100), PairSums(1, np.int64)
    for first in range(0, 40_000, 2000):
        batch = enriched_batch(
            *(from_internet(number, resets_sent=1) for number in range(first, first + 1000)),
            *(
                from_internet(number, retransmitted_synacks=2, segments_sent=2)
                for number in range(first + 1000, first + 2000)
            ),
        )
        rows = pairs.group(batch)
        sums.add(rows.numbers, rows.sums("resets_sent")[:, None])
    (number,) = pairs.numbers().tolist()
    assert pairs.labels(number)["src_ip"] == "other"
    assert pairs.labels(number)["dst_pod"] == "pod-b"
    assert sums.values[number, 0] == 20_000
    assert len(pairs._ends) < 15_000


def test_addresses_without_a_name_leave_the_rest_of_the_room_to_pairs_with_names() -> None:
    pairs = LabelledPairs(20, 10)
    for first in range(0, 500, 50):
        pairs.group(enriched_batch(*(from_internet(first + n, opens=1) for n in range(50))))
    assert len(pairs) == 11, "ten, and one for all others"
    named = enriched_batch(*(flow_row(f"pod-{n}", "pod-b") for n in range(9)))
    assert NO_PAIR not in pairs.group(named).numbers.tolist()


@given(st.lists(st.lists(st.integers(0, 30), max_size=8), max_size=8), st.integers(1, 9))
def test_sums_stay_whole_when_addresses_share_a_pair(batches: list[list[int]], room: int) -> None:
    pairs, sums = LabelledPairs(2 * room, room), PairSums(1, np.int64)
    for numbers in batches:
        rows = pairs.group(enriched_batch(*(from_internet(n, opens=n + 1) for n in numbers)))
        sums.add(rows.numbers, rows.sums("opens")[:, None])
    assert sums.values.sum() == sum(n + 1 for numbers in batches for n in numbers)
    assert len(pairs) <= room + 1


def test_endpoints_beyond_what_can_be_judged_share_one_and_are_not_remembered() -> None:
    pairs = EndpointPairs()
    for first in range(0, 8000, 1000):
        pairs.group(enriched_batch(*(from_internet(first + n, opens=1) for n in range(1000))))
    assert len(pairs) == 5001
    assert not pairs.seen - {each for each in pairs.seen if each.endpoint.kind == "pod"}
    names = {pairs.pair(number)[0].name for number in pairs.numbers().tolist()}
    assert "other addresses" in names
