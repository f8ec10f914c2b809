"""The boards that a verdict's link leads to, asked of a real Prometheus."""

import asyncio
import time
from collections.abc import Iterator

import msgspec
import pytest
from prometheus_client import CollectorRegistry

from conftest import SECOND, a_cause, a_verdict, enriched_batch, eventually, flow_row
from flowverdict_contracts.timestamps import to_rfc3339
from flowverdict_exporter.incidents import Incidents
from flowverdict_exporter.services import Services
from flowverdict_provisioner.board import Panel
from flowverdict_provisioner.boards import BOARDS
from flowverdict_provisioner.promql import CAUSE_LINK
from tests.real_prometheus import Series, needs_prometheus, query, running, store

pytestmark = needs_prometheus

NOW = int(time.time())
CALLER, GOOD, BAD, SERVICE = "10.244.0.3", "10.244.0.7", "10.244.0.8", "10.96.0.9"
NAMES = {CALLER: "web-0", GOOD: "cart-0", BAD: "cart-1", SERVICE: ""}


def incidents() -> Incidents:
    """A link's, which is over, and a service's, which is open."""
    link = msgspec.structs.replace(
        a_cause("link", "shop/web-0 <-> shop/cart-1"), addresses=(CALLER, BAD)
    )
    found = Incidents()
    opened = {"opened_at": to_rfc3339((NOW - 300) * SECOND)}
    for status, second in (("opened", NOW - 290), ("resolved", NOW - 200)):
        verdict = a_verdict(status=status, second=second, causes=(link,))
        found.add(msgspec.structs.replace(verdict, **opened))
    found.caught_up()
    found.add(
        a_verdict(incident_id="5e", second=NOW - 30, causes=(a_cause("service", "shop/cart"),))
    )
    return found


def services() -> Services:
    found = Services(3600)
    names = {"dst_service": "cart", "dst_namespace": "shop"}
    rows = [flow_row("a", "b") | names | {"dst_ip": address} for address in (GOOD, BAD, SERVICE)]
    found.add(enriched_batch(*rows))
    return found


def flow(src: str, dst: str) -> dict[str, str]:
    ends = (("src", src), ("dst", dst))
    return {
        f"{end}_{name}": text
        for end, ip in ends
        for name, text in (("ip", ip), ("namespace", "shop"), ("pod", NAMES[ip]))
    } | {"src_workload": NAMES[src].rpartition("-")[0]}


def series() -> Iterator[Series]:
    registry = CollectorRegistry()
    for collector in (incidents(), services()):
        registry.register(collector)
    for family in registry.collect():
        for sample in family.samples:
            yield sample.name, sample.labels, sample.value
    yield "flowverdict_exporter_pairs", {}, 1
    for src, dst, retransmitted, opened, failed in (
        (CALLER, GOOD, 0, 5, 0),
        (GOOD, CALLER, 1, 0, 0),
        (CALLER, BAD, 40, 1, 3),
        (BAD, CALLER, 2, 0, 0),
        (CALLER, SERVICE, 0, 0, 2),
    ):
        for name, value in (
            ("data_segments_sent", 100 if dst != SERVICE else 0),
            ("retransmitted_data_segments", retransmitted),
            ("opens", opened),
            ("failed_opens", failed),
        ):
            yield f"pair:tcp_{name}:rate2m", flow(src, dst), value
        if dst != SERVICE:
            yield "pair:tcp_retransmission_ratio:rate2m", flow(src, dst), retransmitted / 100


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    folder = tmp_path_factory.mktemp("causes")
    store(folder, series())
    with running(folder, {}) as url:
        asyncio.run(eventually(lambda: query(url, "flowverdict_exporter_pairs")))
        yield url


Found = list[tuple[dict[str, str], float]]


def shown(url: str, uid: str, title: str, ref: str = "A", **variables: str) -> Found:
    """What a panel's query gives with these values of the board's variables."""
    (board,) = (each for each in BOARDS if each.uid == f"flowverdict-{uid}")
    (panel,) = (each for each in board.panels if each.title == title)
    return asked(url, panel, ref, variables)


def asked(url: str, panel: Panel, ref: str, variables: dict[str, str]) -> Found:
    (expression,) = (each.expr for each in panel.queries if each.ref == ref)
    for name, value in {"cluster": "", **variables}.items():
        expression = expression.replace(f"${name}", value)
    found = query(url, expression)
    return [(each["metric"], float(each["value"][1])) for each in found]


def target(row: dict[str, str]) -> tuple[str, dict[str, str]]:
    """Where the link from a row of a table of incidents leads, with the variables it sets."""

    def filled(text: str) -> str:
        for name, value in row.items():
            text = text.replace(f"${{__data.fields.{name}}}", value)
        return "" if "${" in text else text

    uid = filled(CAUSE_LINK.uid).removeprefix("flowverdict-")
    return uid, {name: filled(text) for name, text in CAUSE_LINK.variables.items()}


def test_an_incident_that_is_over_stays_listed_with_its_times_score_and_flows(
    prometheus: str,
) -> None:
    found = {ref: shown(prometheus, "verdicts", "Resolved", ref) for ref in "ABCD"}
    assert {ref: value for ref, ((_, value),) in found.items()} == {
        "A": 1000 * (NOW - 300),
        "B": 100,
        "C": 0.9,
        "D": 6,
    }
    ((row, _),) = found["A"]
    assert (row["cause_kind"], row["cause_name"]) == ("link", "shop/web-0 <-> shop/cart-1")
    for incident, summary in (("c1", None), ("5e", "service shop/cart is to blame")):
        ((row, _),) = shown(prometheus, "incident", "Cause", incident=incident)
        assert (row["incident_id"], row.get("summary")) == (incident, summary)


def test_the_verdict_on_a_link_leads_to_that_link_each_way(prometheus: str) -> None:
    ((row, _),) = shown(prometheus, "verdicts", "Resolved")
    uid, variables = target(row)
    assert uid == "link"
    found = shown(prometheus, uid, "Both ways", **variables)
    assert {(row["src_pod"], row["dst_pod"], value) for row, value in found} == {
        ("web-0", "cart-1", 0.4),
        ("cart-1", "web-0", 0.02),
    }
    one_way = shown(prometheus, uid, "Both ways", source=CALLER, destination=BAD)
    assert sorted(value for _, value in one_way) == [0.02, 0.4]


def test_the_verdict_on_a_service_leads_to_the_pods_behind_it(prometheus: str) -> None:
    ((row, _),) = shown(prometheus, "verdicts", "Open now")
    uid, variables = target(row)
    assert uid == "service"
    failing = shown(prometheus, uid, "Its pods", "B", **variables)
    assert {(row.get("dst_pod", ""), value) for row, value in failing} == {
        ("cart-0", 0),
        ("cart-1", 0.75),
        ("", 1),
    }
    retransmitted = shown(prometheus, uid, "Its pods", "A", **variables)
    assert {(row["dst_pod"], value) for row, value in retransmitted} == {
        ("cart-0", 0),
        ("cart-1", 0.4),
    }
    ((caller, share),) = shown(prometheus, uid, "Its callers", "B", **variables)
    assert (caller["src_workload"], share) == ("web", 5 / 11)
