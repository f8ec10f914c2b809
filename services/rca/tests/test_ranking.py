"""Which component is named for which failing pairs."""

from collections.abc import Callable
from itertools import permutations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import flow_row, window_of
from flowverdict_contracts.verdicts import Cause
from flowverdict_flows.endpoint import Endpoint
from flowverdict_rca.judgement import judge
from flowverdict_rca.ranking import Finding
from flowverdict_rca.settings import RcaSettings
from flowverdict_runtime.settings import load

SETTINGS = load(RcaSettings, {})
PODS = {f"default/pod-{letter}": f"worker{index // 2}" for index, letter in enumerate("abcdef")}
Breaks = Callable[[Endpoint, Endpoint], bool]


def find(breaks: Breaks, pods: dict[str, str] = PODS, talks: Breaks | None = None) -> list[Finding]:
    """Findings if the pairs of pods for which `breaks` is true fail, of those that talk."""
    ends = [
        Endpoint("pod", "default", name.rpartition("/")[2], node=node)
        for name, node in pods.items()
    ]
    rows = [
        flow_row(
            f"{src.name}@{src.node}",
            f"{dst.name}@{dst.node}",
            retransmitted_segments=20 if breaks(src, dst) else 0,
        )
        for src, dst in permutations(ends, 2)
        if talks is None or talks(src, dst)
    ]
    return list(judge(window_of(rows, settings=SETTINGS), SETTINGS).findings)


def named(found: list[Finding]) -> list[tuple[str, str]]:
    return [(each.causes[0].kind, each.causes[0].name) for each in found]


def test_a_pod_whose_flows_all_fail_is_named() -> None:
    found = find(lambda src, dst: "default/pod-b" in (str(src), str(dst)))
    assert named(found) == [("pod", "default/pod-b")]
    cause = found[0].causes[0]
    assert (cause.node, cause.score, cause.direction) == ("worker0", 1.0, "both")
    assert cause.addresses == (flow_row("pod-b", "pod-a")["src_ip"],)
    assert [(end.kind, end.namespace, end.name) for end in cause.ends] == [
        ("pod", "default", "pod-b")
    ]


def test_a_node_is_named_and_not_its_pods() -> None:
    assert named(find(lambda src, dst: "worker1" in (src.node, dst.node))) == [("node", "worker1")]


def test_a_link_between_two_pods_is_named() -> None:
    ends = {"default/pod-b", "default/pod-e"}
    found = find(lambda src, dst: {str(src), str(dst)} == ends)
    assert named(found) == [("link", "default/pod-b <-> default/pod-e")]


def test_a_link_between_two_nodes_is_named() -> None:
    found = find(lambda src, dst: {src.node, dst.node} == {"worker0", "worker2"})
    assert named(found) == [("node_link", "worker0 <-> worker2")]


def test_flows_that_only_fail_one_way_tell_the_direction() -> None:
    found = find(lambda src, dst: str(src) == "default/pod-c")
    assert found[0].causes[0].direction == "sending"


@pytest.mark.parametrize("pods", [("a", "c"), ("b", "c"), ("a", "f")])
def test_two_faults_at_once_give_two_findings(pods: tuple[str, str]) -> None:
    broken = {f"default/pod-{letter}" for letter in pods}
    four = {name: node for name, node in PODS.items() if name[-1] in "abcdf"}
    found = find(lambda src, dst: bool(broken & {str(src), str(dst)}), four)
    assert {name for _, name in named(found)} == broken


def test_where_everything_fails_nothing_is_named() -> None:
    assert find(lambda src, dst: True) == []


def test_a_single_failing_flow_is_the_link_that_way() -> None:
    found = find(lambda src, dst: (str(src)[-1], str(dst)[-1]) == ("d", "a"))
    assert named(found) == [("link", "default/pod-d -> default/pod-a")]
    assert [end.name for end in found[0].causes[0].ends] == ["pod-d", "pod-a"]


def test_all_that_one_node_sends_another_is_the_link_that_way() -> None:
    found = find(lambda src, dst: (src.node, dst.node) == ("worker2", "worker0"))
    assert named(found) == [("node_link", "worker2 -> worker0")]


def test_what_cannot_be_told_apart_is_given_as_alternatives() -> None:
    alone = {"default/pod-a": "worker0", "default/pod-b": "worker1", "default/pod-c": "worker1",
             "default/pod-d": "worker2", "default/pod-e": "worker2"}  # fmt: skip
    found = find(lambda src, dst: "default/pod-a" in (str(src), str(dst)), alone)
    assert named(found) == [("pod", "default/pod-a")]
    assert [str(each) for each in found[0].causes[0].alternatives] == ["node worker0"]


def test_of_two_pods_that_only_talk_to_each_other_neither_is_named() -> None:
    talkers = {"default/pod-a", "default/pod-b"}
    found = find(
        lambda src, dst: talkers == {str(src), str(dst)},
        talks=lambda src, dst: len(talkers & {str(src), str(dst)}) != 1,
    )
    assert named(found) == [("link", "default/pod-a <-> default/pod-b")]
    alternatives = {each.name for each in found[0].causes[0].alternatives}
    assert alternatives >= talkers


def test_some_noise_does_not_change_who_is_named() -> None:
    def breaks(src: Endpoint, dst: Endpoint) -> bool:
        noise = (str(src)[-1], str(dst)[-1]) == ("e", "f")
        missed = (str(src)[-1], str(dst)[-1]) == ("c", "a")
        return noise or ("default/pod-c" in (str(src), str(dst)) and not missed)

    assert named(find(breaks))[0] == ("pod", "default/pod-c")


def test_a_causes_numbers_are_those_of_the_direction_it_is_named_with() -> None:
    pods = {name: node for name, node in PODS.items() if name[-1] in "abcd"}
    ends = [
        Endpoint("pod", "default", name.rpartition("/")[2], node=node)
        for name, node in pods.items()
    ]
    pairs = list(permutations(ends, 2))

    def takes_part(cause: Cause, src: Endpoint, dst: Endpoint) -> bool:
        chosen = {"sending": (src,), "receiving": (dst,), "both": (src, dst)}[cause.direction]
        if cause.kind == "link":
            return {str(src), str(dst)} == {str(end) for end in cause.ends}
        return any(cause.name in (str(end), end.node) for end in chosen)

    (found,) = find(lambda src, dst: "default/pod-a" in (str(src), str(dst)), pods)
    failing = [pair for pair in pairs if "default/pod-a" in map(str, pair)]
    assert ("node", "worker0") in [(cause.kind, cause.name) for cause in found.causes]
    for cause in found.causes:
        own = [pair for pair in pairs if takes_part(cause, *pair)]
        bad = [pair for pair in own if pair in failing]
        assert cause.precision == pytest.approx(len(bad) / len(own), abs=1e-4), cause
        assert cause.explains == pytest.approx(len(bad) / len(failing), abs=1e-4), cause


def test_a_nodes_name_that_begins_anothers_does_not_lend_it_its_address() -> None:
    workers = {f"worker{number}": f"10.9.0.{number}" for number in (1, 10, 2, 3)}
    rows = []
    for src, dst in permutations(workers, 2):
        row = flow_row(
            f"x@{src}", f"y@{dst}", retransmitted_segments=20 if "worker10" in (src, dst) else 0
        )
        for end, node in (("src", src), ("dst", dst)):
            row |= {
                f"{end}_kind": "node",
                f"{end}_pod": "",
                f"{end}_namespace": "",
                f"{end}_ip": workers[node],
            }
        rows.append(row)
    (found, *_) = judge(window_of(rows, settings=SETTINGS), SETTINGS).findings
    assert (found.causes[0].kind, found.causes[0].name) == ("node", "worker10")
    assert found.causes[0].addresses == ("10.9.0.10",)


def test_a_pod_named_like_a_node_is_not_taken_for_it() -> None:
    pods = {"default/worker1": "worker0", "default/pod-b": "worker0", "default/pod-c": "worker1",
            "default/pod-d": "worker1", "default/pod-e": "worker2"}  # fmt: skip
    found = find(lambda src, dst: "default/worker1" in (str(src), str(dst)), pods)
    assert named(found) == [("pod", "default/worker1")]
    assert found[0].causes[0].node == "worker0"
    assert named(find(lambda src, dst: "worker1" in (src.node, dst.node), pods)) == [
        ("node", "worker1")
    ]


@given(
    st.lists(
        st.from_regex(r"[a-z0-9]([-a-z0-9.]{0,20}[a-z0-9])?", fullmatch=True),
        min_size=4, max_size=4, unique=True,
    )
)  # fmt: skip
def test_whatever_kubernetes_allows_in_a_name_the_broken_pod_is_named(names: list[str]) -> None:
    workers = ("w0", "w0", "w1", "w1")
    rows = []
    for one, other in permutations(range(4), 2):
        row = flow_row("x", "y", retransmitted_segments=20 if 0 in (one, other) else 0)
        for end, at in (("src", one), ("dst", other)):
            row |= {
                f"{end}_pod": names[at],
                f"{end}_ip": f"10.0.0.{at}",
                f"{end}_node": workers[at],
            }
        rows.append(row)
    (found,) = judge(window_of(rows, settings=SETTINGS), SETTINGS).findings
    assert found.causes[0].ends[0].name == names[0]
    assert found.causes[0].addresses == ("10.0.0.0",)


@pytest.mark.parametrize("pod", ["", "etcd"])
def test_a_nodes_own_address_may_stand_for_the_pods_on_its_network(pod: str) -> None:
    rows = []
    for number in range(8):
        for src, dst in ((f"p{number}@w{number}", "x@w9"), ("x@w9", f"p{number}@w{number}")):
            row = flow_row(src, dst, retransmitted_segments=20)
            end = "dst" if dst == "x@w9" else "src"
            pods = "kube-system/etcd,kube-system/proxy"
            row |= {f"{end}_kind": "node", f"{end}_pod": "", f"{end}_namespace": ""}
            row |= {f"{end}_candidates": pods}
            if pod:
                row |= {f"{end}_kind": "pod", f"{end}_pod": pod, f"{end}_namespace": "kube-system"}
            rows.append(row)
        rows.append(flow_row(f"p{number}@w{number}", f"p{(number + 1) % 8}@w{(number + 1) % 8}"))
    judgement = judge(window_of(rows, settings=SETTINGS), SETTINGS)
    (found,) = judgement.findings
    expected = ("pod", "kube-system/etcd") if pod else ("node", "w9")
    assert (found.causes[0].kind, found.causes[0].name) == expected
    candidates = () if pod else ("kube-system/etcd", "kube-system/proxy")
    assert found.causes[0].candidates == candidates


def test_forty_refused_connects_between_two_pods_are_the_link_though_each_pane_has_few() -> None:
    refused = {"data_segments_sent": 0, "failed_opens": 8, "refused_opens": 8}
    rows = [
        flow_row(f"{src}@n1", f"{dst}@n2", **(refused if (src, dst) == ("a", "d") else {}))
        for src, dst in permutations("abcdef", 2)
    ]
    found = list(judge(window_of(*[rows] * 5, settings=SETTINGS), SETTINGS).findings)
    assert named(found) == [("link", "default/a -> default/d")]
