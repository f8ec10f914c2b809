"""Incidents that are over, as Prometheus sees them."""

import time

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from conftest import SECOND, a_cause, a_verdict
from flowverdict_contracts.timestamps import to_rfc3339
from flowverdict_contracts.verdicts import FlowCounts, Verdict
from flowverdict_exporter.incidents import Incidents, KeptIncident
from flowverdict_exporter.past_incidents import MOST_PAST_INCIDENTS, PastIncident

DAY = 86400
NOW = int(time.time())
CART = a_cause("pod", "shop/cart-0", node="worker1")


def said(
    status: str,
    second: int,
    opened: int = NOW - 100,
    failing: int = 6,
    incident_id: str = "c1",
) -> Verdict:
    return msgspec.structs.replace(
        a_verdict(incident_id=incident_id, status=status, second=second, causes=(CART,)),
        opened_at=to_rfc3339(opened * SECOND),
        flows=FlowCounts(failing=failing, ok=6, undecided=0),
    )


def shown(incidents: Incidents, incident_id: str) -> dict[str, float]:
    """What is shown of a resolved incident, without the common beginning of the names."""
    registry = CollectorRegistry()
    registry.register(incidents)
    return {
        sample.name.removeprefix("flowverdict_resolved_incident_"): sample.value
        for family in registry.collect()
        for sample in family.samples
        if sample.name.startswith("flowverdict_resolved")
        and sample.labels["incident_id"] == incident_id
    }


def kept_and_restored(incidents: Incidents) -> Incidents:
    still_open, past = incidents.kept()
    types = tuple[list[KeptIncident], list[PastIncident]]
    stored = msgspec.msgpack.decode(msgspec.msgpack.encode((still_open, past)), type=types)
    again = Incidents()
    again.restore(*stored)
    return again


@pytest.mark.parametrize("restarts", [False, True], ids=["one run", "restarted meanwhile"])
def test_a_resolved_incident_is_shown_with_its_cause_times_score_and_most_failing_flows(
    restarts: bool,
) -> None:
    incidents = Incidents()
    for verdict in (
        said("opened", NOW - 90, failing=3),
        said("ongoing", NOW - 60, failing=9),
        said("ongoing", NOW - 50, failing=2),
        said("resolved", NOW - 40, failing=0),
    ):
        incidents.add(verdict)
        if restarts:
            incidents = kept_and_restored(incidents)
    assert shown(incidents, "c1") == {
        "timestamp_seconds": NOW - 40,
        "opened_timestamp_seconds": NOW - 100,
        "score": 0.9,
        "failing_flows": 9,
    }
    (past,) = incidents.kept()[1]
    assert past.labels == ("c1", "pod", "shop", "cart-0", "worker1", "both", "")


def test_how_many_flows_failed_is_not_shown_where_only_the_end_was_heard() -> None:
    incidents = Incidents()
    incidents.add(said("resolved", NOW - 40, failing=0))
    assert "failing_flows" not in shown(incidents, "c1")
    assert shown(incidents, "c1")["timestamp_seconds"] == NOW - 40


def test_a_verdict_that_is_read_again_changes_nothing() -> None:
    incidents = Incidents()
    incidents.add(said("opened", NOW - 90))
    for _ in range(2):
        incidents.add(said("resolved", NOW - 40))
    assert shown(incidents, "c1")["failing_flows"] == 6


def test_weeks_of_verdicts_read_at_once_give_the_same_as_when_they_came() -> None:
    """What was opened long ago and never resolved is not shown as open again."""
    incidents = Incidents()
    for incident_id, days in (("a1", 40), ("b2", 20), ("d4", 3)):
        then = NOW - days * DAY
        for status, after, failing in (("opened", 0, 8), ("ongoing", 30, 5), ("resolved", 60, 0)):
            second = then + after
            verdict = said(status, second, then, failing, incident_id=incident_id)
            incidents.add(verdict, NOW - second)
    incidents.add(said("opened", NOW - 8 * DAY, incident_id="e5"), 8 * DAY)
    incidents.add(said("opened", NOW - 5, incident_id="f6"), 5)
    incidents.caught_up()
    assert shown(incidents, "a1") == {}
    for incident_id in ("b2", "d4"):
        assert shown(incidents, incident_id)["failing_flows"] == 8
    registry = CollectorRegistry()
    registry.register(incidents)
    assert registry.get_sample_value("flowverdict_incident_stale", {"incident_id": "e5"}) is None
    assert registry.get_sample_value("flowverdict_incident_stale", {"incident_id": "f6"}) == 0


def test_of_many_resolved_incidents_the_latest_are_shown() -> None:
    incidents = Incidents()
    for number in range(MOST_PAST_INCIDENTS + 5):
        incidents.add(said("resolved", NOW - 2000 + number, incident_id=f"{number:x}"))
    assert len(incidents.kept()[1]) == MOST_PAST_INCIDENTS
    assert not shown(incidents, "4")
    assert shown(incidents, "5")
