"""The times of intervals, whatever happens to the wall clock."""

from hypothesis import given
from hypothesis import strategies as st

from flowverdict_collector.intervals import Intervals

SECOND = 1_000_000_000
START = 1_000_000 * SECOND


class Clocks:
    """A wall clock that is set now and then, and a monotonic one."""

    def __init__(self) -> None:
        self.wall, self.monotonic = START, 0

    def intervals(self) -> Intervals:
        return Intervals(wall=lambda: self.wall, monotonic=lambda: self.monotonic)

    def passes(self, length: int, step: int = 0) -> None:
        self.wall += length + step
        self.monotonic += length


@given(st.lists(st.integers(SECOND // 10, 10 * SECOND), min_size=1))
def test_intervals_follow_each_other_without_a_gap(lengths: list[int]) -> None:
    clocks = Clocks()
    intervals, end = clocks.intervals(), START
    for length in lengths:
        clocks.passes(length)
        assert intervals.next() == (end, end + length)
        end += length


@given(st.sampled_from((-120, -3, 3, 120)), st.integers(1, 10))
def test_after_the_clock_is_set_they_go_on_at_the_new_time_as_long_as_before(
    step_seconds: int, others: int
) -> None:
    clocks = Clocks()
    intervals = clocks.intervals()
    clocks.passes(SECOND)
    intervals.next()
    clocks.passes(SECOND, step_seconds * SECOND)
    now = START + (2 + step_seconds) * SECOND
    assert intervals.next() == (now - SECOND, now)
    for each in range(others):
        clocks.passes(SECOND)
        assert intervals.next() == (now + each * SECOND, now + (each + 1) * SECOND)


def around_a_second(least: int, most: int) -> st.SearchStrategy[int]:
    return st.sampled_from((least * SECOND, -SECOND, 0, SECOND)) | st.integers(
        least * SECOND, most * SECOND
    )


@given(
    st.lists(
        st.tuples(around_a_second(0, 5).filter(lambda each: each >= 0), around_a_second(-2, 2)),
        min_size=1,
    )
)
def test_none_is_empty_or_has_the_end_of_the_one_before(moves: list[tuple[int, int]]) -> None:
    clocks = Clocks()
    intervals, before = clocks.intervals(), 0
    for length, step in moves:
        clocks.passes(length, step)
        start, end = intervals.next()
        assert start < end != before
        before = end
