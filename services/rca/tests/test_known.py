"""What the cluster itself knows: silent nodes, services without endpoints, deletions, backends."""

from collections.abc import Iterator
from itertools import permutations
from typing import Any

import pyarrow as pa
import pytest

from conftest import SECOND, enriched_batch, flow_row, restarted
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_rca.decisions import PairStatus
from flowverdict_rca.incidents import Incidents
from flowverdict_rca.judgement import Judgement, judge
from flowverdict_rca.panes import Panes
from flowverdict_rca.settings import RcaSettings
from flowverdict_runtime.settings import load

SETTINGS = load(RcaSettings, {})
T = 1_000_000
Row = dict[str, Any]


def flow(src: str, dst: str, bad: bool = False) -> Row:
    return flow_row(
        src, dst, retransmitted_segments=50 if bad else 0, bytes_acked=0 if bad else 1000
    )


def to_service(src: str, name: str, condition: str = "", **numbers: int) -> Row:
    """A row from a pod to a service's address."""
    row = flow_row(src, "x", **({"bytes_acked": 1000} | numbers))
    return row | {
        "dst_ip": {"api": "10.96.0.1", "db": "10.96.0.2"}[name],
        "dst_kind": "service",
        "dst_pod": "",
        "dst_service": name,
        "dst_condition": condition,
    }


def backend(row: Row, service: str) -> Row:
    """The row, its sender being a pod of that service."""
    return row | {"src_service": service}


class Cluster:
    """What the nodes report, second by second, and what is made of it."""

    def __init__(self) -> None:
        self.panes = Panes(SETTINGS)
        self.second = T
        self.sequence = 0
        self.judgements: list[Judgement] = []
        self.messages: list[tuple[int, IntervalHeader, pa.RecordBatch]] = []

    def report(self, node: str, rows: list[Row], since: int | None = None) -> None:
        """What `node` counted in this second, or in all seconds since."""
        self.sequence += 1
        start = self.second if since is None else since
        times = start * SECOND, (self.second + 1) * SECOND
        header = IntervalHeader(node, "run", self.sequence, *times)
        self.messages.append((self.sequence, header, enriched_batch(*rows)))
        self.panes.add(header, self.messages[-1][-1], self.sequence)

    def passes(self, seconds: int, **rows_of: list[Row]) -> None:
        """Time passes while these nodes report these rows each second."""
        for _ in range(seconds):
            for node, rows in rows_of.items():
                self.report(node, rows)
            self.second += 1
            self.judgements += [judge(window, SETTINGS) for window in self.panes.windows()]

    def restart(self) -> None:
        """The worker is killed, and the next one reads again what it must."""
        self.panes = restarted(self.panes, SETTINGS, self.messages)

    def blamed(self) -> Iterator[tuple[str, ...]]:
        """For each window, the causes that it found."""
        for each in self.judgements:
            yield tuple(str(finding.causes[0]) for finding in each.findings if finding.causes)


N1 = [
    flow("a@n1", "b@n1"), flow("b@n1", "a@n1"), flow("a@n1", "c@n2"), flow("b@n1", "c@n2"),
    to_service("a@n1", "api"), flow("a@n1", "e@n3"),
]  # fmt: skip
N1_CUT = [
    flow("a@n1", "b@n1"), flow("b@n1", "a@n1"), flow("a@n1", "c@n2", True),
    flow("b@n1", "c@n2", True), to_service("a@n1", "api", retransmitted_segments=40),
    flow("a@n1", "e@n3"),
]  # fmt: skip
N2 = [backend(flow("c@n2", "a@n1"), "api"), flow("c@n2", "d@n2"), flow("d@n2", "c@n2")]
N2_CUT = [backend(flow("c@n2", "a@n1", True), "api"), flow("c@n2", "d@n2"), flow("d@n2", "c@n2")]
N3 = [flow("e@n3", "a@n1")]


def cluster_after_n2_was_cut_off(seconds: int) -> Cluster:
    """All was well, then n2 was cut off for so long, and what it counted has just arrived."""
    cluster = Cluster()
    cluster.passes(20, n1=N1, n2=N2, n3=N3)
    cut = cluster.second
    cluster.passes(seconds, n1=N1_CUT, n3=N3)
    cluster.report("n2", N2_CUT, since=cut)
    return cluster


def test_a_node_that_falls_silent_as_flows_to_it_fail_is_blamed_alone_until_it_is_heard_again() -> (
    None
):
    cluster = cluster_after_n2_was_cut_off(40)
    cluster.passes(30, n1=N1, n2=N2, n3=N3)
    found = {each for each in cluster.blamed() if each}
    assert found == {("node n2",)}
    incidents = Incidents(SETTINGS)
    verdicts = [each for one in cluster.judgements for each in incidents.judge(one)]
    assert len({each.incident_id for each in verdicts}) == 1
    assert [verdicts[0].status, verdicts[-1].status] == ["opened", "resolved"]
    assert "its collector has been silent since" in verdicts[0].summary
    assert "NODE_SILENT" in verdicts[0].conditions
    assert verdicts[0].severity == "critical"


@pytest.mark.parametrize("pods_each", [1, 2, 3])
@pytest.mark.parametrize("cut", [{"n2", "n4"}, {"n2", "n4", "n5"}])
def test_nodes_that_are_cut_off_together_are_named_one_by_one_and_nothing_else(
    cut: set[str], pods_each: int
) -> None:
    nodes = [f"n{number}" for number in range(6)]
    letters = iter("abcdefghijklmnopqr")
    pods = [f"pod-{next(letters)}@{node}" for node in nodes for _ in range(pods_each)]
    pairs = [(src, dst, src[-2:], dst[-2:]) for src, dst in permutations(pods, 2)]
    cluster = Cluster()
    fine = {node: [flow(src, dst) for src, dst, of, _ in pairs if of == node] for node in nodes}
    cluster.passes(20, **fine)
    after = {
        node: [flow(src, dst, bad=to in cut) for src, dst, of, to in pairs if of == node]
        for node in nodes
        if node not in cut
    }
    cluster.passes(40, **after)
    incidents = Incidents(SETTINGS)
    verdicts = [each for one in cluster.judgements for each in incidents.judge(one)]
    opened = [str(each.causes[0]) for each in verdicts if each.status == "opened"]
    assert sorted(opened) == sorted(f"node {node}" for node in cut)
    assert "resolved" not in {each.status for each in verdicts}


def test_a_silent_node_is_not_blamed_for_one_of_its_two_pods_while_the_other_is_reached() -> None:
    cluster = Cluster()
    callers = ["a@n1", "b@n1", "e@n3", "f@n3"]
    n2 = [flow(pod, each) for pod in ("c@n2", "d@n2") for each in callers]
    of = {node: [each for each in callers if each.endswith(node)] for node in ("n1", "n3")}

    def rows(node: str, bad: bool) -> list[Row]:
        return [
            flow(each, pod, bad and pod == "c@n2") for each in of[node] for pod in ("c@n2", "d@n2")
        ]

    cluster.passes(20, n1=rows("n1", False), n2=n2, n3=rows("n3", False))
    cluster.passes(40, n1=rows("n1", True), n3=rows("n3", True))
    assert {each for each in cluster.blamed() if each} == {("pod default/c",)}


def test_a_node_that_is_silent_stays_so_over_a_restart() -> None:
    cluster = Cluster()
    cluster.passes(20, n1=N1, n2=N2, n3=N3)
    cut = cluster.second
    cluster.passes(30, n1=N1_CUT, n3=N3)
    cluster.restart()
    cluster.passes(20, n1=N1_CUT, n3=N3)
    assert list(cluster.blamed())[-1] == ("node n2",)
    cluster.report("n2", N2_CUT, since=cut)
    cluster.passes(20, n1=N1, n2=N2, n3=N3)
    cluster.restart()
    late = [flow("f@n2", "api-server@cp", True), flow("g@n2", "api-server@cp", True)]
    cluster.passes(30, n1=N1, n2=[*N2, *late], n3=N3)
    assert {each for each in cluster.blamed() if each} == {("node n2",)}


def test_flows_that_recover_late_after_a_node_was_cut_off_are_no_incident_of_their_own() -> None:
    cluster = cluster_after_n2_was_cut_off(40)
    late = [flow("f@n2", "api-server@cp", True), flow("g@n2", "api-server@cp", True)]
    cluster.passes(35, n1=N1, n2=[*N2, *late], n3=N3)
    cluster.passes(30, n1=N1, n2=N2, n3=N3)
    assert {each for each in cluster.blamed() if each} == {("node n2",)}
    assert not cluster.judgements[-1].failing.size


def test_a_fault_that_goes_on_while_a_collector_restarts_stays_one_incident() -> None:
    bad = flow("a@n1", "c@n2", True), flow("b@n1", "c@n2", True), flow("e@n3", "c@n2", True)
    rows = {
        "n1": [flow("a@n1", "b@n1"), flow("b@n1", "a@n1"), flow("a@n1", "e@n3"), *bad[:2]],
        "n2": [flow("c@n2", "a@n1", True), flow("d@n2", "a@n1"), flow("d@n2", "e@n3")],
        "n3": [flow("e@n3", "a@n1"), bad[2]],
    }
    cluster = Cluster()
    cluster.passes(20, n1=rows["n1"], n2=rows["n2"], n3=rows["n3"])
    stopped = cluster.second
    cluster.passes(7, n1=rows["n1"], n3=rows["n3"])
    cluster.report("n2", rows["n2"] * 7, since=stopped)
    cluster.passes(40, n1=rows["n1"], n2=rows["n2"], n3=rows["n3"])
    incidents = Incidents(SETTINGS)
    verdicts = [each for one in cluster.judgements for each in incidents.judge(one)]
    assert {str(each.causes[0]) for each in verdicts} == {"pod default/c"}
    assert [each.status for each in verdicts if each.status != "ongoing"] == ["opened"]


def test_a_fault_stays_one_incident_though_other_flows_of_it_fail_after_a_collector_restarted() -> (
    None
):
    n1 = [flow("a@n1", "b@n1"), flow("b@n1", "a@n1"), flow("a@n1", "e@n3"), flow("b@n1", "e@n3")]
    before, after = flow("a@n1", "c@n2", True), flow("b@n1", "c@n2", True)
    n2 = [flow("c@n2", "a@n1", True), flow("d@n2", "a@n1"), flow("d@n2", "e@n3")]
    n3 = [flow("e@n3", "a@n1")]
    cluster = Cluster()
    cluster.passes(20, n1=[*n1, before], n2=n2, n3=[*n3, flow("e@n3", "c@n2", True)])
    stopped = cluster.second
    cluster.passes(7, n1=[*n1, before], n3=n3)
    cluster.report("n2", n2 * 7, since=stopped)
    cluster.passes(40, n1=[*n1, after], n2=n2, n3=[*n3, flow("e@n3", "c@n2", True)])
    incidents = Incidents(SETTINGS)
    verdicts = [each for one in cluster.judgements for each in incidents.judge(one)]
    assert [each.status for each in verdicts if each.status != "ongoing"] == ["opened"]


def test_what_fails_long_after_a_node_was_heard_again_is_judged() -> None:
    cluster = cluster_after_n2_was_cut_off(20)
    cluster.passes(60, n1=N1, n2=N2, n3=N3)
    before = len(cluster.judgements)
    fails = [flow("f@n2", f"{pod}@n1", True) for pod in "abcd"]
    cluster.passes(20, n1=N1, n2=[*N2, *fails], n3=N3)
    assert ("pod default/f",) in list(cluster.blamed())[before:]


def test_while_nats_could_not_be_reached_by_any_node_what_fails_is_judged_at_once() -> None:
    cluster = Cluster()
    cluster.passes(20, n1=N1, n2=N2, n3=N3)
    away = cluster.second
    cluster.second += 40
    fails = [flow("f@n2", f"{pod}@n1", True) for pod in "abcd"]
    for node, rows in {"n1": N1, "n2": [*N2, *fails], "n3": N3}.items():
        cluster.report(node, rows, since=away)
    cluster.passes(20, n1=N1, n2=[*N2, *fails], n3=N3)
    assert {each for each in cluster.blamed() if each} == {("pod default/f",)}


def test_an_incident_goes_on_through_a_gap_of_all_nodes() -> None:
    pods = [f"{name}@n{at // 2 + 1}" for at, name in enumerate("abcdef")]

    def rows(node: str, seconds: int = 1) -> list[Row]:
        return [
            flow_row(
                *ends,
                data_segments_sent=100 * seconds,
                bytes_acked=1000,
                retransmitted_segments=20 * seconds * ("a@n1" in ends),
            )
            for ends in permutations(pods, 2)
            if ends[0].endswith(node)
        ]

    nodes = ("n1", "n2", "n3")
    cluster = Cluster()
    cluster.passes(40, **{node: rows(node) for node in nodes})
    began = cluster.second
    cluster.second += 19  # NATS is away
    for node in nodes:
        cluster.report(node, rows(node, 20), since=began)
    cluster.second += 1
    cluster.passes(40, **{node: rows(node) for node in nodes})
    incidents = Incidents(SETTINGS)
    verdicts = [each for one in cluster.judgements for each in incidents.judge(one)]
    assert {(each.incident_id, each.status) for each in verdicts[1:]} == {
        (verdicts[0].incident_id, "ongoing")
    }


def test_a_silent_collector_alone_is_no_fault_of_its_node() -> None:
    cluster = Cluster()
    cluster.passes(20, n1=N1, n2=N2, n3=N3)
    cluster.passes(40, n1=N1, n3=N3)
    assert not any(cluster.blamed())


def test_which_way_a_pod_fails_is_unknown_while_nobody_is_heard_that_counts_the_other_way() -> None:
    bad = [flow(each, "c@n2", True) for each in ("a@n1", "b@n1")]
    rows = [flow(a, b) for a, b in permutations(("a@n1", "b@n1"), 2)]
    rows += [flow(src, dst) for src in ("a@n1", "b@n1") for dst in ("d@n2", "g@n2", "h@n2")]
    cluster = Cluster()
    n3 = [*N3, flow("e@n3", "c@n2", True)]
    cluster.passes(20, n1=[*rows, *bad], n2=N2, n3=n3)
    cluster.passes(40, n1=[*rows, *bad], n3=n3)
    found = [each.findings[0].causes[0] for each in cluster.judgements if each.findings]
    assert {each.name for each in found} == {"default/c"}
    assert [found[0].direction, found[-1].direction] == ["receiving", "unknown"]
    incidents = Incidents(SETTINGS)
    verdicts = [each for one in cluster.judgements for each in incidents.judge(one)]
    assert "Which way it fails is unknown" in verdicts[-1].summary


def test_what_a_silent_node_could_tell_apart_is_withheld_until_it_is_heard() -> None:
    inside = [flow("a@n1", "b@n1"), flow("b@n1", "a@n1")]
    works = [flow("a@n1", f"{pod}@n2") for pod in "dfgh"]
    fails = [flow("p@n1", "q@n2", True)]  # neither of them is seen with anybody else
    for told, cause in (
        (flow("q@n2", "d@n2", True), "pod default/q"),
        (flow("q@n2", "d@n2"), "link default/p -> default/q"),
    ):
        n3 = [flow("e@n3", f"{pod}@n2") for pod in "dfgh"]
        cluster = Cluster()
        cluster.passes(20, n1=[*inside, *works], n2=N2, n3=n3)
        cluster.passes(40, n1=[*inside, *works, *fails], n3=n3)
        assert not any(cluster.blamed())
        incidents = Incidents(SETTINGS)
        verdicts = [each for one in cluster.judgements for each in incidents.judge(one)]
        withheld = verdicts[-1]
        assert (withheld.causes, withheld.enough_evidence) == ((), False)
        assert withheld.nodes_needed == ("n2",)
        between = {str(each) for each in withheld.undecided_between}
        assert between >= {"pod default/p", "pod default/q"}
        assert withheld.summary.endswith("Which of these, node n2 can tell, but it is silent.")
        cluster.passes(300, n1=[*inside, *works, *fails], n2=[*N2, told], n3=n3)
        assert cause in list(cluster.blamed())[-1][0]


def test_a_failing_pod_on_a_silent_node_is_not_the_node_while_its_other_flows_work() -> None:
    cluster = Cluster()
    works = [flow("a@n1", f"{pod}@n2") for pod in "dfgh"]
    fails = [flow("a@n1", "c@n2", True), flow("b@n1", "c@n2", True)]
    cluster.passes(20, n1=N1 + works, n2=N2, n3=N3)
    cluster.passes(40, n1=works + fails, n3=N3)
    found = {each for each in cluster.blamed() if each}
    assert ("node n2",) not in found
    assert ("pod default/c",) in found


def test_who_may_be_cut_off_itself_blames_nobody_for_being_silent() -> None:
    cluster = Cluster()
    outside = flow("c@n2", "api-server@cp")
    cluster.passes(20, n1=N1, n2=[*N2, outside])
    cluster.passes(40, n2=[*N2_CUT, flow("c@n2", "api-server@cp", True)])
    assert not any("node n1" in causes for causes in cluster.blamed())


def test_a_node_that_is_cut_off_with_us_on_it_is_one_incident() -> None:
    cluster = Cluster()
    to_api = [flow(f"{pod}@n1", "api-server@cp") for pod in "ab"]
    to_api_cut = [flow(f"{pod}@n1", "api-server@cp", True) for pod in "ab"]
    cluster.passes(20, n1=[*N1, *to_api], n2=[*N2, flow("c@n2", "api-server@cp")])
    cut = cluster.second
    inside = [flow("a@n1", "b@n1"), flow("b@n1", "a@n1")]
    to_n2 = [flow("a@n1", "c@n2", True), flow("b@n1", "c@n2", True)]
    cluster.passes(40, n1=[*inside, *to_n2, *to_api_cut])
    cluster.report("n2", [*N2_CUT, flow("c@n2", "api-server@cp")], since=cut)
    cluster.passes(30, n1=[*N1[:4], *to_api_cut], n2=N2)
    cluster.passes(30, n1=[*N1[:4], *to_api], n2=N2)
    assert {each for each in cluster.blamed() if each} == {("node n1",)}
    incidents = Incidents(SETTINGS)
    verdicts = [each for one in cluster.judgements for each in incidents.judge(one)]
    assert len({each.incident_id for each in verdicts}) == 1
    assert verdicts[-1].status == "resolved"
    assert "no other node has been heard since" in verdicts[0].summary


def test_which_of_two_nodes_is_cut_off_is_said_once_a_third_party_has_answered_or_not() -> None:
    silent_flows = [flow("a@n1", "c@n2", True), flow("b@n1", "c@n2", True)]
    inside = [flow("a@n1", "b@n1"), flow("b@n1", "a@n1")]
    for fails, node in ((True, "node n1"), (False, "node n2")):
        cluster = Cluster()
        cluster.passes(20, n1=N1[:4], n2=N2)
        cluster.passes(8, n1=[*inside, *silent_flows])
        assert not any(cluster.blamed())
        to_api = [flow(f"{pod}@n1", "api-server@cp", fails) for pod in "ab"]
        cluster.passes(30, n1=[*inside, *silent_flows, *to_api])
        assert {each for each in cluster.blamed() if each} == {(node,)}


def test_a_node_that_is_reconnected_before_the_others_are_heard_opens_no_second_incident() -> None:
    cluster = Cluster()
    inside = [flow("a@n1", "b@n1"), flow("b@n1", "a@n1")]
    api = [to_service(f"{pod}@n1", "api") for pod in "ab"]
    api_cut = [
        to_service(f"{pod}@n1", "api", retransmitted_segments=50, bytes_acked=0) for pod in "abd"
    ]
    cluster.passes(20, n1=[*N1[:4], *api], n2=N2[1:])
    cut = cluster.second
    to_n2 = [flow("a@n1", "c@n2", True), flow("b@n1", "c@n2", True)]
    cluster.passes(40, n1=[*inside, *to_n2, *api_cut])
    late = [flow(f"{pod}@n1", "api-server@cp", True) for pod in "efgh"]
    cluster.passes(12, n1=[*N1[:4], *api, *late])  # n2's collector has not reconnected
    cluster.report("n2", N2_CUT[1:], since=cut)
    cluster.passes(30, n1=[*N1[:4], *api], n2=N2[1:])
    incidents = Incidents(SETTINGS)
    verdicts = [each for one in cluster.judgements for each in incidents.judge(one)]
    assert {str(each.causes[0]) for each in verdicts if each.causes} == {"node n1"}
    assert len({each.incident_id for each in verdicts}) == 1


def test_what_is_on_the_only_node_that_is_heard_does_not_say_that_it_reaches_others() -> None:
    cluster = Cluster()
    probe = flow("x@", "a@n1") | {"src_kind": "unknown", "src_pod": "", "src_ip": "10.244.1.1"}
    inside = [
        flow("a@n1", "b@n1"), backend(flow("b@n1", "a@n1"), "db"), to_service("a@n1", "db"), probe,
    ]  # fmt: skip
    to_api = [flow(f"{pod}@n1", "api-server@cp") for pod in "ab"]
    to_api_cut = [flow(f"{pod}@n1", "api-server@cp", True) for pod in "ab"]
    cluster.passes(20, n1=[*inside, *N1[:4], *to_api], n2=N2)
    cluster.passes(1, n1=[*inside, *N1[:4], *to_api])  # n2's last interval does not arrive
    to_n2 = [flow("a@n1", "c@n2", True), flow("b@n1", "c@n2", True)]
    cluster.passes(4, n1=[*inside, *to_n2])
    cluster.passes(40, n1=[*inside, *to_n2, *to_api_cut])
    assert {each for each in cluster.blamed() if each} == {("node n1",)}


def test_a_service_whose_pods_are_on_a_node_that_is_away_is_not_the_cause() -> None:
    cluster = Cluster()
    on_n2 = [backend(flow("c@n2", "a@n1"), "db"), *N2]
    works = [to_service("a@n1", "db"), to_service("b@n1", "db")]
    cluster.passes(20, n1=[*N1, *works], n2=on_n2, n3=N3)
    cut = cluster.second
    fails = [
        to_service(
            f"{pod}@n1", "db", "no_ready_endpoints", retransmitted_segments=50, bytes_acked=0
        )
        for pod in "ab"
    ]
    cluster.passes(40, n1=[*N1_CUT, *fails], n3=N3)
    cluster.report("n2", N2_CUT, since=cut)
    cluster.passes(20, n1=[*N1, *fails], n2=on_n2, n3=N3)
    cluster.passes(30, n1=[*N1, *works], n2=on_n2, n3=N3)
    assert {each for each in cluster.blamed() if each} == {("node n2",)}


def test_a_service_without_ready_endpoints_is_named_as_that_and_wakes_nobody() -> None:
    cluster = Cluster()
    refused = {"opens": 0, "failed_opens": 20, "refused_opens": 20, "data_segments_sent": 0}
    callers = [to_service(f"{pod}@n1", "db", "no_ready_endpoints", **refused) for pod in ("a", "b")]
    cluster.passes(20, n1=[*N1, *callers])
    ready = [to_service(f"{pod}@n1", "db", opens=5) for pod in ("a", "b")]
    cluster.passes(20, n1=[*N1, *ready])  # what failed before stays a warning
    assert {each for each in cluster.blamed() if each} == {("service default/db",)}
    incidents = Incidents(SETTINGS)
    verdicts = [each for one in cluster.judgements for each in incidents.judge(one)]
    assert {each.severity for each in verdicts} == {"warning"}
    assert "it has no ready endpoint" in verdicts[0].summary
    assert "NO_READY_ENDPOINTS" in verdicts[0].conditions


def test_attempts_that_began_without_a_ready_endpoint_still_fail_for_that_reason() -> None:
    cluster = Cluster()
    refused = {"opens": 0, "failed_opens": 20, "refused_opens": 20, "data_segments_sent": 0}
    callers = [to_service(f"{pod}@n1", "db", "no_ready_endpoints", **refused) for pod in ("a", "b")]
    cluster.passes(30, n1=[*N1, *callers])
    pod = [backend(flow("db@n1", "a@n1"), "db"), flow("a@n1", "db@n1"), flow("b@n1", "db@n1")]
    given_up = {
        "opens": 0, "failed_opens": 3, "timed_out_opens": 3, "retransmitted_syns": 3,
        "data_segments_sent": 0,
    }  # fmt: skip
    late = [to_service(f"{pod}@n1", "db", "", **given_up) for pod in ("a", "b")]
    cluster.passes(8, n1=[*N1, *pod, *late])
    cluster.passes(40, n1=[*N1, *pod])
    incidents = Incidents(SETTINGS)
    verdicts = [each for one in cluster.judgements for each in incidents.judge(one)]
    assert {each.severity for each in verdicts} == {"warning"}
    assert verdicts[-1].status == "resolved"


def test_what_a_services_pods_answer_is_counted_as_attempts_to_connect_to_it() -> None:
    cluster = Cluster()
    pod = backend(flow("db@n1", "a@n1"), "db")
    answered = [flow(f"{caller}@n1", "db@n1") | {"opens": 10} for caller in "ab"]
    fails = {"opens": 0, "failed_opens": 1, "data_segments_sent": 0}
    some = [to_service(f"{caller}@n1", "db", "", **fails) for caller in "ab"]
    cluster.passes(30, n1=[*N1, pod, *answered, *some])
    assert not any(cluster.blamed())


def test_a_service_whose_only_pod_moves_is_no_incident() -> None:
    refused = {"opens": 0, "failed_opens": 20, "refused_opens": 20, "data_segments_sent": 0}
    callers = [to_service(f"{pod}@n1", "db", "no_ready_endpoints", **refused) for pod in ("a", "b")]
    ready = [to_service(f"{pod}@n1", "db", opens=5) for pod in ("a", "b")]
    cluster = Cluster()
    for _ in range(3):
        cluster.passes(20, n1=[*N1, *ready])
        cluster.passes(10, n1=[*N1, *callers])
    cluster.passes(20, n1=[*N1, *ready])
    assert not any(cluster.blamed())
    cluster.passes(40, n1=[*N1, *callers])  # its image cannot be pulled
    assert {each for each in cluster.blamed() if each} == {("service default/db",)}


@pytest.mark.parametrize(("condition", "blamed"), [("terminating", set()), ("", {"api"})])
def test_a_service_that_refuses_while_some_of_its_pods_are_deleted_is_no_incident(
    condition: str, blamed: set[str]
) -> None:
    def pods(condition: str) -> list[Row]:
        kept = backend(flow("api-1@n1", "a@n1"), "api")
        others = [backend(flow(f"api-{each}@n1", "a@n1"), "api") for each in (2, 3, 4)]
        return [kept, *(each | {"src_condition": condition} for each in others)]

    # Until every node knows, most connects go to pods that no longer listen.
    refused = {"opens": 1, "failed_opens": 5, "refused_opens": 5, "data_segments_sent": 5}
    callers = [to_service(f"{pod}@n1", "api", "", **refused) for pod in "ab"]
    elsewhere = [flow("a@n1", "b@n1"), flow("b@n1", "a@n1"), flow("c@n1", "a@n1")]
    well = [to_service(f"{pod}@n1", "api", opens=5) for pod in "ab"]
    cluster = Cluster()
    cluster.passes(20, n1=[*elsewhere, *pods(""), *well])
    cluster.passes(4, n1=[*elsewhere, *pods(condition), *callers])
    cluster.passes(6, n1=[*elsewhere, pods("")[0], *callers])
    cluster.passes(30, n1=[*elsewhere, pods("")[0], *well])
    assert {each for each in cluster.blamed() if each} == {
        (f"service default/{name}",) for name in blamed
    }


def test_a_flow_to_a_pod_that_is_deleted_never_fails() -> None:
    for condition in ("terminating", "gone"):
        cluster = Cluster()
        dialled = flow("a@n1", "old@n1", True) | {"dst_condition": condition}
        dials = flow("b@n1", "old@n1", True) | {"dst_condition": condition}
        cluster.passes(20, n1=[*N1, dialled, dials])
        assert not any(PairStatus.FAIL in each.decisions.status for each in cluster.judgements)


def test_a_service_whose_pods_are_on_one_node_is_behind_the_link_to_that_node() -> None:
    across = [flow(f"{one}@n1", f"{other}@n2", True) for one in "abc" for other in "de"]
    across += [flow(f"{other}@n2", f"{one}@n1", True) for one in "abc" for other in "de"]
    within = [flow("a@n1", "b@n1"), flow("b@n1", "c@n1"), flow("d@n2", "e@n2")]
    nats = backend(flow("nats@n1", "a@n1"), "api")
    through = to_service("d@n2", "api", retransmitted_segments=10)
    cluster = Cluster()
    cluster.passes(20, n1=[*across, *within, nats], n2=[through])
    assert {each for each in cluster.blamed() if each} == {("the link between nodes n1 <-> n2",)}
    last = cluster.judgements[-1]
    (finding,) = last.findings
    assert len(finding.explained) == len(last.failing)


def test_one_broken_pod_of_a_service_is_blamed_alone_and_not_its_service_too() -> None:
    def backends(broken: str) -> list[Row]:
        rows = []
        for pod in ("api-1", "api-2", "api-3"):
            rows.append(backend(flow(f"{pod}@n1", "db@n1"), "api"))
            rows.append(flow("db@n1", f"{pod}@n1", bad=pod == broken))
            rows += [backend(flow(f"{pod}@n1", f"front-{each}@n1"), "api") for each in "abc"]
        return rows

    calls = [to_service(f"front-{each}@n1", "api", retransmitted_segments=10) for each in "abc"]
    cluster = Cluster()
    cluster.passes(20, n1=[*backends("api-2"), *calls])
    assert {each for each in cluster.blamed() if each} == {("pod default/api-2",)}
    all_well = Cluster()
    all_well.passes(20, n1=[*backends(""), *calls])
    assert {each for each in all_well.blamed() if each} == {("service default/api",)}


def calls_of_a_service(unanswered: set[str], attempts: int = 12, by: str = "both") -> list[Row]:
    """Each of five callers tries four pods behind an address alike; some never answer. Who is
    behind it is known of a connection if both ends tell of it.
    """
    pods, rows = ("api-1@n1", "api-2@n2", "api-3@n1", "api-4@n2"), []
    share = attempts // len(pods)
    failed = share * len(unanswered)
    for caller in "abcef":
        front = f"front-{caller}@n1"
        opens = 0 if by == "both" else attempts - failed
        if failed or opens:
            rows.append(to_service(front, "api", failed_opens=failed, timed_out_opens=failed,
                                   retransmitted_syns=3 * failed, opens=opens))  # fmt: skip
        for pod in pods:
            if pod.partition("@")[0] not in unanswered:
                if by == "both":
                    call = flow(front, pod) | {"opens": share, "role": "client"}
                    rows.append(call | {"dst_service": "api"})
                answer = flow(pod, front) | {"opens": share, "role": "server"}
                rows.append(backend(answer, "api"))
            rows.append(backend(flow(pod, "db@n1"), "api"))
    return rows


@pytest.mark.parametrize("by", ["both", "pods"])
@pytest.mark.parametrize(
    ("unanswered", "named"),
    [
        ({"api-2"}, {"pod default/api-2"}),
        ({"api-2", "api-3"}, {"pod default/api-2", "pod default/api-3"}),
        ({"api-1", "api-2", "api-3", "api-4"}, {"service default/api"}),
    ],
)
def test_pods_of_a_service_that_never_answer_while_others_do_are_named_and_not_the_service(
    unanswered: set[str], named: set[str], by: str
) -> None:
    cluster = Cluster()
    cluster.passes(10, n1=calls_of_a_service(set(), by=by))
    cluster.passes(20, n1=calls_of_a_service(unanswered, by=by))
    findings = [each for judgement in cluster.judgements for each in judgement.findings]
    assert findings
    blamed = [cause for each in findings for cause in each.causes[: len(named)]]
    assert {str(cause) for cause in blamed} == named
    # Alerts about the service's address are explained by it, too.
    for each in blamed:
        own = each.addresses if each.kind == "service" else each.service_addresses
        assert own == ("10.96.0.1",)


def test_a_pod_that_nobody_tries_while_some_callers_reach_nobody_is_not_to_blame() -> None:
    """A policy stops the callers; the pod is far away, and calls are kept in the zone."""
    stopped = {"front-e", "front-f"}
    rows = [
        row
        for row in calls_of_a_service({"api-2"})
        if row["dst_kind"] != "service" and not {row["src_pod"], row["dst_pod"]} & stopped
    ]
    rows += [
        to_service(f"{each}@n1", "api", failed_opens=12, timed_out_opens=12) for each in stopped
    ]
    cluster = Cluster()
    cluster.passes(20, n1=rows)
    said = {each for window in cluster.blamed() for each in window}
    assert "pod default/api-2" not in said
