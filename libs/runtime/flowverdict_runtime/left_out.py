"""Counts the rows of messages that cannot be true, by node and field."""

import logging
from collections.abc import Mapping

from prometheus_client import Counter

from flowverdict_runtime.logs import Throttle

__all__ = ["LeftOut"]

log = logging.getLogger(__name__)

_LEFT_OUT = Counter(
    "flowverdict_rows_left_out_total",
    "Rows of messages that were left out because a field has an impossible value.",
    ["node", "field"],
)
_MOST_NODES = 1000


class LeftOut:
    """What was left out, as a metric and in the log; nodes beyond a thousand count as `other`."""

    def __init__(self) -> None:
        self._nodes: set[str] = set()
        self._throttle = Throttle()

    def add(self, node: str, by_field: Mapping[str, int]) -> None:
        """Count the records of one message."""
        for field, count in by_field.items():
            if len(self._nodes) < _MOST_NODES:
                self._nodes.add(node)
            _LEFT_OUT.labels(node if node in self._nodes else "other", field).inc(count)
            self._throttle.warn(
                log,
                f"{node} {field}",
                "left out rows in which %s cannot be true",
                field,
                node=node,
                rows=count,
            )
