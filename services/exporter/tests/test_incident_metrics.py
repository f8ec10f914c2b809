"""Verdicts, as Prometheus sees them."""

import itertools

import msgspec
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Sample

from conftest import a_cause, a_verdict
from flowverdict_contracts.verdicts import Rule
from flowverdict_exporter.incident_labels import explained
from flowverdict_exporter.incidents import FORGET_SECONDS, STALE_SECONDS, Incidents


def samples_of(registry: CollectorRegistry) -> list[Sample]:
    return [sample for family in registry.collect() for sample in family.samples]


def samples(incidents: Incidents) -> dict[str, list[Sample]]:
    """What is shown once all verdicts have been read."""
    incidents.caught_up()
    registry = CollectorRegistry()
    registry.register(incidents)
    found = sorted(samples_of(registry), key=lambda sample: sample.name)
    return {name: list(each) for name, each in itertools.groupby(found, lambda sample: sample.name)}


def test_an_open_incident_names_its_cause_and_carries_the_summary() -> None:
    incidents = Incidents()
    incidents.add(a_verdict(causes=(a_cause("pod", "shop/cart-0", node="worker1"),)))
    (active,) = samples(incidents)["flowverdict_incident_active"]
    assert active.value == 1
    assert active.labels["cause_kind"] == "pod"
    assert active.labels["cause_namespace"] == "shop"
    assert active.labels["cause_name"] == "cart-0"
    assert active.labels["cause_node"] == "worker1"
    (info,) = samples(incidents)["flowverdict_incident_info"]
    assert info.labels["summary"] == "pod shop/cart-0 is to blame"
    assert samples(incidents)["flowverdict_incident_score"][0].value == 0.9


def test_open_incidents_are_not_shown_until_all_verdicts_have_been_read() -> None:
    incidents, registry = Incidents(), CollectorRegistry()
    registry.register(incidents)
    incidents.add(a_verdict(), age_seconds=60)
    assert "flowverdict_incident_active" not in {each.name for each in samples_of(registry)}
    assert registry.get_sample_value("flowverdict_open_incidents") is None
    incidents.caught_up()
    assert registry.get_sample_value("flowverdict_open_incidents") == 1
    assert "flowverdict_incident_active" in {each.name for each in samples_of(registry)}


def test_a_clock_that_is_wrong_makes_no_incident_stale() -> None:
    incidents = Incidents()
    incidents.caught_up()
    incidents.add(a_verdict(), age_seconds=7 * 3600)
    (stale,) = samples(incidents)["flowverdict_incident_stale"]
    assert stale.value == 0


def test_a_summary_that_only_changes_its_figures_makes_no_new_series() -> None:
    incidents = Incidents()
    verdict = a_verdict()
    incidents.add(verdict)
    incidents.add(msgspec.structs.replace(verdict, status="ongoing", summary="now 21 %"))
    (info,) = samples(incidents)["flowverdict_incident_info"]
    assert info.labels["summary"] == verdict.summary


def test_a_resolved_incident_is_gone() -> None:
    incidents = Incidents()
    incidents.add(a_verdict())
    incidents.add(a_verdict(status="resolved"))
    assert "flowverdict_incident_active" not in samples(incidents)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    now = [1000.0]
    monkeypatch.setattr("flowverdict_exporter.incidents.time.monotonic", lambda: now[0])
    return now


def test_an_incident_of_which_nothing_more_is_heard_is_stale_and_not_over(
    clock: list[float],
) -> None:
    incidents = Incidents()
    incidents.add(a_verdict())
    for passed, stale in ((STALE_SECONDS - 1, 0), (2, 1), (FORGET_SECONDS / 2, 1)):
        clock[0] += passed
        assert "flowverdict_incident_active" in samples(incidents)
        (found,) = samples(incidents)["flowverdict_incident_stale"]
        assert found.value == stale
    clock[0] += FORGET_SECONDS / 2
    assert "flowverdict_incident_active" not in samples(incidents)


def test_an_incident_that_a_worker_no_longer_knows_is_forgotten_once_it_has_been_back_for_long(
    clock: list[float],
) -> None:
    incidents = Incidents()
    incidents.add(a_verdict())
    clock[0] += 1000
    for _ in range(30):  # the worker is back
        incidents.add(msgspec.structs.replace(a_verdict(), incident_id="0" * 12))
        assert len(samples(incidents)["flowverdict_incident_active"]) == 2
        clock[0] += 20
    clock[0] += 20
    incidents.add(msgspec.structs.replace(a_verdict(), incident_id="0" * 12))
    assert len(samples(incidents)["flowverdict_incident_active"]) == 1


def test_an_incident_of_a_stream_that_is_lost_is_forgotten_soon_unless_it_is_heard_of_again(
    clock: list[float],
) -> None:
    incidents = Incidents()
    lost, goes_on = (msgspec.structs.replace(a_verdict(), incident_id=each * 12) for each in "ab")
    incidents.add(lost)
    incidents.add(goes_on)
    clock[0] += 10
    incidents.renewed()
    clock[0] += 10
    incidents.add(goes_on)
    clock[0] += 500
    assert len(samples(incidents)["flowverdict_incident_active"]) == 2
    clock[0] += 100
    (left,) = samples(incidents)["flowverdict_incident_active"]
    assert left.labels["incident_id"] == "b" * 12


def test_only_a_link_is_labelled_with_the_addresses_of_its_ends() -> None:
    incidents = Incidents()
    link = msgspec.structs.replace(
        a_cause("link", "shop/cart <-> w1"), addresses=("10.244.0.2", "10.30.45.11")
    )
    incidents.add(a_verdict(causes=(link,)))
    (active,) = samples(incidents)["flowverdict_incident_active"]
    assert active.labels["cause_addresses"] == "10.244.0.2|10.30.45.11"
    pod = msgspec.structs.replace(a_cause("pod", "shop/cart"), addresses=("10.244.0.2",))
    incidents.add(a_verdict(causes=(pod,)))
    (active,) = samples(incidents)["flowverdict_incident_active"]
    assert active.labels["cause_addresses"] == ""


def test_an_incident_without_a_cause_is_shown_without_one() -> None:
    incidents = Incidents()
    incidents.add(a_verdict(causes=()))
    (active,) = samples(incidents)["flowverdict_incident_active"]
    assert active.labels["cause_name"] == ""
    assert "flowverdict_incident_explains" not in samples(incidents)


@pytest.mark.parametrize(
    ("kind", "name", "direction", "expected"),
    [
        (
            "pod",
            "shop/cart",
            "both",
            [
                {"by": "src_pod", "src_namespace": "shop", "src_pod": "cart"},
                {"by": "dst_pod", "dst_namespace": "shop", "dst_pod": "cart"},
            ],
        ),
        ("node", "w1", "receiving", [{"by": "dst_node", "dst_node": "w1"}]),
        ("unknown", "10.9.9.9", "sending", [{"by": "src_ip", "src_ip": "10.9.9.9"}]),
        (
            "node_link",
            "w1 <-> w2",
            "both",
            [
                {"by": "src_node+dst_node", "src_node": "w1", "dst_node": "w2"},
                {"by": "src_node+dst_node", "src_node": "w2", "dst_node": "w1"},
            ],
        ),
        (
            "workload_link",
            "shop/cart <-> pay/bank",
            "both",
            [
                {
                    "by": "src_workload+dst_workload",
                    "src_namespace": src[0],
                    "src_workload": src[1],
                    "dst_namespace": dst[0],
                    "dst_workload": dst[1],
                }
                for src, dst in itertools.permutations([("shop", "cart"), ("pay", "bank")])
            ],
        ),
        (
            "link",
            "shop/cart <-> w1",
            "sending",
            [
                {"by": "src_ip+dst_ip", "src_ip": "10.244.0.2", "dst_ip": "10.30.45.11"},
                {"by": "src_ip+dst_ip", "src_ip": "10.30.45.11", "dst_ip": "10.244.0.2"},
            ],
        ),
    ],
)
def test_what_a_cause_explains_is_expressed_in_the_labels_of_flows(
    kind: str, name: str, direction: str, expected: list[dict[str, str]]
) -> None:
    cause = a_cause(kind, name, direction=direction)
    if kind == "link":
        cause = msgspec.structs.replace(cause, addresses=("10.244.0.2", "10.30.45.11"))
    assert explained(cause) == expected


def test_calls_of_a_service_that_fail_because_of_a_pod_behind_it_are_explained() -> None:
    cause = a_cause("pod", "shop/cart", direction="receiving")
    cause = msgspec.structs.replace(cause, service_addresses=("10.96.0.1",))
    assert explained(cause) == [
        {"by": "dst_pod", "dst_namespace": "shop", "dst_pod": "cart"},
        {"by": "dst_ip", "dst_ip": "10.96.0.1"},
    ]
    cause = a_cause("workload_link", "shop/cart <-> shop/db")
    cause = msgspec.structs.replace(cause, service_addresses=("10.96.0.1",))
    assert {
        "by": "src_workload+dst_ip",
        "src_namespace": "shop",
        "src_workload": "cart",
        "dst_ip": "10.96.0.1",
    } in explained(cause)
    one_way = msgspec.structs.replace(cause, name="shop/cart -> shop/db")
    assert [each["src_workload"] for each in explained(one_way) if "dst_ip" in each] == ["cart"]


def test_a_verdict_that_comes_late_does_not_open_a_resolved_incident_again() -> None:
    incidents = Incidents()
    incidents.add(a_verdict(second=1_000_000))
    incidents.add(a_verdict(status="resolved", second=1_000_004))
    incidents.add(a_verdict(status="ongoing", second=1_000_002))
    assert "flowverdict_incident_active" not in samples(incidents)


def test_no_series_is_shown_twice_whatever_a_verdict_holds() -> None:
    incidents = Incidents()
    verdict = a_verdict(causes=(a_cause("node_link", "w1 <-> w1"),))
    rule = Rule(antecedents=("a, b",), consequents=("c",), support=0.5, confidence=1.0, lift=2.0,
                leverage=0.1, p_value=0.1)  # fmt: skip
    other = msgspec.structs.replace(rule, antecedents=("a", "b"), support=0.4)
    incidents.add(msgspec.structs.replace(verdict, rules=(rule, other)))
    for name, found in samples(incidents).items():
        assert len({tuple(sorted(each.labels.items())) for each in found}) == len(found), name
