"""Numbers for pairs."""

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from conftest import enriched_batch, flow_row
from flowverdict_contracts.pairs import NO_PAIR, Pairs
from flowverdict_contracts.signals import PAIR_LABELS

rows = st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=12)


def labels(row: dict[str, Any]) -> tuple[str, ...]:
    return tuple(row.get(name, "") for name in PAIR_LABELS)


@given(st.lists(st.tuples(rows, st.integers(0, 40)), max_size=8), st.integers(1, 30))
def test_a_number_stands_for_one_pair_as_long_as_it_is_not_forgotten(
    steps: list[tuple[list[tuple[str, str]], int]], room: int
) -> None:
    pairs = Pairs(room)
    known: dict[int, tuple[str, ...]] = {}
    for names, forgotten in steps:
        made = [flow_row(source, target) for source, target in names]
        numbers, taken, inverse = pairs.of(enriched_batch(*made))
        assert taken.tolist() == list(range(len(made)))
        for row, number in zip(made, numbers[inverse].tolist(), strict=True):
            if number == NO_PAIR:
                assert len(known) + len(set(numbers.tolist())) > room
                continue
            assert pairs.labels(number) == labels(row)
            known[number] = labels(row)
        assert len(set(known.values())) == len(known) == len(pairs) <= room
        assert pairs.numbers().tolist() == sorted(known)
        if forgotten in known:
            pairs.forget(np.array([forgotten]))
            del known[forgotten]


def test_an_address_with_other_names_is_another_pair() -> None:
    pairs, row = Pairs(9), flow_row("pod-a", "pod-b")
    first, *_ = pairs.of(enriched_batch(row))
    second, *_ = pairs.of(enriched_batch(row | {"src_pod": "pod-new"}))
    again, *_ = pairs.of(enriched_batch(row))
    assert first.tolist() == again.tolist() != second.tolist()


def test_flows_over_loopback_are_left_out() -> None:
    row = flow_row("pod-a", "pod-b")
    over_loopback = row | {"src_ip": "127.0.0.1", "dst_ip": "::1"}
    numbers, taken, _ = Pairs(9).of(enriched_batch(over_loopback, row))
    assert taken.tolist() == [1]
    assert len(numbers) == 1


def test_ends_that_found_no_room_are_not_kept_for_ever() -> None:
    pairs = Pairs(1)
    for number in range(12_000):
        row = flow_row("pod-a", "pod-b") | {"src_pod": f"pod-{number}"}
        pairs.of(enriched_batch(row))
    assert len(pairs._ends) < 11_000
