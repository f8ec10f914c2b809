"""Rows to windows, by event time."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import enriched_batch, flow_row, header
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.verdicts import encode
from flowverdict_rca.judgement import judge, verdict
from flowverdict_rca.panes import Panes
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import Window
from flowverdict_rca.window import total as counted
from flowverdict_runtime.settings import load

SETTINGS = load(RcaSettings, {"FLOWVERDICT_PANE_SECONDS": "2", "FLOWVERDICT_WINDOW_PANES": "3"})
SECOND = 1_000_000_000
T = 1_000_000


def add(panes: Panes, second: float, sequence: int = 0, node: str = "n1", again: int = 1) -> None:
    row = flow_row("pod-a@w0", "pod-b@w1", retransmitted_segments=again)
    panes.add(
        header(second, sequence or int(second), node), enriched_batch(row), sequence or int(second)
    )


def total(window: Window) -> int:
    return int(counted(window.panes, "retransmitted_data_segments").sum())


def test_a_window_is_given_when_every_node_has_passed_its_end() -> None:
    panes = Panes(SETTINGS)
    for node in ("n1", "n2"):
        for second in range(2):
            add(panes, T + second, node=node)
    assert list(panes.windows()) == []
    add(panes, T + 2, node="n1")
    assert list(panes.windows()) == []
    add(panes, T + 2, node="n2")
    (window,) = panes.windows()
    assert total(window) == 4
    assert window.end_ns == (T + 2) * SECOND
    assert window.coverage.nodes_reporting == ("n1", "n2")


def test_a_window_is_the_last_panes_together() -> None:
    panes = Panes(SETTINGS)
    windows: list[Window] = []
    for second in range(12):
        add(panes, T + second)
        windows += panes.windows()
    assert [total(window) for window in windows] == [2, 4, 6, 6, 6]
    assert all(w.end_ns - w.start_ns == 6 * SECOND for w in windows)


def test_a_slow_node_is_waited_for_only_so_long_and_then_called_silent() -> None:
    panes = Panes(SETTINGS)
    add(panes, T, node="slow")
    windows: list[Window] = []
    for second in range(30):
        add(panes, T + second, node="fast")
        windows += panes.windows()
    assert windows[0].end_ns == (T + 2) * SECOND
    assert windows[-1].coverage.nodes_silent == ("slow",)
    assert windows[-1].coverage.nodes_reporting == ("fast",)


def test_rows_after_their_window_are_counted_as_late_and_not_judged() -> None:
    panes = Panes(SETTINGS)
    for second in range(4):
        add(panes, T + second)
    list(panes.windows())
    add(panes, T, sequence=T + 99, again=1000)
    for second in range(4, 8):
        add(panes, T + second, sequence=T + 100 + second)
    windows = list(panes.windows())
    assert windows[0].coverage.rows_late == 1
    assert all(total(window) < 1000 for window in windows)


def test_an_interval_merged_over_an_outage_belongs_to_its_end() -> None:
    panes = Panes(SETTINGS)
    add(panes, T)
    add(panes, T + 2)
    list(panes.windows())
    long = IntervalHeader("n1", "boot", 9, (T + 3) * SECOND, (T + 303) * SECOND)
    panes.add(
        long, enriched_batch(flow_row("pod-a@w0", "pod-b@w1", retransmitted_segments=50)), T + 9
    )
    add(panes, T + 305, sequence=T + 400)
    windows = list(panes.windows())
    assert 50 in [total(window) for window in windows]
    assert len(windows) < 40


def test_when_all_clocks_are_set_back_judging_begins_anew_within_a_minute() -> None:
    panes = Panes(SETTINGS)
    for second in range(20):
        add(panes, T + second)
    list(panes.windows())
    before = panes.watermark_ns
    restarted = Panes(SETTINGS, before, panes.last_sequence, heard=panes.heard)
    for each in (panes, restarted):
        windows: list[Window] = []
        for second in range(60):
            add(each, T - 3600 + second, sequence=T + 100 + second, node="n1")
            add(each, T - 3600 + second, sequence=T + 100 + second, node="n2")
            windows += each.windows()
        assert windows
        assert all(window.end_ns < before for window in windows)
        assert windows[-1].coverage.nodes_reporting == ("n1", "n2")
        assert windows[-1].coverage.nodes_silent == ()


def test_a_burst_of_messages_that_were_delivered_again_does_not_make_judging_begin_anew() -> None:
    panes = Panes(SETTINGS)
    for second in range(120):
        add(panes, T + second)
    list(panes.windows())
    before = panes.watermark_ns
    for second in range(50):
        late = header(T + second, sequence=1000 + second)
        panes.add(late, enriched_batch(), T + 1000 + second, stored_ns=(T + 121) * SECOND)
    assert panes.watermark_ns == before


def test_one_node_that_is_long_behind_does_not_make_judging_begin_anew() -> None:
    panes = Panes(SETTINGS)
    windows: list[Window] = []
    for second in range(120):
        add(panes, T + second, sequence=T + 2 * second)
        add(panes, T - 3600 + second, sequence=T + 2 * second + 1, node="behind")
        windows += panes.windows()
    ends = [window.end_ns for window in windows]
    assert ends == sorted(ends)
    assert ends[-1] > (T + 100) * SECOND


def test_a_node_that_nats_has_to_date_is_late_in_the_coverage() -> None:
    panes = Panes(SETTINGS)
    late = replace(header(T), clock_behind_ns=90 * SECOND)
    ahead = replace(header(T, node="n2"), clock_behind_ns=-90 * SECOND)
    for number, each in enumerate((late, ahead), 1):
        panes.add(each, enriched_batch(), number)
    add(panes, T + 3)
    add(panes, T + 3, node="n2")
    assert next(panes.windows()).coverage.nodes_late == ("n1",)


def test_kernel_losses_are_in_the_coverage() -> None:
    panes = Panes(SETTINGS)
    lossy = IntervalHeader(
        "n1", "boot", 1, T * SECOND, (T + 1) * SECOND, lost_flow_updates=7, lost_sockets=2
    )
    panes.add(lossy, enriched_batch(), 1)
    add(panes, T + 3)
    coverage = next(panes.windows()).coverage
    assert (coverage.lost_flow_updates, coverage.lost_sockets) == (7, 2)


def test_losses_are_in_the_coverage_by_node_worst_first() -> None:
    panes = Panes(SETTINGS)
    for sequence, node in enumerate(("n1", "n2", "n3"), 1):
        lossy = replace(header(T, node=node), lost_sockets=sequence, skipped_runs=sequence % 2)
        panes.add(lossy if node != "n3" else header(T, node=node), enriched_batch(), sequence)
        add(panes, T + 3, sequence + 10, node=node)
    coverage = next(panes.windows()).coverage
    assert [(each.node, each.lost_sockets, each.skipped_runs) for each in coverage.by_node] == [
        ("n1", 1, 1),
        ("n2", 2, 0),
    ]
    assert (coverage.lost_sockets, coverage.skipped_runs) == (3, 1)


def test_messages_that_never_came_are_in_the_coverage(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("flowverdict_flows.continuity.time.monotonic", lambda: clock[0])
    panes = Panes(SETTINGS)
    panes.add(header(T, 1), enriched_batch(), 1)
    panes.add(header(T, 5), enriched_batch(), 2)
    clock[0] = 61.0
    panes.add(header(T + 1, 6), enriched_batch(), 3)
    add(panes, T + 3)
    coverage = next(panes.windows()).coverage
    assert coverage.lost_messages == 3
    assert [(each.node, each.lost_messages) for each in coverage.by_node] == [("n1", 3)]


def test_a_node_whose_rows_come_late_is_late_and_not_silent() -> None:
    panes, windows = Panes(SETTINGS), list[Window]()
    for second in range(20):
        panes.add(header(T + second), enriched_batch(), 2 * second + 1, (T + second + 1) * SECOND)
        behind = header(T + second - 30, node="n2")
        panes.add(behind, enriched_batch(), 2 * second + 2, (T + second + 1) * SECOND)
        windows += panes.windows()
    coverage = windows[-1].coverage
    assert coverage.nodes_late == ("n2",)
    assert coverage.nodes_silent == ()


def test_of_very_many_nodes_a_verdict_names_some_and_says_how_many_more() -> None:
    panes = Panes(SETTINGS)
    for number in range(12_000):
        panes.add(header(T, node=f"node-{number:05}" + "x" * 200), enriched_batch(), number + 1)
    add(panes, T, 12_001)
    add(panes, T + 20, 12_002)
    assert len(panes.heard) <= 5000
    judgement = judge(next(panes.windows()), SETTINGS)
    found = verdict("a", 0, "opened", judgement, (), judgement.failing)
    assert len(found.coverage.nodes_reporting) == 20
    assert found.coverage.more_nodes_reporting > 10_000
    assert len(encode(found)) < 100_000


def test_what_stays_on_a_host_is_not_judged() -> None:
    panes = Panes(SETTINGS)
    row = flow_row("pod-a@w0", "pod-b@w1") | {"src_ip": "127.0.0.1", "dst_ip": "127.0.0.1"}
    panes.add(header(T), enriched_batch(row), 1)
    add(panes, T + 3, sequence=2)
    assert next(panes.windows()).panes.shape[1] == 0


@given(st.lists(st.integers(0, 40), min_size=1, max_size=30), st.integers(0, 29))
def test_a_restart_anywhere_gives_the_windows_that_would_have_come(
    seconds: list[int], cut: int
) -> None:
    """Messages in any order; the second worker reads again from where the first says."""
    messages = [(T + second, number) for number, second in enumerate(seconds, 1)]

    def feed(panes: Panes, part: list[tuple[int, int]]) -> list[Window]:
        given: list[Window] = []
        for second, sequence in part:
            add(panes, second, sequence)
            given += panes.windows()
        return given

    whole = feed(Panes(SETTINGS), messages)
    first = Panes(SETTINGS)
    before = feed(first, messages[:cut])
    second = Panes(SETTINGS, first.watermark_ns, first.last_sequence, first.too_late)
    resumed = feed(second, [each for each in messages if each[1] >= first.resume_from])
    after = before + resumed
    assert [(w.end_ns, total(w)) for w in after] == [(w.end_ns, total(w)) for w in whole]


def test_a_window_has_only_the_addresses_that_its_endpoints_had_in_it() -> None:
    panes = Panes(SETTINGS)
    windows: list[Window] = []
    for second in range(40):
        row = flow_row("pod-a@w0", "pod-b@w1") | {"src_ip": f"10.0.9.{second // 10}"}
        panes.add(header(T + second, second + 1), enriched_batch(row), second + 1)
        windows += panes.windows()
    moved = [
        sorted(addresses)
        for endpoint, addresses in windows[-1].addresses.items()
        if endpoint.name == "pod-a"
    ]
    assert moved == [["10.0.9.3"]]


def test_a_flood_of_addresses_hides_no_fault_and_takes_no_room() -> None:
    """As many new addresses a second as a scan or an attack from the Internet brings."""
    panes, found = Panes(SETTINGS), []
    outside = {"src_kind": "external", "src_namespace": "", "src_pod": "", "src_workload": ""}
    pods = {f"pod-{letter}": f"worker{at // 2}" for at, letter in enumerate("abcdef")}
    fault = [
        flow_row(
            f"{src}@{pods[src]}", f"{dst}@{pods[dst]}",
            retransmitted_segments=20 if "pod-a" in (src, dst) else 0,
        )
        for src, dst in itertools.permutations(pods, 2)
    ]  # fmt: skip
    sequence = 0
    for second in range(10):
        flood = [
            flow_row("x", "pod-f@worker2", retransmitted_segments=at % 2)
            | outside
            | {"src_ip": f"45.{second}.{at >> 8}.{at & 255}"}
            for at in range(3000)
        ]
        for rows in (flood, fault):
            sequence += 1
            panes.add(header(T + second, sequence), enriched_batch(*rows), sequence)
        for window in panes.windows():
            assert len(window.src) <= 5001 + len(fault)
            found += [str(each.causes[0]) for each in judge(window, SETTINGS).findings]
    assert set(found) == {"pod default/pod-a"}
