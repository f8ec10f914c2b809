"""Intervals that follow each other, though the wall clock may be set meanwhile."""

import time
from collections.abc import Callable

__all__ = ["Intervals"]

_STEP_NS = 500_000_000
"""If the clocks differ by more than this, the wall clock has been set."""


class Intervals:
    """The times of successive intervals.

    An interval is as long as the monotonic clock says, and begins where the one before ended. Once
    the wall clock has been set, forward or back, intervals continue at the new time with their full
    length. So none is empty, and none has the same end as the one before.

    Args:
        end_ns, ended_at_ns: the end of the one before, on either clock; without one, the first
            begins now.
        wall, monotonic: clocks, in nanoseconds.
    """

    def __init__(
        self,
        end_ns: int = 0,
        ended_at_ns: int = 0,
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall, self._monotonic = wall, monotonic
        self._end_ns, self._at_ns = end_ns or wall(), ended_at_ns or monotonic()

    @property
    def end_ns(self) -> int:
        """The end of the last interval, UTC nanoseconds."""
        return self._end_ns

    @property
    def ended_at_ns(self) -> int:
        """The end of the last interval on the monotonic clock."""
        return self._at_ns

    def next(self) -> tuple[int, int]:
        """Start and end of the interval that ends now, UTC nanoseconds."""
        now_ns, at_ns = self._wall(), self._monotonic()
        length_ns = max(1, at_ns - self._at_ns)
        start_ns = before_ns = self._end_ns
        if abs(now_ns - start_ns - length_ns) > _STEP_NS:
            start_ns = now_ns - length_ns
        end_ns = max(now_ns, start_ns + 1)
        self._at_ns, self._end_ns = at_ns, end_ns + (end_ns == before_ns)
        return start_ns, self._end_ns
