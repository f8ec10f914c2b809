"""`localise` and `learn` on tables of which the fault is known."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flowverdict_rca import Baseline, learn, localise

PODS = [f"pod-{letter}" for letter in "abcdefghijkl"]
NODE = {pod: f"n{number % 4}" for number, pod in enumerate(PODS)}
WORKLOAD = {pod: f"w{number // 2}" for number, pod in enumerate(PODS)}
Covers = Callable[[pd.DataFrame], Any]


def window(
    rng: np.random.Generator,
    *faults: tuple[Covers, float],
    segments: int = 4000,
    background: float = 1e-3,
    burst: int = 1,
) -> pd.DataFrame:
    """A mesh of pods with some loss everywhere, and more where a fault is."""
    pairs = [(src, dst) for src in PODS for dst in PODS if src != dst]
    table = pd.DataFrame(pairs, columns=["src_pod", "dst_pod"])
    for end in ("src", "dst"):
        table[f"{end}_node"] = table[f"{end}_pod"].map(NODE)
        table[f"{end}_workload"] = table[f"{end}_pod"].map(WORKLOAD)
    rate = np.full(len(table), background)
    for covers, loss in faults:
        rate += loss * np.asarray(covers(table), np.float64)
    table["segments"] = rng.poisson(segments, len(table)) + 1
    lost = rng.poisson(table["segments"] * rate / burst) * burst
    table["retransmits"] = np.minimum(lost, table["segments"])
    return table


def named(table: Any, baseline: Baseline | None = None, **options: Any) -> list[dict[str, Any]]:
    return [cause.where for cause in localise(table, baseline, **options).causes]


FAULTS: dict[str, tuple[dict[str, str], Covers]] = {
    "sending": ({"src_pod": "pod-b"}, lambda t: t.src_pod == "pod-b"),
    "receiving": ({"dst_pod": "pod-c"}, lambda t: t.dst_pod == "pod-c"),
    "pod": ({"pod": "pod-d"}, lambda t: (t.src_pod == "pod-d") | (t.dst_pod == "pod-d")),
    "node": ({"node": "n2"}, lambda t: (t.src_node == "n2") | (t.dst_node == "n2")),
    "link": (
        {"src_pod": "pod-a", "dst_pod": "pod-h"},
        lambda t: (t.src_pod == "pod-a") & (t.dst_pod == "pod-h"),
    ),
    "node pair": (
        {"src_node": "n1", "dst_node": "n3"},
        lambda t: (t.src_node == "n1") & (t.dst_node == "n3"),
    ),
    "workload": (
        {"workload": "w4"},
        lambda t: (t.src_workload == "w4") | (t.dst_workload == "w4"),
    ),
}


@pytest.mark.parametrize("loss", [0.01, 0.3])
@pytest.mark.parametrize("kind", FAULTS)
def test_each_kind_of_fault_is_named_alone_and_exactly(kind: str, loss: float) -> None:
    where, covers = FAULTS[kind]
    (cause,) = localise(window(np.random.default_rng(1), (covers, loss))).causes
    assert cause.where == where
    assert cause.rate == pytest.approx(loss, rel=0.35)
    assert cause.needed_bad < cause.bad


def test_two_faults_at_once_are_both_named() -> None:
    (node, in_node), (pod, at_pod) = FAULTS["node"], FAULTS["sending"]
    table = window(np.random.default_rng(2), (in_node, 0.02), (at_pod, 0.006))
    assert named(table) == [node, pod]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=30)
def test_the_same_rows_in_any_order_or_split_give_the_same_causes(seed: int) -> None:
    rng = np.random.default_rng(seed)
    where, covers = list(FAULTS.values())[int(rng.integers(len(FAULTS)))]
    table = window(rng, (covers, 0.02))
    half = table.assign(segments=table.segments // 2, retransmits=table.retransmits // 2)
    rest = table.assign(
        segments=table.segments - half.segments, retransmits=table.retransmits - half.retransmits
    )
    again = pd.concat([half, rest]).sample(frac=1, random_state=seed % 1000)
    assert named(again) == named(table) == [where]


def test_without_a_fault_nothing_is_named_and_it_says_whether_one_would_have_shown() -> None:
    rng = np.random.default_rng(3)
    outcomes = [localise(window(rng)).outcome for _ in range(100)]
    assert outcomes.count("healthy") >= 99
    assert localise(window(rng, segments=5)).outcome == "not enough evidence"
    assert localise([]).outcome == "not enough evidence"


def test_a_single_pair_is_a_link_and_its_alternatives_have_the_same_rows() -> None:
    row = {"src_pod": "a", "dst_pod": "b", "src_node": "n1", "dst_node": "n2"}
    others = [
        {"src_pod": f"x{n}", "dst_pod": f"y{n}", "src_node": f"n{n}", "dst_node": f"m{n}"}
        for n in range(5, 25)
    ]
    table = [{**row, "segments": 1000, "retransmits": 80}] + [
        {**each, "segments": 1000, "retransmits": 1} for each in others
    ]
    (cause,) = localise(table).causes
    assert cause.where == {"src_pod": "a", "dst_pod": "b"}
    assert {"pod": "a"} in cause.alternatives
    assert {"node": "n2"} in cause.alternatives


def test_a_pod_that_always_loses_more_is_not_a_fault_but_another_one_is() -> None:
    rng = np.random.default_rng(4)
    hub = (FAULTS["pod"][1], 0.003)
    baseline = learn([window(rng, hub) for _ in range(5)])
    assert named(window(rng, hub), baseline) == []
    where, covers = FAULTS["sending"]
    assert named(window(rng, hub, (covers, 0.005)), baseline) == [where]
    assert named(window(rng, hub)) == [FAULTS["pod"][0]], "without a baseline it is one"


def test_a_faulty_window_of_the_past_is_not_learnt_as_normal() -> None:
    rng = np.random.default_rng(5)
    where, covers = FAULTS["node"]
    past = [window(rng) for _ in range(6)]
    past[2] = window(rng, (covers, 0.2))
    assert named(window(rng, (covers, 0.005)), learn(past)) == [where]


def test_three_times_the_loss_everywhere_is_a_factor_and_no_fault() -> None:
    rng = np.random.default_rng(6)
    baseline = learn([window(rng) for _ in range(3)])
    found = localise(window(rng, background=3e-3), baseline)
    assert found.causes == ()
    assert found.factor == pytest.approx(3, rel=0.1)


def test_losses_in_bursts_raise_no_alarm_once_they_are_known() -> None:
    rng = np.random.default_rng(7)
    baseline = learn([window(rng, burst=6) for _ in range(4)])
    assert 4 < baseline.dispersion < 8
    assert all(named(window(rng, burst=6), baseline) == [] for _ in range(50))


def test_a_weaker_loss_the_other_way_is_an_echo() -> None:
    where, covers = FAULTS["sending"]

    def back(table: pd.DataFrame) -> Any:
        return table.dst_pod == "pod-b"

    table = window(np.random.default_rng(8), (covers, 0.04), (back, 0.01))
    assert named(table) == [where]


def test_pods_with_new_names_keep_what_is_normal_for_them() -> None:
    rng = np.random.default_rng(9)
    hub = (FAULTS["pod"][1], 0.004)
    baseline = learn([window(rng, hub) for _ in range(4)])
    renamed = window(rng, hub).replace({"pod-d": "pod-d2", "pod-e": "pod-e2"})
    assert named(renamed, baseline) == []


def test_the_pod_behind_a_service_is_named_though_it_is_not_known_which_one_answered() -> None:
    rng = np.random.default_rng(10)
    rows = []
    for client in range(12):
        for backend in ("b1", "b2", "b3"):
            lost = 0.05 if backend == "b2" else 0.001
            rows.append((f"c{client}", [backend], rng.binomial(900, lost)))
        rows.append((f"c{client}", ["b1", "b2", "b3"], rng.binomial(900, 0.001 + 0.05 / 3)))
    table = pd.DataFrame(rows, columns=["src_pod", "dst_pod", "retransmits"]).assign(segments=900)
    assert named(table)[0] in ({"dst_pod": "b2"}, {"pod": "b2"})


def test_any_table_is_localised_by_its_dimensions() -> None:
    rng = np.random.default_rng(11)
    rows = [
        {"site": site, "version": version, "path": path, "requests": 2000}
        for site in ("ams", "fra", "lon") for version in ("1.2", "1.3") for path in "abcd"
    ]  # fmt: skip
    for row in rows:
        is_bad = row["site"] == "fra" and row["version"] == "1.3"
        row["errors"] = int(rng.binomial(2000, 0.06 if is_bad else 0.004))
    found = named(rows, dimensions=["site", "version", "path"], total="requests", bad="errors")
    assert found == [{"site": "fra", "version": "1.3"}]


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"retransmits": [-1]}, "retransmits must have counts"),
        ({"segments": [float("nan")]}, "segments must have counts"),
        ({"segments": [float("inf")]}, "segments must have counts"),
    ],
)
def test_what_is_no_count_is_refused_by_name(changes: dict[str, Any], problem: str) -> None:
    table = pd.DataFrame(
        {"src_pod": ["a"], "dst_pod": ["b"], "segments": [1], "retransmits": [0]} | changes
    )
    with pytest.raises(ValueError, match=problem):
        localise(table)


def test_a_missing_column_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match="no column retransmits"):
        localise([{"src_pod": "a", "segments": 1}])


def test_a_baseline_survives_a_restart() -> None:
    rng = np.random.default_rng(12)
    baseline = learn([window(rng, (FAULTS["pod"][1], 0.004)) for _ in range(3)])
    assert Baseline.decode(baseline.encode()) == baseline
    with pytest.raises(ValueError, match="not a baseline"):
        Baseline.decode(b"{}")


def test_nothing_learnt_is_like_no_history() -> None:
    where, covers = FAULTS["node"]
    table = window(np.random.default_rng(13), (covers, 0.02))
    assert named(table, learn([])) == [where]
