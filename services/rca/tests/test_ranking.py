"""Which component is named for which failing pairs."""

from itertools import permutations

import pytest

from flowverdict_contracts.verdicts import Cause
from flowverdict_rca.pairs import Endpoint, Pair
from flowverdict_rca.ranking import Finding, findings

PODS = {f"default/pod-{letter}": f"worker{index // 2}" for index, letter in enumerate("abcdef")}


def find(breaks: object, pods: dict[str, str] = PODS) -> list[Finding]:
    """Findings where the pairs of pods for which `breaks` is true fail."""
    ends = [Endpoint("pod", name, node) for name, node in pods.items()]
    failing: list[Pair] = []
    ok: list[Pair] = []
    for src, dst in permutations(ends, 2):
        bad = breaks(src, dst)  # type: ignore[operator]
        (failing if bad else ok).append(Pair(src, dst, 100, 20 if bad else 0))
    return findings(failing, ok, {end: frozenset({end.name}) for end in ends})


def named(found: list[Finding]) -> list[tuple[str, str]]:
    return [(each.causes[0].kind, each.causes[0].name) for each in found]


def test_a_pod_whose_flows_all_fail_is_named() -> None:
    found = find(lambda src, dst: "default/pod-b" in (src.name, dst.name))
    assert named(found) == [("pod", "default/pod-b")]
    cause = found[0].causes[0]
    assert (cause.node, cause.score, cause.direction) == ("worker0", 1.0, "both")
    assert cause.addresses == ("default/pod-b",)


def test_a_node_is_named_and_not_its_pods() -> None:
    assert named(find(lambda src, dst: "worker1" in (src.node, dst.node))) == [("node", "worker1")]


def test_a_link_between_two_pods_is_named() -> None:
    ends = {"default/pod-b", "default/pod-e"}
    found = find(lambda src, dst: {src.name, dst.name} == ends)
    assert named(found) == [("link", "default/pod-b <-> default/pod-e")]


def test_a_link_between_two_nodes_is_named() -> None:
    found = find(lambda src, dst: {src.node, dst.node} == {"worker0", "worker2"})
    assert named(found) == [("node_link", "worker0 <-> worker2")]


def test_flows_that_only_fail_one_way_tell_the_direction() -> None:
    found = find(lambda src, dst: src.name == "default/pod-c")
    assert found[0].causes[0].direction == "sending"


@pytest.mark.parametrize("pods", [("a", "c"), ("b", "c"), ("a", "f")])
def test_two_faults_at_once_give_two_findings(pods: tuple[str, str]) -> None:
    broken = {f"default/pod-{letter}" for letter in pods}
    four = {name: node for name, node in PODS.items() if name[-1] in "abcdf"}
    found = find(lambda src, dst: bool(broken & {src.name, dst.name}), four)
    assert {name for _, name in named(found)} == broken


def test_where_everything_fails_nothing_is_named() -> None:
    assert find(lambda src, dst: True) == []


def test_a_single_failing_flow_is_no_evidence() -> None:
    assert find(lambda src, dst: (src.name[-1], dst.name[-1]) == ("a", "d")) == []


def test_what_cannot_be_told_apart_is_given_as_alternatives() -> None:
    alone = {"default/pod-a": "worker0", "default/pod-b": "worker1", "default/pod-c": "worker1",
             "default/pod-d": "worker2", "default/pod-e": "worker2"}  # fmt: skip
    found = find(lambda src, dst: "default/pod-a" in (src.name, dst.name), alone)
    assert named(found) == [("pod", "default/pod-a")]
    assert [str(each) for each in found[0].causes[0].alternatives] == ["node worker0"]


def test_of_two_pods_that_only_talk_to_each_other_neither_is_named() -> None:
    talkers = {"default/pod-a", "default/pod-b"}
    ends = [Endpoint("pod", name, node) for name, node in PODS.items()]
    pairs = [
        Pair(src, dst, 100, 20 if talkers == {src.name, dst.name} else 0)
        for src, dst in permutations(ends, 2)
        if len(talkers & {src.name, dst.name}) != 1
    ]
    failing = [pair for pair in pairs if pair.retransmitted_segments]
    ok = [pair for pair in pairs if not pair.retransmitted_segments]
    found = findings(failing, ok, {})
    assert named(found) == [("link", "default/pod-a <-> default/pod-b")]
    alternatives = {each.name for each in found[0].causes[0].alternatives}
    assert alternatives >= talkers


def test_some_noise_does_not_change_who_is_named() -> None:
    def breaks(src: Endpoint, dst: Endpoint) -> bool:
        noise = (src.name[-1], dst.name[-1]) == ("e", "f")
        missed = (src.name[-1], dst.name[-1]) == ("c", "a")
        return noise or ("default/pod-c" in (src.name, dst.name) and not missed)

    assert named(find(breaks))[0] == ("pod", "default/pod-c")


def test_a_causes_numbers_are_those_of_the_direction_it_is_named_with() -> None:
    pods = {name: node for name, node in PODS.items() if name[-1] in "abcd"}
    ends = {name: Endpoint("pod", name, node) for name, node in pods.items()}
    pairs = list(permutations(ends.values(), 2))

    def takes_part(cause: Cause, src: Endpoint, dst: Endpoint) -> bool:
        chosen = {"sending": (src,), "receiving": (dst,), "both": (src, dst)}[cause.direction]
        if cause.kind == "link":
            return {src.name, dst.name} == set(cause.name.split(" <-> "))
        return any(cause.name in (end.name, end.node) for end in chosen)

    (found,) = find(lambda src, dst: "default/pod-a" in (src.name, dst.name), pods)
    failing = [pair for pair in pairs if "default/pod-a" in (pair[0].name, pair[1].name)]
    assert ("node", "worker0") in [(cause.kind, cause.name) for cause in found.causes]
    for cause in found.causes:
        own = [pair for pair in pairs if takes_part(cause, *pair)]
        bad = [pair for pair in own if pair in failing]
        assert cause.precision == pytest.approx(len(bad) / len(own), abs=1e-4), cause
        assert cause.explains == pytest.approx(len(bad) / len(failing), abs=1e-4), cause
