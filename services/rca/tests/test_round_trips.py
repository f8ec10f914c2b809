"""Latency and jitter, found in long windows; and how what is normal is kept."""

from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flowverdict_rca.above_normal import MEASURED
from flowverdict_rca.normal import Normal
from tests.mesh import PODS, Loss, Mesh, at


def delayed(is_slow: Callable[[str, str], bool], rtt_us: float = 300_000) -> Loss:
    return lambda src, dst: rtt_us if is_slow(src, dst) else 400


@pytest.mark.parametrize(
    ("is_slow", "cause"),
    [
        (lambda src, dst: "pod-b" in (src, dst), "pod default/pod-b"),
        (lambda src, dst: "worker1" in (PODS[src], PODS[dst]), "node worker1"),
        (
            lambda src, dst: {PODS[src], PODS[dst]} == {"worker0", "worker2"},
            "the link between nodes worker0 <-> worker2",
        ),
    ],
)
def test_what_makes_round_trips_long_is_named_alone_as_a_warning_and_recovers(
    is_slow: Callable[[str, str], bool], cause: str
) -> None:
    mesh = Mesh()
    mesh.passes(150)
    mesh.rtt_us = delayed(is_slow)
    mesh.passes(120)
    assert mesh.said() == [("opened", cause)]
    opened = mesh.verdicts[0]
    assert (opened.severity, opened.conditions) == ("warning", ("HIGH_LATENCY",))
    assert " is slow: the round trips of " in opened.summary
    assert ", usually 0." in opened.summary
    mesh.rtt_us = delayed(lambda src, dst: False)
    mesh.passes(120)
    assert mesh.said()[1:] == [("resolved", cause)]


def test_round_trips_that_also_vary_more_than_they_did_are_jitter() -> None:
    mesh = Mesh()
    mesh.passes(150)
    mesh.rtt_us = delayed(lambda src, dst: "pod-b" in (src, dst))
    mesh.rtt_variation_us = lambda src, dst: 40_000 if "pod-b" in (src, dst) else 100
    mesh.passes(120)
    assert mesh.said() == [("opened", "pod default/pod-b")]
    assert mesh.verdicts[0].conditions == ("HIGH_LATENCY", "HIGH_JITTER")
    assert "They also vary more than usual, by 40 ms." in mesh.verdicts[0].summary


def test_round_trips_that_vary_more_but_take_no_longer_are_jitter_of_their_own() -> None:
    mesh = Mesh()
    mesh.rtt_us = lambda src, dst: 30_000
    mesh.passes(150)
    mesh.rtt_variation_us = lambda src, dst: 20_000 if "pod-b" in (src, dst) else 100
    mesh.passes(120)
    assert mesh.said() == [("opened", "pod default/pod-b")]
    opened = mesh.verdicts[0]
    assert (opened.basis, opened.conditions) == ("jitter", ("HIGH_JITTER",))
    assert opened.severity == "warning"
    assert (
        " has high jitter: the round trips of 16 flows vary by 20 ms, usually by 0.1 ms, and take 3"
        in opened.summary
    )
    assert {flow.rtt_variation_us for flow in opened.failing_flows} == {20_000}
    mesh.rtt_variation_us = lambda src, dst: 100
    mesh.passes(120)
    assert mesh.said()[1:] == [("resolved", "pod default/pod-b")]
    assert mesh.verdicts[-1].summary == (
        "The round trips of pod default/pod-b vary no more than usual."
    )


def test_a_node_whose_round_trips_vary_is_named_and_not_its_pods() -> None:
    mesh = Mesh()
    mesh.rtt_us = lambda src, dst: 30_000
    mesh.passes(150)
    mesh.rtt_variation_us = lambda src, dst: (
        20_000 if (PODS[src] == "worker1") != (PODS[dst] == "worker1") else 100
    )
    mesh.passes(120)
    assert mesh.said() == [("opened", "node worker1")]


def test_two_nodes_of_three_that_are_slow_are_named() -> None:
    mesh = Mesh()
    mesh.passes(150)
    mesh.rtt_us = delayed(lambda src, dst: {PODS[src], PODS[dst]} != {"worker0"})
    mesh.passes(120)
    assert sorted(mesh.said()) == [("opened", "node worker1"), ("opened", "node worker2")]


@pytest.mark.parametrize("factor", [10, 100])
def test_what_is_slower_everywhere_has_no_one_to_blame(factor: int) -> None:
    def usual(src: str, dst: str) -> float:
        return 1_500 if {src, dst} in ({"pod-a", "pod-h"}, {"pod-c", "pod-e"}) else 300

    mesh = Mesh()
    mesh.rtt_us = usual
    mesh.passes(150)
    mesh.rtt_us = lambda src, dst: factor * usual(src, dst)
    mesh.rtt_variation_us = lambda src, dst: 100 * factor
    mesh.passes(300)
    assert mesh.verdicts == []
    mesh.rtt_us = delayed(lambda src, dst: "worker1" in (PODS[src], PODS[dst]), 20 * factor * 300)
    mesh.passes(120)
    assert mesh.said() == [("opened", "node worker1")]


def test_that_short_ways_take_a_little_longer_does_not_hide_a_long_one_that_became_slow() -> None:
    mesh = Mesh()
    mesh.rtt_us = delayed(lambda src, dst: "pod-b" in (src, dst), 30_000)
    mesh.passes(150)
    mesh.rtt_us = lambda src, dst: 250_000 if "pod-b" in (src, dst) else 1_800
    mesh.passes(120)
    assert mesh.said() == [("opened", "pod default/pod-b")]


def test_some_acknowledgements_that_are_delayed_are_no_jitter() -> None:
    mesh = Mesh()
    mesh.passes(150)
    mesh.rtt_variation_us = lambda src, dst: 8_000 if "pod-b" in (src, dst) else 100
    mesh.passes(120)
    assert mesh.verdicts == []


def test_round_trips_that_have_always_been_long_are_normal() -> None:
    mesh = Mesh()
    mesh.rtt_us = delayed(lambda src, dst: "pod-b" in (src, dst), 40_000)
    mesh.passes(300)
    assert mesh.verdicts == []


def test_round_trips_that_creep_up_do_not_become_normal_on_their_way() -> None:
    mesh = Mesh()
    mesh.rtt_us = lambda src, dst: 10_000
    mesh.passes(300)
    for windows in range(1, 31):
        mesh.rtt_us = delayed(lambda src, dst: "pod-b" in (src, dst), 10_000 * 1.1**windows)
        mesh.passes(30)
    assert mesh.said()[:1] == [("opened", "pod default/pod-b")]
    assert ", usually 1" in mesh.verdicts[0].summary


def test_what_takes_longer_by_day_than_by_night_is_normal() -> None:
    mesh = Mesh()
    for hours in (0, 0.5, 1, 0.5, 0, 0.5, 1):
        for minutes in range(6):
            mesh.rtt_us = delayed(lambda src, dst: True, 10_000 * (1 + hours + minutes / 60))
            mesh.passes(30)
    assert mesh.verdicts == []


def test_one_pair_alone_whose_round_trips_are_longer_is_used_differently() -> None:
    mesh = Mesh()
    mesh.passes(150)
    mesh.rtt_us = delayed(lambda src, dst: (src, dst) == ("pod-a", "pod-h"), 40_000)
    mesh.passes(120)
    assert mesh.verdicts == []


def test_what_is_slow_and_loses_is_one_incident() -> None:
    mesh = Mesh()
    mesh.passes(150)
    mesh.rtt_us = delayed(lambda src, dst: "pod-b" in (src, dst))
    mesh.passes(120, at("pod-b", 0.2))
    assert mesh.said() == [("opened", "pod default/pod-b")]


def test_what_short_windows_find_while_it_was_pending_in_long_ones_is_one_incident() -> None:
    mesh = Mesh()
    mesh.passes(150)
    mesh.rtt_us = delayed(lambda src, dst: "pod-b" in (src, dst))
    mesh.passes(35)  # slow in one long window
    assert mesh.verdicts == []
    mesh.passes(100, at("pod-b", 0.2))
    assert mesh.said() == [("opened", "pod default/pod-b")]
    assert mesh.verdicts[0].severity == "critical"


def test_latency_goes_on_while_nothing_measures_it_and_over_a_restart() -> None:
    mesh = Mesh()
    mesh.passes(150)
    mesh.rtt_us = delayed(lambda src, dst: "pod-b" in (src, dst))
    mesh.passes(120)
    normal = mesh.judge.learn(mesh.tables())
    mesh.restart()
    mesh.rtt_us = lambda src, dst: 0
    mesh.passes(120)
    mesh.judge.expect(Normal.decode(normal.encode(1 << 18)))
    mesh.rtt_us = delayed(lambda src, dst: "pod-b" in (src, dst))
    mesh.passes(120)
    assert mesh.said() == [("opened", "pod default/pod-b")]
    mesh.rtt_us = delayed(lambda src, dst: False)
    mesh.passes(120)
    assert mesh.said()[1:] == [("resolved", "pod default/pod-b")]


def test_latency_of_a_pod_that_is_deleted_is_over() -> None:
    mesh = Mesh()
    mesh.passes(150)
    mesh.rtt_us = delayed(lambda src, dst: "pod-b" in (src, dst))
    mesh.passes(120)
    mesh.conditions["pod-b"] = "terminating"
    mesh.passes(3)
    others = list(permutations(set(PODS) - {"pod-b"}, 2))
    mesh.passes_rows(60, lambda: [mesh.row(*each, 0) for each in others])
    assert mesh.said() == [("opened", "pod default/pod-b"), ("resolved", "pod default/pod-b")]


numbers = st.integers(0, 1 << 40)
readings = st.dictionaries(st.sampled_from(MEASURED), st.tuples(numbers, numbers))


@given(st.dictionaries(st.text(), readings, max_size=50), st.integers(40, 2000))
def test_what_is_normal_is_kept_as_far_as_there_is_room(
    measured: dict[str, dict[str, tuple[int, int]]], room: int
) -> None:
    known = Normal(measured=measured)
    packed = known.encode(room)
    assert len(packed) <= room
    kept = Normal.decode(packed)
    assert list(kept.measured.items()) == list(measured.items())[: len(kept.measured)]
    assert len(known.encode(1 << 20)) > room or kept == known
    assert Normal.decode(packed[:-1]) == Normal()
