"""Which pod answers a connection to a service's address."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from conftest import NatsServer, eventually, running_enricher, until_ready
from flowverdict_contracts import enriched, raw
from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.raw import ROLES
from flowverdict_contracts.raw_records import RECORD
from flowverdict_contracts.subjects import FLOWS_ENRICHED, raw_subject
from flowverdict_enricher import inventory
from flowverdict_enricher.connections import Connections
from flowverdict_enricher.directory import ALWAYS, Directory
from flowverdict_enricher.enrich import Learnt, enrich
from flowverdict_enricher.inventory import Inventory
from flowverdict_enricher.reports import Reports

SECOND = 1_000_000_000
T = 1_800_000_000
SHOP, DNS, EMPTY = "10.96.0.7", "10.96.0.10", "10.96.0.11"
PODS = {f"shop-{number}": f"10.244.1.{number}" for number in (1, 2, 3)} | {"dns": "10.244.2.53"}
NODES = dict.fromkeys(PODS, "n1") | {"dns": "n2"}
CLIENTS = ("10.244.3.1", "10.244.3.2")
CLUSTER: dict[str, Any] = {
    "nodes": [{"name": name} for name in ("n1", "n2", "n3")],
    "pods": [
        *(
            {"namespace": "default", "name": pod, "addresses": [ip], "node": NODES[pod]}
            for pod, ip in PODS.items()
        ),
        *(
            {"namespace": "default", "name": f"client-{number}", "addresses": [ip], "node": "n3"}
            for number, ip in enumerate(CLIENTS)
        ),
    ],
    "services": [
        {"namespace": "default", "name": "shop", "addresses": [SHOP],
         "pods": ["shop-1", "shop-2", "shop-3"]},
        {"namespace": "default", "name": "all", "addresses": ["10.96.0.8"],
         "pods": ["shop-1", "dns"]},
        {"namespace": "default", "name": "dns", "addresses": [DNS], "pods": ["dns"]},
        {"namespace": "default", "name": "empty", "addresses": [EMPTY]},
    ],
}  # fmt: skip


@dataclass(frozen=True)
class Connection:
    """A client's connection to port 80 of a service's address, and the pod that answers it."""

    client: str
    port: int
    service: str = SHOP
    pod: str = "shop-2"

    def seen_by_client(self, **numbers: int) -> dict[str, Any]:
        ends = {"src": self.client, "src_port": self.port, "dst": self.service, "dst_port": 80}
        return ends | {"role": ROLES.index("client"), "segments_received": 9} | numbers

    def seen_by_server(self, **numbers: int) -> dict[str, Any]:
        pod = {"src": PODS[self.pod], "src_port": 8080}
        client = {"dst": self.client, "dst_port": self.port}
        return pod | client | {"role": ROLES.index("server"), "segments_received": 9} | numbers


def records_of(*flows: dict[str, Any]) -> np.ndarray[Any, np.dtype[np.void]]:
    records = np.zeros(len(flows), RECORD)
    for record, flow in zip(records, flows, strict=True):
        for name, value in flow.items():
            record[name] = np.void(to_bytes(value)) if name in ("src", "dst") else value
    return records


class Cluster:
    """An enricher's view of the cluster, second by second."""

    def __init__(self) -> None:
        self.directory = Directory()
        names = msgspec.convert(CLUSTER, Inventory)
        inventory.apply(names, self.directory, ALWAYS, T * SECOND)
        self.connections = Connections(self.directory)

    def header(self, second: int) -> IntervalHeader:
        start = (T + second) * SECOND
        return IntervalHeader("any", "run", second + 1, start, start + SECOND)

    def server_reports(self, second: int, *flows: dict[str, Any]) -> None:
        self.connections.learn(self.header(second), records_of(*flows))

    def row(self, second: int, flow: dict[str, Any]) -> dict[str, Any]:
        """The enriched row of what a client's node reports."""
        header, records = self.header(second), records_of(flow)
        self.connections.learn(header, records)
        resolved = self.connections.resolve(header, records)
        batch, _ = enrich(
            resolved.records, self.directory, (header.start_ns, header.end_ns), "n3",
            learnt=Learnt(resolved.services),
        )  # fmt: skip
        row: dict[str, Any] = enriched.decode(enriched.encode(batch)).to_pylist()[0]
        return row


ONE = Connection(CLIENTS[0], 40_000)


def test_the_pod_that_answers_stands_in_the_place_of_the_service_with_its_node() -> None:
    cluster = Cluster()
    cluster.server_reports(0, ONE.seen_by_server(opens=1))
    row = cluster.row(0, ONE.seen_by_client(opens=1))
    assert (row["dst_kind"], row["dst_pod"], row["dst_node"]) == ("pod", "shop-2", "n1")
    assert (row["dst_namespace"], row["dst_service"]) == ("default", "shop")
    assert (row["dst_ip"], row["dst_port"]) == (PODS["shop-2"], 8080)
    assert (row["src_pod"], row["src_port"]) == ("client-0", 40_000)


def test_a_pod_behind_several_services_is_named_with_the_one_that_was_called() -> None:
    cluster = Cluster()
    for service, name in (("10.96.0.8", "all"), (SHOP, "shop")):
        called = replace(ONE, service=service, pod="shop-1", port=sum(map(ord, service)))
        cluster.server_reports(0, called.seen_by_server())
        assert cluster.row(0, called.seen_by_client())["dst_service"] == name


def test_as_long_as_nobody_has_answered_it_is_the_service() -> None:
    cluster = Cluster()
    row = cluster.row(0, ONE.seen_by_client(segments_received=0, retransmitted_syns=3))
    assert (row["dst_kind"], row["dst_service"], row["dst_ip"]) == ("service", "shop", SHOP)


def test_what_answers_another_service_from_the_same_port_answers_that_one_only() -> None:
    cluster = Cluster()
    other = replace(ONE, service=DNS, pod="dns")
    cluster.server_reports(0, other.seen_by_server())
    assert cluster.row(0, ONE.seen_by_client())["dst_kind"] == "service"
    cluster.server_reports(0, ONE.seen_by_server())
    assert cluster.row(0, ONE.seen_by_client())["dst_pod"] == "shop-2"
    assert cluster.row(0, other.seen_by_client())["dst_pod"] == "dns"


def test_who_answers_stays_known_when_the_servers_node_is_no_longer_heard() -> None:
    cluster = Cluster()
    cluster.server_reports(0, ONE.seen_by_server(opens=1))
    assert cluster.row(200, ONE.seen_by_client())["dst_pod"] == "shop-2"


def test_a_new_connection_from_the_same_port_is_not_what_the_last_one_was() -> None:
    cluster = Cluster()
    cluster.server_reports(0, ONE.seen_by_server(opens=1))
    assert cluster.row(60, ONE.seen_by_client(opens=1))["dst_kind"] == "service"
    assert cluster.row(61, ONE.seen_by_client())["dst_kind"] == "service"
    cluster.server_reports(60, replace(ONE, pod="shop-3").seen_by_server(opens=1))
    assert cluster.row(62, ONE.seen_by_client())["dst_pod"] == "shop-3"


@pytest.mark.parametrize(
    "attempt",
    [
        {"failed_opens": 1, "timed_out_opens": 1, "retransmitted_syns": 3, "segments_received": 0},
        {"failed_opens": 1, "refused_opens": 1, "segments_received": 1},
        {"segments_sent": 1, "segments_received": 0},
    ],
)
def test_an_attempt_that_fails_is_not_one_of_who_answered_the_same_port_before(
    attempt: dict[str, int],
) -> None:
    cluster = Cluster()
    cluster.server_reports(0, ONE.seen_by_server(opens=1))
    assert cluster.row(200, ONE.seen_by_client(**attempt))["dst_kind"] == "service"


def test_a_port_that_is_used_again_after_seconds_waits_for_who_answers_now() -> None:
    cluster = Cluster()
    for second in range(60):
        cluster.server_reports(second, ONE.seen_by_server(opens=int(second == 0)))
    new = ONE.seen_by_client(opens=1)
    assert cluster.connections.resolve(cluster.header(62), records_of(new)).missing
    cluster.server_reports(62, replace(ONE, pod="shop-3").seen_by_server(opens=1))
    assert cluster.row(62, new)["dst_pod"] == "shop-3"


def test_what_is_read_late_is_not_answered_by_who_was_asked_later() -> None:
    cluster = Cluster()
    cluster.server_reports(600, replace(ONE, pod="shop-3").seen_by_server(opens=1))
    assert cluster.row(0, ONE.seen_by_client(opens=1))["dst_kind"] == "service"
    assert cluster.row(1, ONE.seen_by_client())["dst_kind"] == "service"
    cluster.server_reports(0, ONE.seen_by_server(opens=1))
    assert cluster.row(1, ONE.seen_by_client())["dst_pod"] == "shop-2"


async def test_one_wrong_clock_keeps_nobody_waiting_and_hides_nobody() -> None:
    reports, cluster = Reports(), Cluster()
    for node, second in (("a", 0), ("ahead", 3600), ("b", 0)):
        await reports.add(replace(cluster.header(second), node=node))
    began = time.monotonic()
    await reports.complete(cluster.header(3600).end_ns, 10)
    await reports.complete(cluster.header(0).end_ns, 10)
    assert time.monotonic() - began < 5
    waiting = asyncio.create_task(reports.complete(cluster.header(1).end_ns, 10))
    await asyncio.sleep(0)
    await reports.add(replace(cluster.header(1), node="a"))
    assert not waiting.done()
    await reports.add(replace(cluster.header(1), node="b"))
    await waiting


def test_packets_dropped_on_their_way_back_are_the_pods_too() -> None:
    cluster = Cluster()
    cluster.server_reports(0, ONE.seen_by_server())
    back = {"src": SHOP, "src_port": 80, "dst": ONE.client, "dst_port": ONE.port}
    row = cluster.row(0, back | {"drops_queue": 3})
    assert (row["src_pod"], row["src_service"], row["drops_queue"]) == ("shop-2", "shop", 3)


def test_a_pod_that_has_left_its_service_is_still_who_answered_until_another_has_its_address() -> (
    None
):
    cluster = Cluster()
    cluster.server_reports(0, ONE.seen_by_server())
    cluster.directory.backends.put("pod/default/shop-2", (), ())
    cluster.directory.end("pod/default/shop-2", (T + 1) * SECOND)
    row = cluster.row(5, ONE.seen_by_client())
    assert (row["dst_pod"], row["dst_service"], row["dst_condition"]) == ("shop-2", "shop", "gone")
    cluster.directory.backends.put("another", (), [to_bytes(PODS["shop-2"])])
    assert cluster.row(6, ONE.seen_by_client())["dst_kind"] == "service"


def test_only_what_can_still_become_known_is_waited_for() -> None:
    cluster = Cluster()
    waits = {
        "answered": ONE.seen_by_client(),
        "not answered": ONE.seen_by_client(segments_received=0),
        "no pods": replace(ONE, service=EMPTY).seen_by_client(),
    }
    missing = {
        name: cluster.connections.resolve(cluster.header(0), records_of(flow)).missing
        for name, flow in waits.items()
    }
    assert missing == {"answered": True, "not answered": False, "no pods": False}


connections = st.builds(
    Connection,
    st.sampled_from(CLIENTS),
    st.integers(40_000, 40_003),
    st.just(SHOP),
    st.sampled_from(["shop-1", "shop-2", "shop-3"]),
)


@given(st.data(), st.lists(connections, unique_by=lambda each: (each.client, each.port)))
def test_whatever_the_order_no_pod_is_named_that_did_not_answer(
    data: st.DataObject, made: list[Connection]
) -> None:
    cluster = Cluster()
    reports = [(each, second) for each in made for second in range(3)]
    for each, second in data.draw(st.permutations(reports)):
        cluster.server_reports(second, each.seen_by_server(opens=int(second == 0)))
        named = cluster.row(second, each.seen_by_client(opens=int(second == 0)))
        assert named["dst_pod"] == each.pod


@pytest.fixture
async def two_enrichers(nats_server: NatsServer, tmp_path: Path) -> AsyncIterator[None]:
    with contextlib.ExitStack() as running:
        logs = [
            running.enter_context(
                running_enricher(nats_server.url, CLUSTER, tmp_path / f"enricher-{number}.log")
            )
            for number in (1, 2)
        ]
        for log in logs:
            await until_ready(log)
        yield


@pytest.mark.parametrize("first", ["n3", "n1"])
async def test_two_enrichers_name_the_pod_in_every_message_whichever_end_reports_first(
    two_enrichers: None, nats_client: Client, first: str
) -> None:
    jetstream = nats_client.jetstream()
    connections = [Connection(CLIENTS[0], 40_000 + n, pod=f"shop-{n % 3 + 1}") for n in range(60)]
    ends = {
        "n3": [each.seen_by_client(opens=1) for each in connections],
        "n1": [each.seen_by_server(opens=1) for each in connections],
    }
    start = time.time_ns() // SECOND

    async def report(node: str, second: int, *flows: dict[str, Any]) -> None:
        begin = (start + second) * SECOND
        header = IntervalHeader(node, "run", second + 1, begin, begin + SECOND).encode(raw.SCHEMA)
        await jetstream.publish(raw_subject(node), records_of(*flows).tobytes(), headers=header)

    async def rows(messages: int) -> list[dict[str, Any]]:
        async def all_stored() -> bool:
            return (await jetstream.stream_info(FLOWS_ENRICHED)).state.messages == messages

        await eventually(all_stored)
        stored = [await jetstream.get_msg(FLOWS_ENRICHED, n + 1) for n in range(messages)]
        return [row for each in stored for row in enriched.decode(each.data or b"").to_pylist()]

    for node in sorted(ends, key=lambda each: each != first):
        await report(node, 0)
    await rows(2)
    for second in range(1, 13):
        for node in sorted(ends, key=lambda each: each != first):
            await report(node, second, *ends[node][5 * second - 5 : 5 * second])
    named = {row["src_port"]: row["dst_pod"] for row in await rows(26) if row["role"] == "client"}
    assert named == {each.port: each.pod for each in connections}
