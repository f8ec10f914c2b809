"""What is behind failing pairs when chance decides which of them fail, as with real losses."""

from collections import Counter
from collections.abc import Callable
from itertools import permutations
from typing import Any

import numpy as np
import pytest

from conftest import flow_row, window_of
from flowverdict_rca.judgement import judge
from flowverdict_rca.settings import RcaSettings
from flowverdict_runtime.settings import load

SETTINGS = load(RcaSettings, {})
WINDOWS = 20
TWO_NODES = {f"pod-{number}": "n1" if number < 4 else "n2" for number in range(10)}
FOUR_NODES = {f"pod-{number}": f"n{number % 4}" for number in range(12)}
Loss = Callable[[str, str], float]


def blamed(pods: dict[str, str], loss: Loss) -> Counter[tuple[tuple[str, str], ...]]:
    """What is blamed, with the direction, in several windows of pods that talk as pods do: some
    with each other, some much, some little. Losses differ by up to a half from pair to pair.
    """
    found: Counter[tuple[tuple[str, str], ...]] = Counter()
    for seed in range(WINDOWS):
        rng = np.random.default_rng(seed)
        pairs = [each for each in permutations(pods, 2) if rng.random() < 0.6]
        segments = {pair: int(rng.integers(4, 40)) for pair in pairs}
        panes = []
        for _ in range(SETTINGS.window_panes):
            rows = []
            for src, dst in pairs:
                sent = int(rng.poisson(segments[src, dst]))
                lost = int(rng.binomial(sent, min(1, loss(src, dst) * rng.uniform(0.5, 1.5))))
                ends = (f"{each}@{pods[each]}" for each in (src, dst))
                rows.append(flow_row(*ends, data_segments_sent=sent, retransmitted_segments=lost))
            panes.append(rows)
        causes = [
            each.causes[0]
            for each in judge(window_of(*panes, settings=SETTINGS), SETTINGS).findings
        ]
        found[tuple((str(each), each.direction) for each in causes)] += 1
    return found


def usual(src: str, dst: str) -> float:
    return 0.0003


def either(pod: str, rate: float) -> Loss:
    return lambda src, dst: rate if pod in (src, dst) else usual(src, dst)


def sent_by(pod: str, rate: float) -> Loss:
    return lambda src, dst: rate if src == pod else usual(src, dst)


def across(pods: dict[str, str], rate: float) -> Loss:
    return lambda src, dst: rate if pods[src] != pods[dst] else usual(src, dst)


def to_or_from(node: str, rate: float) -> Loss:
    def loss(src: str, dst: str) -> float:
        ends = {FOUR_NODES[src], FOUR_NODES[dst]}
        return rate if node in ends and len(ends) == 2 else usual(src, dst)

    return loss


@pytest.mark.parametrize(
    ("pods", "loss", "right", "least"),
    [
        (TWO_NODES, across(TWO_NODES, 0.1), ("the link between nodes n1 <-> n2", "both"), 16),
        (FOUR_NODES, to_or_from("n2", 0.1), ("node n2", "both"), 20),
        (FOUR_NODES, either("pod-5", 0.06), ("pod default/pod-5", "both"), 14),
        (FOUR_NODES, either("pod-5", 0.1), ("pod default/pod-5", "both"), 18),
        (FOUR_NODES, either("pod-5", 0.4), ("pod default/pod-5", "both"), 20),
        (FOUR_NODES, sent_by("pod-5", 0.1), ("pod default/pod-5", "sending"), 19),
    ],
)  # fmt: skip
def test_one_fault_is_named_alone_in_nearly_every_window(
    pods: dict[str, str], loss: Loss, right: tuple[str, str], least: int
) -> None:
    found = blamed(pods, loss)
    assert found[(right,)] >= least, found


def test_what_fails_within_a_node_is_no_link_from_the_node_to_itself() -> None:
    def loss(src: str, dst: str) -> float:
        return 0.2 if FOUR_NODES[src] == FOUR_NODES[dst] == "n1" else usual(src, dst)

    for causes in blamed(FOUR_NODES, loss):
        assert not any("n1 -> n1" in name or "n1 <-> n1" in name for name, _ in causes)


@pytest.mark.parametrize(("rate", "least"), [(0.0003, 20), (0.01, 20), (0.03, 17)])
def test_where_everyone_loses_alike_nobody_is_blamed_for_what_chance_does(
    rate: float, least: int
) -> None:
    found = blamed(FOUR_NODES, lambda src, dst: rate)
    assert found[()] >= least, found


def lossy(
    pods: dict[str, tuple[str, str]], column: str, suffers: Callable[[str], bool]
) -> list[dict[str, Any]]:
    """Rows between `pods`, which have a node and a value of `column` each; those with an end whose
    value `suffers` lose.
    """
    rng, rows = np.random.default_rng(1), []
    for src, dst in permutations(pods, 2):
        ends = {"src": pods[src][1], "dst": pods[dst][1]}
        loss = 0.15 if any(map(suffers, ends.values())) else 0.002
        row = flow_row(
            f"{src}@{pods[src][0]}", f"{dst}@{pods[dst][0]}", data_segments_sent=100,
            retransmitted_segments=int(rng.binomial(100, loss)),
        )  # fmt: skip
        rows.append(row | {f"{end}_{column}": value for end, value in ends.items()})
    return rows


def first_causes(rows: list[dict[str, Any]]) -> list[str]:
    found = judge(window_of(rows, settings=SETTINGS), SETTINGS).findings
    return [str(each.causes[0]) for each in found]


def labelled(pods: dict[str, tuple[str, str]], at_fault: str) -> list[str]:
    """What is blamed if the pods with a label lose; `pods` have a node and labels each."""
    return first_causes(lossy(pods, "labels", lambda labels: at_fault in labels.split(",")))


def test_of_a_label_that_not_all_pods_have_the_value_that_fails_is_named() -> None:
    pods = {
        f"pod-{number}": (f"n{number % 6}", f"team=t{number % 2},version={2 if number < 5 else 1}")
        for number in range(18)
    }
    assert labelled(pods, "version=2") == ["label version=2"]
    canary = {pod: (node, "canary=yes" * ("=2" in text)) for pod, (node, text) in pods.items()}
    assert labelled(canary, "canary=yes") == ["label canary=yes"]


def test_a_label_that_all_pods_have_is_behind_nothing() -> None:
    pods = {f"pod-{number}": (f"n{number % 3}", "app=shop") for number in range(9)}
    assert "label app=shop" not in labelled(pods, "app=shop")


def test_of_several_zones_the_one_that_fails_is_named_instead_of_its_nodes() -> None:
    pods = {f"pod-{number}": (f"n{number % 6}", f"zone-{number % 6 % 3}") for number in range(18)}
    rows = lossy(pods, "zone", lambda zone: zone == "zone-2")
    assert first_causes(rows) == ["zone zone-2"]
    in_one_zone = [row | {"src_zone": "zone-1", "dst_zone": "zone-1"} for row in rows]
    for each in judge(window_of(in_one_zone, settings=SETTINGS), SETTINGS).findings:
        assert each.causes[0].kind != "zone"


@pytest.mark.parametrize(
    "failing",
    [
        [("pod-0", "pod-1"), ("pod-4", "pod-5")],  # all from n0 to n1, as seven others that work
        [("pod-0", "pod-1"), ("pod-0", "pod-2")],  # both from pod-0, as nine others that work
        [("pod-0", "pod-1"), ("pod-2", "pod-7")],
    ],
)
def test_two_flows_that_fail_among_many_that_work_are_two_links(
    failing: list[tuple[str, str]],
) -> None:
    rows = [
        flow_row(
            *(f"{each}@{FOUR_NODES[each]}" for each in pair),
            retransmitted_segments=20 if pair in failing else 0,
        )
        for pair in permutations(FOUR_NODES, 2)
    ]
    links = [f"the link default/{src} -> default/{dst}" for src, dst in failing]
    assert sorted(first_causes(rows)) == sorted(links)


def test_a_single_flow_that_fails_is_named_also_beside_a_pod_that_does() -> None:
    rows = [
        flow_row(
            *(f"{each}@{FOUR_NODES[each]}" for each in pair),
            retransmitted_segments=20 if "pod-3" in pair or pair == ("pod-0", "pod-1") else 0,
        )
        for pair in permutations(FOUR_NODES, 2)
    ]
    assert first_causes(rows) == [
        "pod default/pod-3",
        "the link default/pod-0 -> default/pod-1",
    ]


def denied(src: str, dst: str) -> dict[str, Any]:
    """What a client counts whose SYNs are dropped."""
    return flow_row(src, dst, data_segments_sent=0, opens=5, retransmitted_segments=15,
                    retransmitted_syns=15, failed_opens=5, timed_out_opens=5)  # fmt: skip


@pytest.mark.parametrize("by_service", [False, True])
def test_what_a_network_policy_denies_is_the_link_between_the_two_workloads(
    by_service: bool,
) -> None:
    replicas = {"web": 3, "cron": 3, "api": 3, "db": 2}
    pods = {
        workload: [f"{workload}-{number}@n{number}" for number in range(count)]
        for workload, count in replicas.items()
    }

    def named(row: dict[str, Any]) -> dict[str, Any]:
        for end in ("src", "dst"):
            row[f"{end}_workload"] = row[f"{end}_pod"].partition("-")[0]
            row[f"{end}_service"] = "api" if row[f"{end}_workload"] == "api" else ""
        return row

    works = [
        flow_row(*pair, bytes_acked=1000)
        for one, other in [("web", "api"), ("cron", "db"), ("api", "db"), ("web", "db")]
        for src in pods[one]
        for dst in pods[other]
        for pair in ((src, dst), (dst, src))
    ]
    rows = [named(row) for row in works]
    of_service = {"dst_ip": "10.96.0.1", "dst_kind": "service", "dst_pod": "", "dst_service": "api"}
    for src in pods["cron"]:
        if by_service:
            rows.append(named(denied(src, "x")) | of_service | {"dst_workload": "", "dst_node": ""})
        else:
            rows += [named(denied(src, dst)) for dst in pods["api"]]
    (finding,) = judge(window_of(rows, rows, settings=SETTINGS), SETTINGS).findings
    (cause,) = finding.causes
    assert str(cause) == "the link between workloads default/cron -> default/api"
    assert len(finding.explained) == (3 if by_service else 9)
    assert cause.precision == 1
    assert cause.node == ""
    assert cause.service_addresses == (("10.96.0.1",) if by_service else ())
