"""Nodes, as Prometheus sees them."""

import time

import pytest
from prometheus_client import CollectorRegistry

from conftest import SECOND
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_exporter.nodes import Nodes


def value(nodes: Nodes, name: str, node: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(nodes)
    return registry.get_sample_value(name, {"node": node})


LAST = "flowverdict_node_last_interval_timestamp_seconds"
LOST_UPDATES = "flowverdict_lost_flow_updates_total"
LOST_SOCKETS = "flowverdict_lost_sockets_total"


def interval(node: str, end_seconds: int, lost: int = 0, sockets: int = 0) -> IntervalHeader:
    return IntervalHeader(
        node, "b", 1, 0, end_seconds * SECOND, lost_flow_updates=lost, lost_sockets=sockets
    )


def test_a_nodes_last_interval_and_what_its_kernel_lost_are_shown() -> None:
    nodes = Nodes()
    for each in (interval("n1", 1000, 2), interval("n1", 999, 3, 1), interval("n2", 1001)):
        nodes.add(each)
    assert value(nodes, LAST, "n1") == 1000, "an interval that comes late is not the last"
    assert value(nodes, LOST_UPDATES, "n1") == 5
    assert value(nodes, LOST_SOCKETS, "n1") == 1
    assert value(nodes, LOST_UPDATES, "n2") == 0


def test_the_time_between_two_runs_of_a_collector_is_shown_as_uncounted() -> None:
    nodes = Nodes()
    for run_id, start, end in (
        ("a", 100, 101), ("a", 101, 102), ("b", 108, 109), ("a", 102, 103), ("b", 109, 110),
    ):  # fmt: skip
        nodes.add(IntervalHeader("n1", run_id, 1, start * SECOND, end * SECOND))
    assert value(nodes, "flowverdict_uncounted_seconds_total", "n1") == 6


def test_a_clock_that_is_ahead_does_not_hide_a_nodes_silence() -> None:
    nodes = Nodes()
    nodes.add(interval("n1", 9_000_000_000))
    seen = value(nodes, LAST, "n1")
    assert seen is not None
    assert seen <= time.time()


def test_a_node_that_is_gone_expires(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("flowverdict_exporter.nodes.time.monotonic", lambda: clock[0])
    nodes = Nodes()
    nodes.add(interval("n1", 1000))
    clock[0] += 86401
    assert value(nodes, LAST, "n1") is None


def test_messages_that_never_came_are_shown_a_minute_later(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("flowverdict_flows.continuity.time.monotonic", lambda: clock[0])
    nodes = Nodes()
    for second, sequence in ((0, 1), (1, 5), (30, 3), (60, 6)):
        clock[0] = float(second)
        nodes.add(IntervalHeader("n1", "b", sequence, 0, SECOND))
        assert value(nodes, "flowverdict_lost_messages_total", "n1") == 0
    clock[0] = 61.0
    nodes.add(IntervalHeader("n1", "b", 7, 0, SECOND))
    assert value(nodes, "flowverdict_lost_messages_total", "n1") == 2


def test_of_too_many_nodes_those_that_reported_last_are_shown() -> None:
    nodes = Nodes()
    nodes.add(interval("first", 1000, 2))
    for number in range(10_000):
        nodes.add(interval(f"n{number}", 1000))
        if number % 100 == 0:
            nodes.add(interval("busy", 1000, 1))
    nodes.add(interval("new", 1001))
    assert value(nodes, LAST, "new") == 1001
    assert value(nodes, LOST_UPDATES, "busy") == 100
    assert value(nodes, LAST, "first") is None
