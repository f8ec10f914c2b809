"""Messages of a node that never came."""

import random

from hypothesis import given
from hypothesis import strategies as st

from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_flows.continuity import Continuity


def message(sequence: int, run_id: str = "a", node: str = "n1", start: int = 0) -> IntervalHeader:
    return IntervalHeader(node, run_id, sequence, start, start + 1)


def lost(continuity: Continuity, header: IntervalHeader, now: float) -> int:
    """How many messages are known to be lost once this one has come."""
    return sum(continuity.add(header, now).values())


@given(missing=st.sets(st.integers(2, 300)), first=st.integers(1, 1 << 40), order=st.randoms())
def test_each_message_that_never_comes_counts_once_whatever_the_order(
    missing: set[int], first: int, order: random.Random
) -> None:
    come = [each for each in range(2, 400) if each not in missing]
    for at in range(0, len(come), 20):
        part = come[at : at + 20]
        order.shuffle(part)
        come[at : at + 20] = part
    continuity = Continuity()
    counted = sum(
        lost(continuity, message(first + each), float(second))
        for second, each in enumerate((1, *come, *come[:30], 400, *range(401, 500)))
    )
    assert counted == len(missing)


def test_a_message_that_comes_within_a_minute_is_not_lost() -> None:
    continuity = Continuity()
    assert lost(continuity, message(1), 0.0) == 0
    assert lost(continuity, message(4), 1.0) == 0
    assert lost(continuity, message(2), 59.0) == 0
    assert lost(continuity, message(5), 61.0) == 1
    assert lost(continuity, message(3), 62.0) == 0


def test_a_later_run_of_a_node_begins_at_one() -> None:
    continuity = Continuity()
    lost(continuity, message(500), 0.0)
    lost(continuity, message(101, run_id="b", start=150), 1.0)
    assert lost(continuity, message(102, run_id="b", start=151), 61.0) == 100


def test_a_second_collector_of_a_node_that_ran_before_the_first_was_heard_misses_nothing() -> None:
    continuity = Continuity()
    for second in range(200):
        assert lost(continuity, message(500 + second, start=second), float(second)) == 0
        other = message(9000 + second, run_id="b", start=second)
        assert lost(continuity, other, float(second)) == 0


def test_what_a_run_lacks_that_has_ended_is_lost() -> None:
    continuity = Continuity()
    for each in (1, 2, 5):
        assert lost(continuity, message(each, start=each), float(each)) == 0
    after = [
        lost(continuity, message(each, run_id="b", start=10 + each), 10.0 + each)
        for each in range(1, 100)
    ]
    assert sum(after) == 2
    assert Continuity(continuity.runs()).add(message(100, run_id="b", start=110)) == {}


def test_what_a_node_lacks_that_is_gone_for_good_is_lost_while_others_speak() -> None:
    continuity = Continuity()
    for each in (1, 2, 5):
        assert lost(continuity, message(each), float(each)) == 0
    found = [continuity.add(message(each, node="n2"), 5.0 + each) for each in range(1, 100)]
    assert [each for each in found if each] == [{"n1": 2}]


def test_what_is_missing_is_waited_for_even_if_every_second_message_is() -> None:
    continuity = Continuity()
    assert sum(lost(continuity, message(each), each / 100) for each in range(1, 400, 2)) == 0
    assert sum(lost(continuity, message(each), 30 + each / 100) for each in range(2, 400, 2)) == 0
    assert lost(continuity, message(400), 100.0) == 0


def test_a_sequence_that_cannot_be_is_one_gap() -> None:
    continuity = Continuity()
    lost(continuity, message(1), 0.0)
    lost(continuity, message(1 << 62), 1.0)
    assert lost(continuity, message(2), 61.0) == (1 << 62) - 3


def test_each_node_has_its_own() -> None:
    continuity = Continuity()
    for second in range(300):
        assert lost(continuity, message(second + 1), float(second)) == 0
        assert lost(continuity, message(second + 1, node="n2"), float(second)) == 0
