"""Whether a pair is OK or FAIL."""

from flowverdict_rca.pairs import Endpoint, Pair, Status, decide
from flowverdict_rca.settings import RcaSettings
from flowverdict_runtime.settings import load

SETTINGS = load(RcaSettings, {})
A, B = Endpoint("pod", "d/a"), Endpoint("pod", "d/b")


def pane(segments: int = 0, again: int = 0, opens: int = 0, failed_opens: int = 0) -> Pair:
    return Pair(A, B, segments, again, opens, failed_opens)


def status(*panes: Pair) -> Status:
    return decide(panes, SETTINGS)[0]


def test_a_pair_fails_above_five_percent_and_not_at_it() -> None:
    assert status(pane(100, 6)) is Status.FAIL
    assert status(pane(100, 5)) is Status.OK


def test_two_retransmissions_are_no_failure_however_few_the_segments() -> None:
    assert status(pane(10, 2)) is Status.UNDECIDED
    assert status(pane(10, 3)) is Status.FAIL


def test_a_failing_present_is_not_outweighed_by_a_healthy_past() -> None:
    assert status(pane(15, 3), pane(10_000), pane(10_000)) is Status.FAIL


def test_a_healthy_present_is_not_outweighed_by_a_failing_past() -> None:
    assert status(pane(1000), pane(100, 50)) is Status.OK


def test_a_pair_that_fell_silent_is_not_called_ok_for_its_past() -> None:
    assert status(pane(3, 1), pane(600), pane(600)) is Status.UNDECIDED


def test_a_slow_pair_is_ok_by_the_whole_window() -> None:
    assert status(pane(5), pane(5), pane(5), pane(5), pane(5)) is Status.OK


def test_a_pair_that_cannot_connect_fails_without_any_segment_sent_again() -> None:
    assert status(pane(opens=1, failed_opens=4)) is Status.FAIL
    assert status(pane(segments=50, opens=9, failed_opens=4)) is Status.OK


def test_a_ratio_is_at_most_one_though_a_fin_is_counted_only_when_sent_again() -> None:
    assert pane(2, 5).retransmission_ratio == 1.0
