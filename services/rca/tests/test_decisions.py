"""Whether a pair is OK or FAIL."""

from collections import Counter
from typing import Any

import numpy as np
import pytest

from conftest import flow_row, window_of
from flowverdict_rca.decisions import Decisions, PairStatus, decide
from flowverdict_rca.settings import RcaSettings
from flowverdict_runtime.settings import load

SETTINGS = load(RcaSettings, {})


def pane(segments: int = 0, again: int = 0, **counts: int) -> list[dict[str, Any]]:
    """What pod a sends to pod b in one pane."""
    return [
        flow_row(
            "a@w0", "b@w1", data_segments_sent=segments, retransmitted_segments=again, **counts
        )
    ]


def decided(*panes: list[dict[str, Any]]) -> Decisions:
    missing: list[list[dict[str, Any]]] = [[] for _ in range(SETTINGS.window_panes - len(panes))]
    window = window_of(*panes, *missing, settings=SETTINGS)
    return decide(window, SETTINGS, np.full(len(window.src), SETTINGS.fail_ratio))


def status(*panes: list[dict[str, Any]]) -> PairStatus:
    (found,) = decided(*panes).status
    return PairStatus(found)


def test_a_pair_fails_above_five_percent_and_not_at_it() -> None:
    assert status(pane(100, 6)) is PairStatus.FAIL
    assert status(pane(100, 5)) is PairStatus.OK


def test_opens_and_syns_do_not_water_the_ratio_down() -> None:
    assert status(pane(100, 6, opens=50, failed_opens=2)) is PairStatus.FAIL


def test_two_retransmissions_are_no_failure_however_few_the_segments() -> None:
    assert status(pane(10, 2)) is PairStatus.UNDECIDED
    assert status(pane(10, 3)) is PairStatus.FAIL


def test_retransmissions_of_which_most_were_not_necessary_are_no_failure() -> None:
    assert status(pane(100, 10, spurious_retransmissions=5)) is PairStatus.OK
    assert status(pane(100, 10, spurious_retransmissions=4)) is PairStatus.FAIL
    assert status(pane(100, 10, spurious_retransmissions=99)) is PairStatus.OK


def test_a_failing_present_is_not_outweighed_by_a_healthy_past() -> None:
    assert status(pane(15, 3), pane(10_000), pane(10_000)) is PairStatus.FAIL


def test_a_healthy_present_is_not_outweighed_by_a_failing_past() -> None:
    assert status(pane(1000), pane(100, 50)) is PairStatus.OK


@pytest.mark.parametrize("since_the_burst", range(SETTINGS.window_panes))
def test_pairs_that_all_pause_since_a_burst_stay_ok(since_the_burst: int) -> None:
    pods = [f"pod-{each}@w{each % 4}" for each in range(12)]
    pairs = [(src, dst) for src in pods for dst in pods if src != dst]
    broken = [pair for pair in pairs if pods[0] in pair]
    burst = [
        flow_row(*pair, data_segments_sent=50, retransmitted_segments=12 * (pair in broken))
        for pair in pairs
    ]
    after = [flow_row(*each, data_segments_sent=2, retransmitted_segments=2) for each in broken]
    found = Counter(decided(*[after] * since_the_burst, burst).status.tolist())
    assert found == {PairStatus.FAIL: len(broken), PairStatus.OK: len(pairs) - len(broken)}


def test_a_pair_that_fell_silent_is_not_called_ok_for_its_past() -> None:
    assert status(pane(3, 1), pane(600), pane(600)) is PairStatus.UNDECIDED


def test_a_slow_pair_is_ok_by_the_whole_window() -> None:
    assert status(pane(5), pane(5), pane(5), pane(5), pane(5)) is PairStatus.OK


def test_a_pair_that_cannot_connect_fails_without_any_segment_retransmitted() -> None:
    assert status(pane(opens=1, failed_opens=4)) is PairStatus.FAIL
    assert status(pane(segments=50, opens=9, failed_opens=4)) is PairStatus.OK


def test_a_pair_whose_own_syns_go_unanswered_fails_before_any_attempt_has_ended() -> None:
    assert status(pane(again=4, retransmitted_syns=4)) is PairStatus.FAIL
    assert status(pane(50, 4, opens=200, retransmitted_syns=4)) is PairStatus.OK


def test_requests_that_never_become_connections_make_no_pair_ok_or_fail() -> None:
    assert status(pane(again=50, retransmitted_synacks=50)) is PairStatus.UNDECIDED
    many = pane(500, 50, opens=1, retransmitted_synacks=50)
    assert status(many) is PairStatus.OK


def test_a_flood_of_requests_is_half_open_at_the_endpoint_that_answers() -> None:
    rows = [
        flow_row("db@n2", f"client-{number}", data_segments_sent=0, retransmitted_segments=2,
                 retransmitted_synacks=2)
        | {"dst_kind": "external", "dst_pod": "", "dst_namespace": "", "dst_ip": f"45.0.1.{number}"}
        for number in range(200)
    ]  # fmt: skip
    rows.append(flow_row("web@n1", "db@n2"))
    found = decided(rows)
    (half_open,) = found.half_open
    assert (half_open.name, half_open.peers) == ("default/db", 200)
    assert half_open.retransmitted_synacks == 400
    assert found.positions(PairStatus.FAIL).size == 0


def test_a_ratio_is_at_most_one_though_a_fin_is_counted_only_when_retransmitted() -> None:
    (pair,) = decided(pane(2, 5)).pairs(decided(pane(2, 5)).positions(PairStatus.FAIL))
    assert pair.counts["retransmitted_data_segments"] == 5
    assert status(pane(2, 5)) is PairStatus.FAIL
