"""Messages of a node that never came."""

import random

from hypothesis import given
from hypothesis import strategies as st

from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_flows.continuity import Continuity


def message(sequence: int, run_id: str = "a", node: str = "n1") -> IntervalHeader:
    return IntervalHeader(node, run_id, sequence, 0, 1)


@given(lost=st.sets(st.integers(2, 300)), first=st.integers(1, 1 << 40), order=st.randoms())
def test_each_message_that_never_comes_counts_once_whatever_the_order(
    lost: set[int], first: int, order: random.Random
) -> None:
    come = [each for each in range(2, 400) if each not in lost]
    for at in range(0, len(come), 20):
        part = come[at : at + 20]
        order.shuffle(part)
        come[at : at + 20] = part
    continuity = Continuity()
    counted = sum(
        continuity.add(message(first + each), float(second))
        for second, each in enumerate((1, *come, *come[:30], 400, *range(401, 500)))
    )
    assert counted == len(lost)


def test_a_message_that_comes_within_a_minute_is_not_lost() -> None:
    continuity = Continuity()
    assert continuity.add(message(1), 0.0) == 0
    assert continuity.add(message(4), 1.0) == 0
    assert continuity.add(message(2), 59.0) == 0
    assert continuity.add(message(5), 61.0) == 1
    assert continuity.add(message(3), 62.0) == 0


def test_a_later_run_of_a_node_begins_at_one() -> None:
    continuity = Continuity()
    continuity.add(message(500), 0.0)
    continuity.add(message(101, run_id="b"), 1.0)
    assert continuity.add(message(102, run_id="b"), 61.0) == 100


def test_a_sequence_that_cannot_be_is_one_gap() -> None:
    continuity = Continuity()
    continuity.add(message(1), 0.0)
    continuity.add(message(1 << 62), 1.0)
    assert continuity.add(message(2), 61.0) == (1 << 62) - 3


def test_each_node_has_its_own() -> None:
    continuity = Continuity()
    for second in range(300):
        assert continuity.add(message(second + 1), float(second)) == 0
        assert continuity.add(message(second + 1, node="n2"), float(second)) == 0
