"""Windows over time to verdicts."""

from itertools import permutations

from flowverdict_contracts.verdicts import Coverage, Verdict
from flowverdict_rca.incidents import Incident, Incidents
from flowverdict_rca.judgement import judge
from flowverdict_rca.pairs import Endpoint, Pair
from flowverdict_rca.panes import WindowData
from flowverdict_rca.settings import RcaSettings
from flowverdict_runtime.settings import load

SETTINGS = load(RcaSettings, {})
SECOND = 1_000_000_000
PODS = [Endpoint("pod", f"d/pod-{letter}", f"worker{i // 2}") for i, letter in enumerate("abcdef")]


def window(number: int, broken: set[str]) -> WindowData:
    """The `number`-th window; `broken` are pods (`pod-a`) or directed flows (`a->b`)."""
    pairs = []
    for src, dst in permutations(PODS, 2):
        flow = f"{src.name[-1]}->{dst.name[-1]}"
        bad = flow in broken or bool({src.name[2:], dst.name[2:]} & broken)
        pairs.append((Pair(src, dst, 100, 20 if bad else 0),))
    end = (1000 + 2 * number) * SECOND
    coverage = Coverage(nodes_reporting=("n",), nodes_silent=(), rows_lost=0, rows_late=0)
    return WindowData(end - 10 * SECOND, end, tuple(pairs), {}, coverage)


def play(
    windows: list[set[str]], known: tuple[Incident, ...] = (), first: int = 0
) -> list[Verdict]:
    incidents = Incidents(SETTINGS, known)
    return [
        verdict
        for number, broken in enumerate(windows, first)
        for verdict in incidents.judge(judge(window(number, broken), SETTINGS))
    ]


def said(verdicts: list[Verdict]) -> list[tuple[str, str]]:
    return [(each.status, each.causes[0].name if each.causes else "") for each in verdicts]


A, C = {"pod-a"}, {"pod-c"}
FINE: set[str] = set()


def test_an_incident_opens_goes_on_and_resolves() -> None:
    verdicts = play([FINE, A, A, A, A, FINE, FINE, FINE, FINE])
    assert said(verdicts) == [
        ("opened", "d/pod-a"),
        ("ongoing", "d/pod-a"),
        ("resolved", "d/pod-a"),
    ]
    assert len({each.incident_id for each in verdicts}) == 1
    assert len({each.id for each in verdicts}) == 3
    assert len({each.opened_at for each in verdicts}) == 1


def test_what_fails_for_two_windows_only_is_no_incident() -> None:
    assert play([FINE, A, A, FINE, FINE, FINE, FINE]) == []


def test_a_single_clear_window_does_not_resolve() -> None:
    verdicts = play([A, A, A, FINE, A, A])
    assert said(verdicts) == [("opened", "d/pod-a"), ("ongoing", "d/pod-a"), ("ongoing", "d/pod-a")]


def test_first_windows_that_blame_something_smaller_do_not_open_an_incident() -> None:
    verdicts = play([{"a->b", "b->a"}, {"a->b", "b->a"}, A, A, A])
    assert said(verdicts) == [("opened", "d/pod-a")]


def test_while_a_fault_fades_what_is_left_of_it_is_not_blamed() -> None:
    verdicts = play([A, A, A, {"a->c", "c->a"}, {"a->c", "c->a"}, FINE, FINE, FINE])
    assert {name for _, name in said(verdicts)} == {"d/pod-a"}


def test_what_stays_long_after_the_rest_recovered_is_blamed_in_the_end() -> None:
    link = {"a->c", "c->a"}
    verdicts = play([A, A, A, *[link] * (SETTINGS.open_after + SETTINGS.window_panes)])
    assert said(verdicts)[0] == ("opened", "d/pod-a")
    assert said(verdicts)[-1] == ("ongoing", "d/pod-a <-> d/pod-c")
    assert len({each.incident_id for each in verdicts}) == 1


def test_two_faults_at_different_times_are_two_incidents() -> None:
    both = A | C
    verdicts = play([A, A, A, A, both, both, both, both, C, C, C, C])
    opened = [each for each in verdicts if each.status == "opened"]
    assert [each.causes[0].name for each in opened] == ["d/pod-a", "d/pod-c"]
    assert len({each.incident_id for each in verdicts}) == 2
    assert ("resolved", "d/pod-a") in said(verdicts)
    assert ("resolved", "d/pod-c") not in said(verdicts)


def test_failing_flows_without_a_cause_are_said_to_be_without_evidence() -> None:
    everything = {pod.name[2:] for pod in PODS}
    verdicts = play([everything] * 3 + [FINE] * 3)
    assert said(verdicts) == [("opened", ""), ("resolved", "")]
    assert not verdicts[0].enough_evidence
    assert "not enough evidence" in verdicts[0].summary


def test_a_worker_that_restarts_between_any_two_windows_says_the_same() -> None:
    windows = [FINE, A, A, A, A | C, A | C, A | C, C, C, FINE, FINE, FINE, FINE]
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
    assert "Pod d/pod-a on node worker0" in opened.summary
    assert "10 of 10 failing flows" in opened.summary
    assert "20 %" in opened.summary
    assert opened.conditions == ("HIGH_RETRANSMISSION_RATIO",)
    assert opened.flows.failing == 10
    assert all(rule.confidence >= 0.7 for rule in opened.rules)
