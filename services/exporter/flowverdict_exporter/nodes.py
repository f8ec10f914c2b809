"""Each node: when it last reported, and what was not counted on it."""

import dataclasses
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_flows.continuity import Continuity, KnownRun

__all__ = ["KeptNodes", "NodeCounts", "Nodes"]


@dataclass(slots=True)
class NodeCounts:
    """What is known of a node.

    Attributes:
        last_interval_seconds: end of its last interval, as a Unix timestamp.
        lost_flow_updates: how many its kernel's maps had no room for.
        lost_sockets: how many sockets its kernel's maps had no room for.
        lost_messages: how many of its messages never came.
        run_id: its collector's run.
        end_ns: end of the last interval of that run, UTC nanoseconds.
        uncounted_seconds: between two runs.
        clock_behind_seconds: against the clock of NATS.
        last_message: when it was last heard, on the monotonic clock.
    """

    last_interval_seconds: float = 0.0
    lost_flow_updates: int = 0
    lost_sockets: int = 0
    lost_messages: int = 0
    run_id: str = ""
    end_ns: int = 0
    uncounted_seconds: float = 0.0
    clock_behind_seconds: float = 0.0
    last_message: float = 0.0

    def follow(self, header: IntervalHeader) -> None:
        """Add the time since the run before, if the interval is the first one of a new run."""
        if header.run_id != self.run_id and header.end_ns > self.end_ns:
            if self.run_id:
                self.uncounted_seconds += max(0, header.start_ns - self.end_ns) / 1e9
            self.run_id = header.run_id
        self.end_ns = max(self.end_ns, header.end_ns)


@dataclass(frozen=True, slots=True)
class KeptNodes:
    """What is known of each node, and of which of its messages have come."""

    nodes: dict[str, NodeCounts]
    runs: list[KnownRun]


_EXPIRE_SECONDS = 86400.0
"""A node silent for a day is assumed to be gone; until then it is still shown."""

_MAX_NODES = 10_000


class Nodes(Collector):
    """The ten thousand nodes that reported last; for a `prometheus_client` registry.

    Attributes:
        is_shown: whether there is anything to collect now.
    """

    def __init__(self) -> None:
        self.is_shown: Callable[[], bool] = lambda: True
        self._nodes: dict[str, NodeCounts] = {}
        self._lock = threading.Lock()
        self._continuity = Continuity()

    def kept(self) -> KeptNodes:
        """All that is known, to go on from."""
        with self._lock:
            nodes = {name: dataclasses.replace(each) for name, each in self._nodes.items()}
            return KeptNodes(nodes, self._continuity.runs())

    def restore(self, kept: KeptNodes) -> None:
        """Go on from there."""
        now = time.monotonic()
        nodes = {n: dataclasses.replace(each, last_message=now) for n, each in kept.nodes.items()}
        with self._lock:
            self._nodes, self._continuity = nodes, Continuity(kept.runs)

    def add(self, header: IntervalHeader) -> None:
        """Record a message from a node."""
        with self._lock:
            # Taken out and put back, they are in the order in which they were heard.
            node = self._nodes[header.node] = self._nodes.pop(header.node, NodeCounts())
            if len(self._nodes) > _MAX_NODES:
                del self._nodes[next(iter(self._nodes))]
            ended = min(header.end_ns / 1e9, time.time())
            node.last_interval_seconds = max(node.last_interval_seconds, ended)
            node.lost_flow_updates += header.lost_flow_updates
            node.lost_sockets += header.lost_sockets
            for name, messages in self._continuity.add(header).items():
                if name in self._nodes:
                    self._nodes[name].lost_messages += messages
            node.last_message = time.monotonic()
            node.clock_behind_seconds = header.clock_behind_ns / 1e9
            node.follow(header)

    def collect(self) -> Iterator[Metric]:
        """The metrics, for a scrape."""
        if not self.is_shown():
            return
        last = GaugeMetricFamily(
            "flowverdict_node_last_interval_timestamp_seconds",
            "End of the last interval that a node's collector sent, as a Unix timestamp.",
            labels=["node"],
        )
        updates = CounterMetricFamily(
            "flowverdict_lost_flow_updates",
            "Flow updates not recorded because the node's kernel flow map was full.",
            labels=["node"],
        )
        sockets = CounterMetricFamily(
            "flowverdict_lost_sockets",
            "Sockets not tracked because the node's kernel socket map was full.",
            labels=["node"],
        )
        messages = CounterMetricFamily(
            "flowverdict_lost_messages",
            "Messages of a node's collector that never came, known a minute later: a stream "
            "evicted them, NATS lost its store, or the enricher could not read them.",
            labels=["node"],
        )
        uncounted = CounterMetricFamily(
            "flowverdict_uncounted_seconds",
            "Time in which nothing was counted on a node: its collector was restarted and had "
            "pinned nothing.",
            labels=["node"],
        )
        behind = GaugeMetricFamily(
            "flowverdict_node_clock_behind_seconds",
            "How far a node's clock is behind that of NATS, negative if it is ahead; 0 up to five "
            "seconds.",
            labels=["node"],
        )
        oldest = time.monotonic() - _EXPIRE_SECONDS
        with self._lock:
            self._nodes = {n: each for n, each in self._nodes.items() if each.last_message > oldest}
            for name, node in self._nodes.items():
                last.add_metric([name], node.last_interval_seconds)
                updates.add_metric([name], node.lost_flow_updates)
                sockets.add_metric([name], node.lost_sockets)
                messages.add_metric([name], node.lost_messages)
                uncounted.add_metric([name], node.uncounted_seconds)
                behind.add_metric([name], node.clock_behind_seconds)
        yield from (last, updates, sockets, messages, uncounted, behind)
