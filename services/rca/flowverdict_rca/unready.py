"""For how long services have been without a ready endpoint."""

from collections.abc import Mapping

from flowverdict_flows.endpoint import Endpoint
from flowverdict_rca.facts import NO_READY_ENDPOINTS

__all__ = ["UnreadyServices"]

_PATIENCE_NS = 20_000_000_000
_AFTERMATH_NS = 10_000_000_000
"""Attempts to connect that began without a ready endpoint end in this time at the latest."""


class UnreadyServices:
    """Services without a ready endpoint: for less than 20 seconds, that is no incident.

    A node that is drained, a restart or a rollout leaves a service with a single pod without one
    for a moment.

    Args:
        window_ns: length of a window. Reports further apart than this belong to separate outages.
    """

    def __init__(self, window_ns: int) -> None:
        self._window_ns = window_ns
        self._known: dict[Endpoint, tuple[int, int]] = {}  # since when, and until when
        self._end_ns = 0

    def add(self, conditions: Mapping[Endpoint, str], start_ns: int, end_ns: int) -> None:
        """Take note of a pane's conditions; panes come in order.

        A service without one in the first pane may have been without for long: it is not brief.
        """
        for endpoint, condition in conditions.items():
            if condition == NO_READY_ENDPOINTS:
                since, until = self._known.get(endpoint, (0, 0))
                if until < start_ns - self._window_ns:
                    since = start_ns if self._end_ns else 0
                self._known[endpoint] = since, end_ns
        self._end_ns = end_ns
        oldest = end_ns - self._window_ns - _AFTERMATH_NS
        self._known = {each: run for each, run in self._known.items() if run[1] > oldest}

    def lately(self) -> frozenset[Endpoint]:
        """Those that are without one, or were when attempts began that fail in this window."""
        return frozenset(self._known)

    def brief(self) -> frozenset[Endpoint]:
        """Those whose outage has been short so far, or was short and has just ended."""
        return frozenset(
            each for each, (since, until) in self._known.items() if until - since < _PATIENCE_NS
        )
