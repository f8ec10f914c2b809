"""Windows over time to verdicts."""

from collections.abc import Callable
from dataclasses import replace
from itertools import permutations
from typing import Any

import msgspec
import numpy as np
import pytest

from conftest import flow_row, window_of
from flowverdict_contracts.verdicts import Verdict
from flowverdict_rca.incident import Incident
from flowverdict_rca.incidents import Incidents
from flowverdict_rca.judgement import judge
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import Window
from flowverdict_runtime.settings import load

SETTINGS = load(RcaSettings, {})
PODS = {f"pod-{letter}": f"worker{index // 2}" for index, letter in enumerate("abcdef")}


def window(number: int, broken: set[str]) -> Window:
    """The `number`-th window; `broken` are pods (`pod-a`) or directed flows (`a->b`)."""
    rows = []
    for src, dst in permutations(PODS, 2):
        bad = f"{src[-1]}->{dst[-1]}" in broken or bool({src, dst} & broken)
        again = 20 if bad else 0
        rows.append(
            flow_row(f"{src}@{PODS[src]}", f"{dst}@{PODS[dst]}", retransmitted_segments=again)
        )
    return window_of(rows, settings=SETTINGS, second=1_000 + 2 * number)


def play(
    windows: list[set[str]], known: tuple[Incident, ...] = (), first: int = 0
) -> list[Verdict]:
    incidents = Incidents(SETTINGS, known)
    return [
        verdict
        for number, broken in enumerate(windows, first)
        for verdict in incidents.judge(judge(window(number, broken), SETTINGS))
    ]


def statuses(verdicts: list[Verdict]) -> list[tuple[str, str]]:
    return [(each.status, each.causes[0].name if each.causes else "") for each in verdicts]


A, C = {"pod-a"}, {"pod-c"}
FINE: set[str] = set()
SMALLER = {"a->c", "c->a"}


def test_an_incident_opens_goes_on_and_resolves() -> None:
    verdicts = play([FINE, A, A, A, A, FINE, FINE, FINE, FINE])
    assert statuses(verdicts) == [
        ("opened", "default/pod-a"),
        ("ongoing", "default/pod-a"),
        ("resolved", "default/pod-a"),
    ]
    assert len({each.incident_id for each in verdicts}) == 1
    assert len({each.id for each in verdicts}) == 3
    assert len({each.opened_at for each in verdicts}) == 1


def test_an_incident_is_pending_then_open_contested_and_clearing() -> None:
    incidents = Incidents(SETTINGS)
    states = []
    for number, broken in enumerate([A, A, A, SMALLER, A, FINE, A, FINE, FINE, FINE]):
        list(incidents.judge(judge(window(number, broken), SETTINGS)))
        states.append([each.state for each in incidents.known if each.blamed[1] == "default/pod-a"])
    assert states == [
        ["pending"],
        ["pending"],
        ["open"],
        ["contested"],
        ["open"],
        ["clearing"],
        ["open"],
        ["clearing"],
        ["clearing"],
        ["over"],
    ]


def test_what_fails_for_two_windows_only_is_no_incident() -> None:
    assert play([FINE, A, A, FINE, FINE, FINE, FINE]) == []


def test_a_single_clear_window_does_not_resolve() -> None:
    verdicts = play([A, A, A, FINE, A, A])
    assert statuses(verdicts) == [
        ("opened", "default/pod-a"),
        ("ongoing", "default/pod-a"),
        ("ongoing", "default/pod-a"),
    ]


def test_the_severity_of_an_incident_only_rises_also_over_a_restart() -> None:
    one_flow = {"a->c"}
    first = Incidents(SETTINGS)
    severities = []
    for number, broken in enumerate([A, A, A, one_flow, A, one_flow, one_flow, FINE, FINE, FINE]):
        kept = msgspec.json.decode(msgspec.json.encode(first.known), type=tuple[Incident, ...])
        first = Incidents(SETTINGS, kept)
        said = first.judge(judge(window(number, broken), SETTINGS))
        severities += [(each.status, each.severity) for each in said]
    assert severities == [
        ("opened", "critical"),
        *[("ongoing", "critical")] * 4,
        ("resolved", "critical"),
    ]


@pytest.mark.parametrize("seconds", [10, 30])
def test_a_fault_that_comes_and_goes_is_one_incident_after_the_first_few(seconds: int) -> None:
    some = seconds // 2
    verdicts = play(([A] * some + [FINE] * some) * 20 + [FINE] * 60)
    ids = list(dict.fromkeys(each.incident_id for each in verdicts))
    assert len(ids) <= {10: 2, 30: 4}[seconds]
    assert [each.status for each in verdicts if each.status != "ongoing"] == [
        "opened",
        "resolved",
    ] * len(ids)


def test_what_comes_again_after_a_while_is_resolved_as_soon_as_before() -> None:
    some = [A] * 4 + [FINE] * 3
    (*_, resolved) = play([*some, *[FINE] * 300, *some])
    assert resolved.status == "resolved"


def test_first_windows_that_blame_something_smaller_do_not_open_an_incident() -> None:
    verdicts = play([{"a->b", "b->a"}, {"a->b", "b->a"}, A, A, A])
    assert statuses(verdicts) == [("opened", "default/pod-a")]


def test_while_a_fault_fades_what_is_left_of_it_is_not_blamed() -> None:
    verdicts = play([A, A, A, {"a->c", "c->a"}, {"a->c", "c->a"}, FINE, FINE, FINE])
    assert {name for _, name in statuses(verdicts)} == {"default/pod-a"}


def test_the_last_flow_of_a_fault_that_fades_is_no_incident_of_its_own() -> None:
    fades = [{"a->b", "b->a"}, {"a->c"}, {"a->c"}, {"a->c"}, {"a->c"}]
    verdicts = play([A, A, A, *fades, FINE, FINE, FINE])
    assert {name for _, name in statuses(verdicts)} == {"default/pod-a"}
    assert len({each.incident_id for each in verdicts}) == 1
    elsewhere = play([A, A, A, *fades[:1], *[{"c->d"}] * 12])
    assert statuses(elsewhere)[-1] == ("ongoing", "default/pod-c -> default/pod-d")


def test_what_stays_long_after_the_rest_recovered_is_blamed_in_the_end() -> None:
    link = {"a->c", "c->a"}
    verdicts = play([A, A, A, *[link] * (SETTINGS.open_after + SETTINGS.window_panes)])
    assert statuses(verdicts)[0] == ("opened", "default/pod-a")
    assert statuses(verdicts)[-1] == ("ongoing", "default/pod-a <-> default/pod-c")
    assert len({each.incident_id for each in verdicts}) == 1


def test_two_faults_at_different_times_are_two_incidents() -> None:
    both = A | C
    verdicts = play([A, A, A, A, both, both, both, both, C, C, C, C])
    opened = [each for each in verdicts if each.status == "opened"]
    assert [each.causes[0].name for each in opened] == ["default/pod-a", "default/pod-c"]
    assert len({each.incident_id for each in verdicts}) == 2
    assert ("resolved", "default/pod-a") in statuses(verdicts)
    assert ("resolved", "default/pod-c") not in statuses(verdicts)


def test_failing_flows_without_a_cause_are_reported_without_a_cause() -> None:
    everything = set(PODS)
    longer = SETTINGS.open_after + SETTINGS.window_panes  # a cause may still show
    verdicts = play([everything] * longer + [FINE] * 3)
    assert statuses(verdicts) == [("opened", ""), ("resolved", "")]
    assert not verdicts[0].enough_evidence
    assert "not enough evidence" in verdicts[0].summary


def test_windows_that_cannot_tell_are_no_rivals_of_those_that_can() -> None:
    verdicts = play([A, A, set(PODS)] * 10)
    assert statuses(verdicts)[0] == ("opened", "default/pod-a")
    assert {name for _, name in statuses(verdicts)} == {"default/pod-a"}
    assert len({each.incident_id for each in verdicts}) == 1


def test_without_a_cause_the_nodes_that_are_not_heard_are_named() -> None:
    incidents = Incidents(SETTINGS)
    verdicts: list[Verdict] = []
    for number in range(12):
        seen = window(number, set(PODS))
        coverage = msgspec.structs.replace(
            seen.coverage, nodes_silent=("n5", "n6", "n7", "n8", "n9")
        )
        verdicts += incidents.judge(judge(replace(seen, coverage=coverage), SETTINGS))
    assert not verdicts[0].enough_evidence
    assert verdicts[0].summary.endswith("Nodes that are not heard may tell: n5, n6, n7 and 2 more.")


def test_failing_flows_whose_first_window_had_a_cause_are_reported_without_one_in_the_end() -> None:
    verdicts = play([A] + [set(PODS)] * 12)
    assert statuses(verdicts)[0] == ("opened", "")


def test_a_worker_that_restarts_between_any_two_windows_says_the_same() -> None:
    windows = [FINE, A, A, A, A | C, A | C, A | C, C, C, *[FINE] * 4, *[A] * 3, *[FINE] * 7]
    whole = play(windows)
    for cut in range(len(windows)):
        first = Incidents(SETTINGS)
        before = [
            verdict
            for number, broken in enumerate(windows[:cut])
            for verdict in first.judge(judge(window(number, broken), SETTINGS))
        ]
        assert before + play(windows[cut:], first.known, cut) == whole


def test_a_summary_names_the_culprit_its_node_and_the_figures() -> None:
    (opened,) = play([A, A, A])
    assert "Pod default/pod-a on node worker0" in opened.summary
    assert "10 of 10 failing flows" in opened.summary
    assert "20% of the data segments are retransmitted" in opened.summary
    assert opened.conditions == ("HIGH_RETRANSMISSION_RATIO",)
    assert opened.flows.failing == 10
    assert all(rule.confidence >= 0.7 for rule in opened.rules)


def summary_of(name: str = "", **counts: int) -> tuple[str, tuple[str, ...]]:
    """The summary and conditions of a verdict if all that reaches pod-a counts these."""
    rows = []
    for src, dst in permutations(PODS, 2):
        own = {"data_segments_sent": 0, **counts} if dst == "pod-a" else {}
        row = flow_row(f"{src}@{PODS[src]}", f"{dst}@{PODS[dst]}", **own)
        rows.append(row | ({"dns_name": name} if own else {}))
    opened = verdict_on(rows)
    return opened.summary, opened.conditions


def verdict_on(rows: list[dict[str, Any]]) -> Verdict:
    """The one that opens an incident if these rows are seen for long enough."""
    (opened,) = verdicts_on(lambda: [rows], SETTINGS.open_after)
    return opened


def verdicts_on(panes: Callable[[], list[list[dict[str, Any]]]], windows: int) -> list[Verdict]:
    """All that is said about so many windows, of these panes each."""
    incidents = Incidents(SETTINGS)
    verdicts: list[Verdict] = []
    for number in range(windows):
        made = window_of(*panes(), settings=SETTINGS, second=1_000 + 2 * number)
        verdicts += incidents.judge(judge(made, SETTINGS))
    return verdicts


def addressed(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows, each pod of which has an address of its own."""
    names = {row[f"{end}_pod"] for row in rows for end in ("src", "dst")}
    address = {name: f"10.1.0.{at}" for at, name in enumerate(sorted(names), 1)}
    return [
        row | {f"{end}_ip": address[row[f"{end}_pod"]] for end in ("src", "dst")} for row in rows
    ]


def test_a_cause_that_only_refuses_is_described_by_that_and_the_advice_fits() -> None:
    text, conditions = summary_of(failed_opens=8, refused_opens=8)
    assert "40 of 40 connection attempts are refused" in text
    assert "retransmitted" not in text
    assert "Check that its process is running and listens on that port." in text
    assert conditions == ("CONNECT_FAILURE",)


def test_a_cause_that_times_out_is_described_by_that_and_the_advice_fits() -> None:
    text, _ = summary_of(failed_opens=8, timed_out_opens=8)
    assert "40 of 40 connection attempts time out" in text
    assert "Check network policies, firewalls and routes" in text


def test_a_cause_that_cannot_be_reached_is_described_by_that_and_the_advice_fits() -> None:
    text, _ = summary_of(failed_opens=8, unreachable_opens=8)
    assert "40 of 40 connection attempts find no route to it" in text
    assert "Check that it is up, and the routes to it." in text


def test_attempts_that_fail_in_several_ways_are_described_by_all_of_them() -> None:
    text, _ = summary_of(failed_opens=8, refused_opens=2, timed_out_opens=5, unreachable_opens=1)
    assert "attempts fail (10 refused, 25 timed out, 5 unreachable)" in text


def test_a_server_that_answers_no_dns_lookup_is_described_by_that_and_the_advice_fits() -> None:
    text, conditions = summary_of(dns_lookups=8, dns_unanswered=8)
    assert "40 of 40 DNS lookups are not answered" in text
    assert "Check that its DNS servers run, and that they reach the servers that they ask." in text
    assert conditions == ("DNS_FAILURE",)


def test_a_server_that_answers_most_dns_lookups_with_errors_is_described_by_that() -> None:
    text, conditions = summary_of(dns_lookups=8, dns_answers=8, dns_failures=6)
    assert "30 of 40 answers to DNS lookups are errors" in text
    assert conditions == ("DNS_FAILURE",)


def test_the_names_that_could_not_be_looked_up_are_said() -> None:
    text, _ = summary_of("api.shop", dns_lookups=8, dns_unanswered=8)
    assert "Lookups that failed: api.shop (40)." in text
    text, _ = summary_of(dns_lookups=8, dns_unanswered=8)
    assert "Lookups that failed" not in text


def test_a_few_lookups_that_failed_are_not_said_of_what_fails_otherwise() -> None:
    many = {"dns_lookups": 10_000, "dns_answers": 10_000, "dns_failures": 1}
    text, conditions = summary_of("api.shop", failed_opens=8, refused_opens=8, **many)
    assert "Lookups that failed" not in text
    assert conditions == ("CONNECT_FAILURE",)


@pytest.mark.parametrize("ends", [{"dns_name_errors": 8}, {"dns_failures": 3}])
def test_names_that_do_not_exist_and_a_few_errors_are_no_dns_failure(ends: dict[str, int]) -> None:
    row = flow_row("pod-b@worker1", "pod-a@worker0", data_segments_sent=0, dns_answers=8, **ends)
    window = window_of([row], settings=SETTINGS)
    assert not len(judge(window, SETTINGS).failing)


def test_a_path_mtu_that_became_smaller_and_a_full_receiver_are_conditions() -> None:
    text, conditions = summary_of(
        data_segments_sent=100,
        retransmitted_segments=30,
        path_mtu_reductions=1,
        zero_windows_received=2,
    )
    assert "30% of the data segments are retransmitted and the path MTU has become smaller" in text
    assert "Check the MTU of every interface and tunnel on the way." in text
    assert conditions == ("HIGH_RETRANSMISSION_RATIO", "ZERO_WINDOW", "MTU_MISMATCH")


def test_data_that_does_not_arrive_though_connections_open_is_a_question_of_size() -> None:
    text, conditions = summary_of(
        data_segments_sent=20, retransmitted_segments=15, opens=3, bytes_acked=500
    )
    assert "are retransmitted and connections open, but only small packets get through" in text
    assert "Check the MTU of every interface and tunnel on the way." in text
    assert conditions == ("HIGH_RETRANSMISSION_RATIO", "MTU_MISMATCH")
    for also in ({"bytes_acked": 50_000}, {"retransmitted_syns": 3}, {"opens": 0}, {"opens": 19}):
        counts = {"opens": 3, "bytes_acked": 500, **also}
        text, conditions = summary_of(
            "", data_segments_sent=20, retransmitted_segments=18, **counts
        )
        assert "MTU" not in text
        assert "MTU_MISMATCH" not in conditions


def test_a_path_mtu_that_shrank_where_segments_are_lost_is_a_rule_about_failure() -> None:
    rows = []
    for src, dst in permutations(PODS, 2):
        smaller = "pod-a" in (src, dst)
        lost = 30 if smaller and src != "pod-b" else 0
        row = flow_row(f"{src}@{PODS[src]}", f"{dst}@{PODS[dst]}", retransmitted_segments=lost)
        rows.append(row | {"path_mtu_reductions": int(smaller)})
    rules = {rule.antecedents: rule for rule in verdict_on(rows).rules}
    both = rules["HIGH_RETRANSMISSION_RATIO", "MTU_MISMATCH"]
    assert (both.consequents, both.confidence) == (("FAIL",), 1.0)
    assert rules["MTU_MISMATCH",].confidence == 0.9
    assert rules["pod default/pod-a",].confidence == 0.9


def test_a_cause_with_both_names_both() -> None:
    text, conditions = summary_of(
        data_segments_sent=100, retransmitted_segments=30, failed_opens=8, refused_opens=8
    )
    assert "30% of the data segments are retransmitted and 40 of 40 connection attempts" in text
    assert "Check its interface" in text
    assert "listens on that port" in text
    assert conditions == ("HIGH_RETRANSMISSION_RATIO", "CONNECT_FAILURE")


def test_syns_that_go_unanswered_are_described_as_that() -> None:
    text, conditions = summary_of(retransmitted_segments=4, retransmitted_syns=4)
    assert "connection requests go unanswered (20 SYN segments retransmitted)" in text
    assert "firewalls" in text
    assert conditions == ("CONNECT_FAILURE",)


def test_half_open_requests_open_no_incident() -> None:
    incidents = Incidents(SETTINGS)
    for number in range(6):
        rows = [flow_row("web@n1", "db@n2"), flow_row("db@n2", "web@n1")]
        rows += [
            flow_row("db@n2", "x", data_segments_sent=0, retransmitted_segments=3,
                     retransmitted_synacks=3)
            | {"dst_kind": "external", "dst_pod": "", "dst_namespace": "", "dst_ip": f"45.1.0.{n}"}
            for n in range(155)
        ]  # fmt: skip
        made = window_of(rows, settings=SETTINGS, second=1_000 + 2 * number)
        assert list(incidents.judge(judge(made, SETTINGS))) == []


def test_a_path_that_failed_both_ways_is_blamed_so_while_one_way_recovers_before_the_other() -> (
    None
):
    nodes = {f"pod-{number}": "n1" if number < 4 else "n2" for number in range(8)}
    incidents, verdicts = Incidents(SETTINGS), list[Verdict]()
    for number in range(20):
        rows = []
        for src, dst in permutations(nodes, 2):
            way = (nodes[src], nodes[dst])
            fails = way == ("n1", "n2") or (way == ("n2", "n1") and number < 5)
            again = 20 if fails and number < 12 else 0
            ends = (f"{each}@{nodes[each]}" for each in (src, dst))
            rows.append(flow_row(*ends, retransmitted_segments=again))
        made = window_of(rows, settings=SETTINGS, second=1_000 + 2 * number)
        verdicts += incidents.judge(judge(made, SETTINGS))
    assert {str(each.causes[0]) for each in verdicts} == {"the link between nodes n1 <-> n2"}
    assert len({each.incident_id for each in verdicts}) == 1
    assert verdicts[-1].status == "resolved"


def test_a_node_whose_lookups_fail_is_named_and_not_the_server_that_answers_others() -> None:
    pods = [f"app-{number}@n{number % 6}" for number in range(24)]

    def lookup(pod: str, server: str) -> dict[str, Any]:
        answered = not pod.endswith("n3")
        counts = {"dns_answers": 20 * answered, "dns_unanswered": 20 * (not answered)}
        return flow_row(pod, server, data_segments_sent=0, **counts)

    rows = [flow_row(*each) for each in permutations(pods, 2)]
    rows += [lookup(pod, server) for pod in pods for server in ("dns-0@n1", "dns-1@n2")]
    address = {name: f"10.1.0.{at + 1}" for at, name in enumerate({row["src_pod"] for row in rows})}
    address |= {"dns-0": "10.1.1.1", "dns-1": "10.1.1.2"}
    for row in rows:
        row |= {f"{end}_ip": address[row[f"{end}_pod"]] for end in ("src", "dst")}
    (cause, *_) = verdict_on(rows).causes
    assert (str(cause), cause.precision) == ("node n3", 1.0)


ATTEMPTS = {
    "dns_unanswered": lambda bad: {"dns_answers": 10 - bad, "dns_unanswered": bad},
    "dns_failures": lambda bad: {"dns_answers": 10, "dns_failures": bad},
    "retransmitted_syns": lambda bad: {"opens": 10, "retransmitted_syns": bad},
    "failed_opens": lambda bad: {"opens": 10 - bad, "failed_opens": bad, "refused_opens": bad},
}


@pytest.mark.parametrize(
    ("kind", "share", "causes"),
    [
        *((kind, 0.02, set()) for kind in ATTEMPTS),
        ("dns_unanswered", 0.04, set()),
        ("dns_failures", 0.45, set()),
        ("failed_opens", 0.45, set()),
        ("dns_unanswered", 0.08, {"pod default/server"}),
        ("retransmitted_syns", 0.08, {"pod default/server"}),
        ("dns_failures", 0.6, {"pod default/server"}),
        ("failed_opens", 0.6, {"pod default/server"}),
    ],
)
@pytest.mark.parametrize("seed", range(2))
def test_what_answers_too_few_of_everyone_is_the_cause_and_chance_is_none(
    seed: int, kind: str, share: float, causes: set[str]
) -> None:
    random = np.random.default_rng(seed)
    pods = [f"app-{number}@n{number % 6}" for number in range(24)]

    def rows() -> list[dict[str, Any]]:
        found = [flow_row(*each) for each in permutations(pods, 2)]
        for pod in pods:
            counts = ATTEMPTS[kind](int(random.binomial(10, share)))
            found.append(flow_row(pod, "server@n1", data_segments_sent=0, **counts))
        return addressed(found)

    verdicts = verdicts_on(lambda: [rows() for _ in range(SETTINGS.window_panes)], 6)
    assert {str(cause) for verdict in verdicts for cause in verdict.causes} == causes
    assert all(verdict.causes for verdict in verdicts)


@pytest.mark.parametrize("segments", [10, 40, 200])
@pytest.mark.parametrize(
    ("suffers", "share", "causes"),
    [
        (lambda src, dst: True, 0.04, set()),
        (lambda src, dst: True, 0.06, set()),
        (lambda src, dst: "app-3@n3" in (src, dst), 0.04, {"pod default/app-3"}),
        (lambda src, dst: "app-3@n3" in (src, dst), 0.06, {"pod default/app-3"}),
        (lambda src, dst: "n1" in src[-2:] or "n1" in dst[-2:], 0.06, {"node n1"}),
    ],
)
def test_what_loses_about_as_much_as_the_threshold_is_named_unless_everything_does(
    suffers: Callable[[str, str], bool], share: float, causes: set[str], segments: int
) -> None:
    random = np.random.default_rng(1)
    pods = [f"app-{number}@n{number % 4}" for number in range(12)]

    def rows() -> list[dict[str, Any]]:
        found = []
        for src, dst in permutations(pods, 2):
            lost = int(random.binomial(segments, share if suffers(src, dst) else 0.001))
            counts = {"data_segments_sent": segments, "retransmitted_segments": lost}
            found.append(flow_row(src, dst, **counts, retransmitted_data_segments=lost))
        return addressed(found)

    verdicts = verdicts_on(lambda: [rows() for _ in range(SETTINGS.window_panes)], 10)
    assert verdicts
    assert {str(verdict.causes[0]) for verdict in verdicts if verdict.causes} == causes


def to_one_server(rows: Callable[[str, str], list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Pods on three nodes that have nothing but this to do with a server on another node."""
    return addressed(
        [row for number in range(6) for row in rows(f"app-{number}@n{number % 3}", "db@n9")]
    )


@pytest.mark.parametrize(
    "rows",
    [
        lambda app, db: [flow_row(app, db, data_segments_sent=0, dns_unanswered=20)],
        lambda app, db: [
            flow_row(app, db, data_segments_sent=0, failed_opens=5, timed_out_opens=5)
        ],
        lambda app, db: [
            flow_row(*ends, retransmitted_segments=30) for ends in ((app, db), (db, app))
        ],
    ],
    ids=["lookups", "connects", "losses"],
)
def test_a_server_that_fails_all_and_is_all_that_is_asked_is_named(
    rows: Callable[[str, str], list[dict[str, Any]]],
) -> None:
    opened = verdict_on(to_one_server(rows))
    assert str(opened.causes[0]) == "pod default/db"
    assert [str(each) for each in opened.causes[0].alternatives] == ["node n9"]
    assert "no flow is known to be fine" in opened.summary


@pytest.mark.parametrize("elsewhere", [1, 2])
def test_a_few_flows_elsewhere_that_are_fine_do_not_take_the_name_away(elsewhere: int) -> None:
    rows = to_one_server(
        lambda app, db: [flow_row(app, db, data_segments_sent=0, failed_opens=5, timed_out_opens=5)]
    )
    rows += [flow_row(f"x-{each}@n0", f"y-{each}@n1") for each in range(elsewhere)]
    assert str(verdict_on(addressed(rows)).causes[0]) == "pod default/db"


def test_clients_on_one_node_and_a_server_that_fails_all_of_them_are_named_as_far_as_it_goes() -> (
    None
):
    rows = [
        flow_row(f"app-{each}@n0", "db@n9", data_segments_sent=0, dns_unanswered=20)
        for each in range(6)
    ]
    (cause, *_) = verdict_on(addressed(rows)).causes
    assert {"pod default/db", "node n9", "node n0"} <= {str(cause), *map(str, cause.alternatives)}


def test_a_server_that_many_others_reach_too_seldom_to_be_ok_is_not_named() -> None:
    rows = [
        flow_row(f"app-{each}@n{each % 3}", "db@n9", data_segments_sent=0, failed_opens=5)
        for each in range(3)
    ]
    rows += [
        flow_row(f"other-{each}@n{each % 3}", "db@n9", data_segments_sent=0, opens=3)
        for each in range(50)
    ]
    (opened,) = verdicts_on(lambda: [addressed(rows)], 20)[:1]
    assert "pod default/db" not in {str(each) for each in opened.causes}


def test_the_pods_of_a_workload_that_fail_all_and_are_all_that_is_asked_are_that_workload() -> None:
    rows = [
        flow_row(f"app-{number}@n{number % 3}", server, data_segments_sent=0, dns_unanswered=20)
        | {"dst_workload": "coredns", "dst_workload_kind": "Deployment"}
        for number in range(6)
        for server in ("dns-0@n1", "dns-1@n2")
    ]
    opened = verdict_on(addressed(rows))
    assert str(opened.causes[0]) == "workload default/coredns"


@pytest.mark.parametrize("nodes", [1, 4])
def test_if_everything_fails_that_talks_to_each_other_nobody_is_blamed(nodes: int) -> None:
    pods = [f"app-{number}@n{number % nodes}" for number in range(8)]
    rows = [flow_row(*each, retransmitted_segments=30) for each in permutations(pods, 2)]
    (opened,) = verdicts_on(lambda: [addressed(rows)], 20)[:1]
    assert opened.causes == ()
