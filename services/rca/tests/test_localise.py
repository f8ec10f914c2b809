"""`localise` and `learn` on tables of which the fault is known."""

from collections.abc import Callable
from datetime import date
from functools import partial
from itertools import permutations, product
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


def covered(table: pd.DataFrame, where: dict[str, str]) -> Any:
    """The rows that a cause covers: with a column's value, or at either end."""
    found = np.ones(len(table), np.bool_)
    for name, value in where.items():
        columns = [name] if name in table else [f"src_{name}", f"dst_{name}"]
        found &= (table[columns] == value).any(axis=1).to_numpy()
    return found


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


def test_a_dozen_faults_at_once_are_all_named() -> None:
    links = [
        {"src_pod": src, "dst_pod": dst} for src, dst in zip(PODS, PODS[1:] + PODS[:1], strict=True)
    ]
    table = window(
        np.random.default_rng(3), *((partial(covered, where=each), 0.2) for each in links)
    )
    assert sorted(map(str, named(table))) == sorted(map(str, links))
    assert not localise(table).more


def test_of_more_than_twenty_faults_it_is_said_that_there_may_be_more() -> None:
    links = [
        {"src_pod": src, "dst_pod": dst}
        for ahead in (1, 5)
        for src, dst in zip(PODS, PODS[ahead:] + PODS[:ahead], strict=True)
    ]
    table = window(
        np.random.default_rng(3), *((partial(covered, where=each), 0.2) for each in links)
    )
    assert localise(table).more


@pytest.mark.parametrize("seed", range(10))
def test_a_path_that_loses_both_ways_is_named_and_not_the_node_at_one_end_that_has_few_flows(
    seed: int,
) -> None:
    node = {pod: "n1" if number < 2 else "n2" for number, pod in enumerate(PODS)}

    def windows(*faults: tuple[Covers, float]) -> pd.DataFrame:
        def between(covers: Covers) -> Covers:
            return lambda t: covers(
                t.assign(src_node=t.src_pod.map(node), dst_node=t.dst_pod.map(node))
            )

        table = window(rng, *((between(each), loss) for each, loss in faults), segments=400)
        return table.assign(src_node=table.src_pod.map(node), dst_node=table.dst_pod.map(node))

    rng = np.random.default_rng(seed)
    baseline = learn([windows() for _ in range(6)])
    table = windows(
        (lambda t: (t.src_node == "n1") & (t.dst_node == "n2"), 0.014),
        (lambda t: (t.src_node == "n2") & (t.dst_node == "n1"), 0.010),
    )
    found = named(table, baseline)
    assert {tuple(each.values()) for each in found} == {("n1", "n2"), ("n2", "n1")}


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


@pytest.mark.parametrize("faulty", [1, 2])
def test_faulty_windows_of_the_past_are_not_learnt_as_normal(faulty: int) -> None:
    rng = np.random.default_rng(5)
    where, covers = FAULTS["node"]
    past = [window(rng, *[(covers, 0.2)] * (number < faulty)) for number in range(6)]
    assert named(window(rng, (covers, 0.005)), learn(past)) == [where]


def test_three_times_the_loss_everywhere_is_a_factor_and_no_fault() -> None:
    rng = np.random.default_rng(6)
    baseline = learn([window(rng) for _ in range(3)])
    found = localise(window(rng, background=3e-3), baseline)
    assert found.causes == ()
    assert found.factor == pytest.approx(3, rel=0.1)


@pytest.mark.parametrize("loss", [0.005, 0.1])
def test_a_node_in_most_pairs_is_a_fault_and_no_factor(loss: float) -> None:
    def on_two_nodes(table: pd.DataFrame) -> pd.DataFrame:
        few = table[table.src_pod.isin(PODS[:4]) & table.dst_pod.isin(PODS[:4])]
        return few.replace({"n2": "n0", "n3": "n1"})

    rng = np.random.default_rng(8)
    baseline = learn([on_two_nodes(window(rng)) for _ in range(3)])
    faulty = window(
        rng, (lambda t: t.src_node.isin(["n0", "n2"]) | t.dst_node.isin(["n0", "n2"]), loss)
    )
    assert named(on_two_nodes(faulty), baseline) == [{"node": "n0"}]
    assert named(on_two_nodes(window(rng, background=3e-3)), baseline) == []


def test_two_bad_nodes_of_one_zone_are_neither_the_zone_nor_the_path_between_them() -> None:
    def with_zones(table: pd.DataFrame) -> pd.DataFrame:
        zones = {"n0": "z0", "n1": "z0", "n2": "z1", "n3": "z1"}
        ends = {f"{end}_zone": table[f"{end}_node"].map(zones) for end in ("src", "dst")}
        return table.assign(**ends)

    rng = np.random.default_rng(9)
    baseline = learn([with_zones(window(rng)) for _ in range(3)])
    faults = [
        (lambda t, node=node: (t.src_node == node) | (t.dst_node == node), 0.1)
        for node in ("n0", "n1")
    ]
    found = named(with_zones(window(rng, *faults)), baseline)
    assert sorted(map(str, found)) == ["{'node': 'n0'}", "{'node': 'n1'}"]


def test_losses_in_bursts_raise_no_alarm_once_they_are_known() -> None:
    rng = np.random.default_rng(7)
    baseline = learn([window(rng, burst=6) for _ in range(4)])
    assert 4 < baseline.dispersion < 8
    assert all(named(window(rng, burst=6), baseline) == [] for _ in range(50))


@pytest.mark.parametrize("fault", FAULTS)
@pytest.mark.parametrize("loss", [0.01, 0.3])
def test_a_fault_that_is_worse_for_some_pairs_than_for_others_is_one_fault(
    fault: str, loss: float
) -> None:
    where, covers = FAULTS[fault]
    for seed in range(5):
        rng = np.random.default_rng(seed)
        baseline = learn([window(rng) for _ in range(4)])
        table = window(rng)
        rate = loss * rng.gamma(4, 1 / 4, len(table)) * covers(table)
        table["retransmits"] += rng.binomial(table["segments"], np.minimum(0.9, rate))
        assert named(table, baseline) == [where], seed


def test_a_weaker_loss_the_other_way_is_an_echo() -> None:
    where, covers = FAULTS["sending"]

    def back(table: pd.DataFrame) -> Any:
        return table.dst_pod == "pod-b"

    table = window(np.random.default_rng(8), (covers, 0.04), (back, 0.01))
    assert named(table) == [where]


@given(st.integers(0, 2**32 - 1))
@settings(max_examples=60)
def test_a_path_that_is_named_both_ways_has_the_evidence_for_each_of_them(seed: int) -> None:
    (link, at_link), rng = FAULTS["link"], np.random.default_rng(seed)
    other_way = {"src_pod": link["dst_pod"], "dst_pod": link["src_pod"]}
    back: Covers = lambda t: (t.src_pod == "pod-h") & (t.dst_pod == "pod-a")  # noqa: E731
    loss = rng.uniform(0.004, 0.02)
    table = window(rng, (at_link, loss), (back, rng.uniform(0, 0.4) * loss))
    for cause in localise(table).causes:
        assert cause.score > 0
        assert cause.needed_bad < table["retransmits"][covered(table, cause.where)].sum()
    both = localise(window(rng, (at_link, 0.02), (back, 0.02)))
    assert {str(cause.where) for cause in both.causes} == {str(link), str(other_way)}


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


def test_rows_of_a_pair_that_differ_in_their_port_do_not_overwrite_each_other() -> None:
    rng = np.random.default_rng(14)

    def two_ports(fault: float = 0.0) -> pd.DataFrame:
        covers = FAULTS["link"][1]
        light = window(rng, segments=300, background=0.02).assign(port=443)
        return pd.concat([window(rng, (covers, fault)).assign(port=80), light])

    baseline = learn([two_ports() for _ in range(5)])
    assert named(two_ports(), baseline) == []


def test_all_that_goes_to_one_port_is_named_by_it() -> None:
    rng = np.random.default_rng(15)
    table = pd.concat([window(rng).assign(port=80), window(rng, background=0.05).assign(port=443)])
    assert named(table) == [{"port": 443}]


@pytest.mark.parametrize("loss", [0.05, 0.2, 0.5, 1.0])
def test_a_loss_that_is_the_same_everywhere_has_no_cause_and_is_not_healthy(loss: float) -> None:
    rng = np.random.default_rng(16)
    found = localise(window(rng, background=loss), learn([window(rng) for _ in range(4)]))
    assert found.causes == ()
    assert found.outcome == "not enough evidence"
    assert found.factor > 20


def test_one_lost_segment_after_a_clean_past_is_no_fault() -> None:
    clean = window(np.random.default_rng(17), background=0.0)
    baseline = learn([clean] * 6)
    table = clean.copy()
    for at in range(0, len(table), 7):
        table["retransmits"] = 0
        table.loc[at, "retransmits"] = 1
        assert named(table, baseline) == []


def test_lists_of_one_are_that_one_and_numbers_are_names() -> None:
    rows = [
        {"src_pod": src, "dst_pod": dst, "segments": 2000, "retransmits": 120 if dst == 3 else 2}
        for src in range(8)
        for dst in range(8)
        if src != dst
    ]
    expected = [{"dst_pod": 3}]
    assert named(rows) == expected
    assert named([row | {"dst_pod": [row["dst_pod"]]} for row in rows]) == expected
    baseline = learn([rows] * 3)
    assert Baseline.decode(baseline.encode()) == baseline
    assert named(rows, baseline) == []


def test_two_of_the_pods_behind_an_address_are_named_whichever_was_chosen() -> None:
    rng, backends = np.random.default_rng(18), [f"api-{number}" for number in range(4)]
    for _ in range(10):
        rows: list[dict[str, Any]] = []
        for caller in range(6):
            ends = {"src_pod": f"front-{caller}", "dst_pod": backends, "dst_service": "api"}
            rows.append(ends | {"segments": 4000, "retransmits": rng.binomial(4000, 0.0102)})
            for pod in backends:
                ends = {"src_pod": pod, "dst_pod": f"front-{caller}", "src_service": "api"}
                ratio = 0.0002 + 0.02 * (pod in ("api-0", "api-2"))
                rows.append(ends | {"segments": 2000, "retransmits": rng.binomial(2000, ratio)})
            for peer in range(6):
                if peer != caller:
                    ends = {"src_pod": f"front-{caller}", "dst_pod": f"front-{peer}"}
                    lost = rng.binomial(2000, 0.0002)
                    rows.append(ends | {"segments": 2000, "retransmits": lost})
        assert {each["pod"] for each in named(rows)} == {"api-0", "api-2"}


def test_of_thousands_of_links_it_is_the_very_one() -> None:
    table = pd.DataFrame(
        {
            "src_pod": [f"s{number}" for number in range(60_000)],
            "dst_pod": [f"d{number}" for number in range(60_000)],
            "segments": 1000,
            "retransmits": 1,
        }
    )
    table.loc[3412, "retransmits"] = 300
    assert named(table) == [{"src_pod": "s3412", "dst_pod": "d3412"}]


def test_a_new_pod_of_no_known_workload_inherits_nothing() -> None:
    columns = ["src_pod", "dst_pod", "segments", "retransmits"]
    rng = np.random.default_rng(18)
    hub = (FAULTS["pod"][1], 0.03)
    baseline = learn([window(rng, hub)[columns] for _ in range(4)])
    elsewhere = window(rng, hub)[columns].replace({"pod-d": "another"})
    assert named(elsewhere, baseline) == [{"pod": "another"}]


@pytest.mark.parametrize(
    "table",
    [
        [{"src_pod": None, "dst_pod": None, "segments": 10, "retransmits": 1}],
        [{"other": 1, "segments": 10, "retransmits": 1}],
        pd.DataFrame(),
    ],
)
def test_a_table_that_names_nothing_has_no_cause(table: Any) -> None:
    assert localise(table).outcome == "not enough evidence"


def test_a_baseline_helps_as_far_as_the_window_has_its_columns() -> None:
    rng = np.random.default_rng(19)
    baseline = learn([window(rng) for _ in range(3)])
    assert named(window(rng).drop(columns=["src_pod", "dst_pod"]), baseline) == []
    assert named(window(rng), baseline, dimensions=["src_node"]) == []


def test_what_went_wrong_of_nothing_sent_counts_for_nothing() -> None:
    where, covers = FAULTS["sending"]
    table = window(np.random.default_rng(20), (covers, 0.03))
    table.loc[table.dst_pod == "pod-b", ["segments", "retransmits"]] = [0, 2]
    (cause,) = localise(table).causes
    assert where in (cause.where, *cause.alternatives)


def test_of_two_equal_conditions_the_shorter_one_is_named_whatever_the_columns_are_called() -> None:
    rows = [
        {"service": name[0], "version": name[1], "n": 2000, "e": 120 if name[0] == "a" else 8}
        for name in ("a1", "b1", "b2", "c1", "c2", "d1", "d2")
    ]
    found = named(rows, dimensions=["service", "version"], total="n", bad="e")
    assert found == [{"service": "a"}]


def test_nothing_learnt_is_like_no_history() -> None:
    where, covers = FAULTS["node"]
    table = window(np.random.default_rng(13), (covers, 0.02))
    assert named(table, learn([])) == [where]


@pytest.mark.parametrize("retransmits", [0, 3])
@pytest.mark.parametrize("windows", [1, 4])
def test_a_baseline_of_a_single_pair_can_be_kept(retransmits: int, windows: int) -> None:
    row = {"src_pod": "a", "dst_pod": "b", "segments": 500, "retransmits": retransmits}
    learnt = learn([[row]] * windows)
    assert Baseline.decode(learnt.encode()) == learnt


def test_a_row_that_sent_nothing_in_a_window_with_a_loss_is_no_obstacle() -> None:
    rng = np.random.default_rng(10)
    table = window(rng, (FAULTS["pod"][1], 0.1))
    table.loc[::7, ["segments", "retransmits"]] = 0
    past = [window(rng) for _ in range(3)]
    for each in past:
        each.loc[::5, ["segments", "retransmits"]] = 0
    assert named(table, learn(past)) == [{"pod": "pod-d"}]


def mesh_table(seed: int, rate: Callable[[int, int], float]) -> pd.DataFrame:
    """Twelve pods on four nodes that all send each other 2,000 segments."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "src_pod": f"p{src}", "dst_pod": f"p{dst}",
            "src_node": f"n{src // 3}", "dst_node": f"n{dst // 3}",
            "segments": 2000, "retransmits": random.binomial(2000, rate(src, dst)),
        }
        for src, dst in permutations(range(12), 2)
    )  # fmt: skip


@pytest.mark.parametrize("more", [0.001, 0.003, 0.01])
def test_what_has_always_lost_more_and_is_mended_makes_nothing_else_look_bad(more: float) -> None:
    baseline = learn([mesh_table(s, lambda a, b: 2e-4 + more * (3 in (a, b))) for s in range(12)])
    for seed in range(100, 110):
        assert not localise(mesh_table(seed, lambda a, b: 2e-4), baseline).causes
        worse = mesh_table(seed, lambda a, b: 2e-4 + 0.01 * (9 in (a, b)))
        assert [each.where for each in localise(worse, baseline).causes] == [{"pod": "p9"}]
        busy = mesh_table(seed, lambda a, b: 6e-4 + 3 * more * (3 in (a, b)))
        assert not localise(busy, baseline).causes


def test_where_everything_loses_much_without_a_past_nothing_is_called_healthy() -> None:
    assert localise(mesh_table(1, lambda a, b: 0.1)).outcome == "not enough evidence"
    assert localise(mesh_table(1, lambda a, b: 2e-4)).outcome == "healthy"


def test_windows_in_which_nothing_was_sent_teach_nothing() -> None:
    windows = [mesh_table(seed, lambda a, b: 2e-4) for seed in range(5)]
    assert learn([*windows, pd.DataFrame(), windows[0].iloc[:0]]) == learn(windows)
    assert learn(windows[0]) == learn([windows[0]])


@pytest.mark.parametrize(
    "shards",
    [
        pd.array([1, 2, 3, None], dtype="Int64"),
        pd.array([True, False, None, None], dtype="boolean"),
        pd.Categorical(["a", "b", "c", None]),
        pd.date_range("2026-01-01", periods=4),
        [date(2026, 1, day) for day in range(1, 5)],
        [np.int64(1), 2, 3.5, None],
    ],
    ids=["nullable integers", "booleans", "categories", "times", "dates", "mixed"],
)
def test_a_baseline_of_any_kind_of_value_survives_a_restart(shards: Any) -> None:
    table = pd.DataFrame({"shard": shards, "n": 5000, "e": [5, 300, 5, 5]})
    chosen: dict[str, Any] = {"dimensions": ["shard"], "total": "n", "bad": "e"}
    (cause,) = localise(table, **chosen).causes
    assert str(table["shard"][1]).startswith(str(cause.where["shard"]))
    kept = Baseline.decode(learn([table] * 4, **chosen).encode())
    assert localise(table, kept, **chosen).causes == ()


@pytest.mark.parametrize("table", [[], pd.DataFrame(columns=["shard", "n", "e"])])
def test_an_empty_table_is_not_enough_evidence_whatever_its_dimensions(table: Any) -> None:
    verdict = localise(table, dimensions=["shard"], total="n", bad="e")
    assert (verdict.causes, verdict.outcome) == ((), "not enough evidence")


def test_any_table_has_a_past_and_three_dimensions_together_can_be_at_fault() -> None:
    names = ("isp", "city", "pop")

    def table(seed: int, rate: Callable[[str, str, int], float]) -> pd.DataFrame:
        random = np.random.default_rng(seed)
        places = product("ABCD", "abcdefgh", range(5))
        rows = [(*each, 2000, random.binomial(2000, rate(*each))) for each in places]
        return pd.DataFrame(rows, columns=[*names, "requests", "errors"])

    usual = [table(s, lambda isp, city, pop: 0.004 + 0.02 * (pop == 4)) for s in range(8)]
    baseline = learn(usual, dimensions=names, total="requests", bad="errors")
    ask = partial(localise, dimensions=names, total="requests", bad="errors")
    assert not ask(usual[0], baseline).causes
    broken = table(9, lambda *at: 0.004 + 0.02 * (at[2] == 4) + 0.3 * (at == ("B", "c", 2)))
    assert [each.where for each in ask(broken, baseline).causes] == [
        {"isp": "B", "city": "c", "pop": 2}
    ]
    with pytest.raises(ValueError, match="name the dimensions"):
        learn(usual, total="requests", bad="errors")


def test_pairs_that_send_little_are_not_learnt_to_lose_less() -> None:
    random = np.random.default_rng(1)
    pods = 200
    src, dst = (each.ravel() for each in np.mgrid[:pods, :pods])
    usual = random.lognormal(4, 2, src.size) * (src != dst)

    def table() -> pd.DataFrame:
        segments = random.poisson(usual)
        ends = {
            f"{end}_{what}": [f"{what}-{each % count}" for each in pod_of]
            for end, pod_of in (("src", src), ("dst", dst))
            for what, count in (("pod", pods), ("zone", 3))
        }
        return pd.DataFrame(
            ends | {"segments": segments, "retransmits": random.poisson(segments * 1e-3)}
        )

    baseline = learn([table() for _ in range(6)])
    assert baseline.rate == pytest.approx(1e-3, rel=0.05)
    assert not localise(table(), baseline).causes
