"""Sums of ten seconds, over any order of messages and any deaths of the writer."""

from collections import Counter

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from conftest import enriched_batch, flow_row
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.signals import SLOT_SECONDS
from flowverdict_influx_writer.progress import Planned, Progress
from flowverdict_influx_writer.slots import Slots
from tests.line_protocol import parse

NS = 10**9


class Store:
    """Points by tags and time, as InfluxDB has them: a second one replaces the first."""

    def __init__(self) -> None:
        self.points: dict[tuple[frozenset[tuple[str, str]], int], int] = {}

    def write(self, lines: list[str]) -> None:
        for line in lines:
            _, tags, fields, time = parse(line.rstrip("\n"))
            self.points[frozenset(tags.items()), time] = int(fields["segments_sent"][:-1])


def message(node: str, second: int, segments: int = 1) -> tuple[IntervalHeader, int]:
    return IntervalHeader(node, "boot", 1, (second - 1) * NS, second * NS), segments


def add(slots: Slots, sequence: int, stored: float, about: tuple[IntervalHeader, int]) -> None:
    header, segments = about
    batch = enriched_batch(flow_row("pod-a", "pod-b", segments_sent=segments))
    slots.add(sequence, int(stored * NS), header, batch)


def write(slots: Slots, store: Store, planned: Planned) -> None:
    for lines in slots.lines(planned):
        store.write(lines)


def test_ten_seconds_of_a_collector_are_one_point_at_their_start() -> None:
    slots, store = Slots(Progress("s")), Store()
    for sequence, second in enumerate(range(101, 113), 1):
        add(slots, sequence, second, message("n1", second))
    planned = slots.due(10)
    assert planned is not None
    write(slots, store, planned)
    assert {time: n for (_, time), n in store.points.items()} == {100 * NS: SLOT_SECONDS}
    slots.wrote(planned)
    assert (planned.resume_from, planned.seen_until) == (11, 12)
    assert slots.due(10) is None, "the next slot has been open for a second"


def test_a_slot_closes_by_the_clock_of_nats_not_by_that_of_a_node() -> None:
    slots = Slots(Progress("s"))
    add(slots, 1, 100, message("right", 100))
    add(slots, 2, 101, message("an hour ahead", 3701))
    assert slots.due(10) is None
    add(slots, 3, 110, message("right", 110))
    planned = slots.due(10)
    assert planned is not None
    assert planned.closing == {"right": 90}


def test_too_many_pairs_at_once_are_written_before_their_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowverdict_influx_writer.slots._MOST_PAIRS", 8)
    slots = Slots(Progress("s"))
    for sequence in range(1, 51):  # of one pair in one slot, which is held as a sum
        add(slots, sequence, 100, message("n0", 100))
        assert slots.due(10) is None
    for sequence in range(51, 59):
        add(slots, sequence, 100, message(f"n{sequence}", 100))
    assert slots.due(10) is not None


def test_only_collectors_that_were_written_before_many_others_are_forgotten(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("flowverdict_influx_writer.progress._MOST_COLLECTORS", 3)
    progress = Progress("s", written={"first": 100, "second": 50, "third": 10**9})
    after = progress.after(Planned(9, 8, {"second": 190, "fourth": 190}))
    assert after.written == {"third": 10**9, "second": 190, "fourth": 190}


def test_what_comes_late_is_written_even_if_all_does() -> None:
    slots = Slots(Progress("s", written={"n1": 1000}))
    for sequence in range(1, 11):
        add(slots, sequence, 2000 + sequence, message("n1", 500 + sequence))
        assert slots.due(10) is None
    add(slots, 11, 2011, message("n1", 511))
    planned = slots.due(10)
    assert planned is not None
    assert (planned.resume_from, planned.closing) == (12, {})
    assert sum(len(each) for each in slots.lines(planned)) == 11


DEATHS = ("before it is planned", "once planned", "half written", "written")


def written(
    slots: Slots, store: Store, planned: Planned, kept: Progress, death: str | None
) -> tuple[Progress, bool]:
    """What is kept after an attempt to write, and whether the writer lives."""
    if death == "before it is planned":
        return kept, False
    kept = msgspec.structs.replace(slots.progress, next=planned)
    if death == "once planned":
        return kept, False
    for lines in slots.lines(planned):
        store.write(lines)
        if death == "half written":
            return kept, False
    if death == "written":
        return kept, False
    slots.wrote(planned)
    return slots.progress, True


def one_life(
    messages: list[tuple[IntervalHeader, int]], store: Store, kept: Progress, deaths: list[str]
) -> tuple[Progress, bool]:
    """Go on from what is kept; what is kept in the end, and whether the writer got there alive."""
    slots = Slots(kept)
    for sequence in range(kept.resume_from, len(messages) + 2):
        is_end = sequence > len(messages)
        if under_way := slots.replayed(sequence):
            kept, lives = written(slots, store, under_way, kept, deaths.pop() if deaths else None)
            if not lives:
                return kept, False
        if not is_end:
            add(slots, sequence, sequence, messages[sequence - 1])
        if slots.progress.next is None and (planned := slots.due(0 if is_end else 3)):
            kept, lives = written(slots, store, planned, kept, deaths.pop() if deaths else None)
            if not lives:
                return kept, False
    return kept, True


streams = st.lists(
    st.tuples(st.sampled_from("ab"), st.integers(1, 45), st.integers(1, 9)), min_size=1, max_size=30
)


@settings(max_examples=300, deadline=None)
@given(streams, st.lists(st.sampled_from((None, *DEATHS)), max_size=12))
def test_what_is_stored_adds_up_whatever_the_order_and_wherever_the_writer_is_killed(
    stream: list[tuple[str, int, int]], deaths: list[str]
) -> None:
    messages = [message(*each) for each in stream]
    store, kept, lives = Store(), Progress("s"), False
    while not lives:
        kept, lives = one_life(messages, store, kept, deaths)
    assert (kept.resume_from, kept.next) == (len(messages) + 1, None)
    sent: Counter[tuple[str, int]] = Counter()
    for header, segments in messages:
        sent[header.node, (header.end_ns - 1) // (SLOT_SECONDS * NS)] += segments
    stored: Counter[tuple[str, int]] = Counter()
    for (tags, time), segments in store.points.items():
        stored[dict(tags)["collector"], time // (SLOT_SECONDS * NS)] += segments
    assert stored == sent
