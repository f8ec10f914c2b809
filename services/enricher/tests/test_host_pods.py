"""Pods on their node's network, which share its address."""

from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import pytest

from conftest import header
from flowverdict_contracts import enriched
from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.raw import ROLES
from flowverdict_contracts.raw_records import RECORD, RawMessage
from flowverdict_enricher import inventory
from flowverdict_enricher.cluster import Cluster
from flowverdict_enricher.connections import Connections
from flowverdict_enricher.directory import ALWAYS, Directory
from flowverdict_enricher.enrich import Learnt, enrich
from flowverdict_enricher.inventory import Inventory
from flowverdict_enricher.objects import EndpointSlice, Object, Pod, Service
from flowverdict_flows.endpoint import Sightings

SECOND = 1_000_000_000
T = 1_800_000_000
API, PROXY, SSHD = "uid-of-api", "uid-of-proxy", ""
NODE, SECOND_NODE, CLIENT, FRONT, WEB = (
    "10.0.0.1", "10.0.0.2", "10.244.3.1", "10.96.0.7", "10.96.0.8",
)  # fmt: skip
CLUSTER: dict[str, Any] = {
    "nodes": [
        {"name": "n1", "addresses": [NODE]},
        {"name": "n2", "addresses": [SECOND_NODE]},
        {"name": "n3"},
    ],
    "pods": [
        {"namespace": "system", "name": "api", "uid": API, "node": "n1", "workload": "apis"},
        {"namespace": "system", "name": "proxy", "uid": PROXY, "node": "n1"},
        {"namespace": "default", "name": "client", "addresses": [CLIENT], "node": "n3"},
    ],
    "services": [
        {"namespace": "system", "name": "front", "addresses": [FRONT], "pods": ["proxy"]},
        {"namespace": "default", "name": "web", "addresses": [WEB], "pods": ["client"]},
    ],
}
SERVES, CALLS = ROLES.index("server"), ROLES.index("client")
OWNERS = {71: API, 72: PROXY, 73: SSHD}


def flow(src: str, src_port: int, dst: str, dst_port: int, **more: int) -> dict[str, Any]:
    ends = {"src": src, "src_port": src_port, "dst": dst, "dst_port": dst_port}
    return ends | {"segments_received": 9, "segments_sent": 9} | more


def served(port: int, owner: int, **more: int) -> dict[str, Any]:
    """What the node reports of the client's connection from port 40,000 to one of its own."""
    return flow(NODE, port, CLIENT, 40_000, role=SERVES, owner=owner, **more)


def called(dst: str, port: int, **more: int) -> dict[str, Any]:
    """The client's end of it."""
    return flow(CLIENT, 40_000, dst, port, role=CALLS, **more)


class Enricher:
    """What an enricher has learnt, second by second."""

    def __init__(self) -> None:
        self.directory = Directory()
        inventory.apply(msgspec.convert(CLUSTER, Inventory), self.directory, ALWAYS, T * SECOND, ())
        self.connections = Connections(self.directory)
        self.missing = False

    def names(
        self, second: int, node: str, *flows: dict[str, Any], owners: dict[int, str] | None = None
    ) -> list[dict[str, Any]]:
        """The enriched rows of what a node reports."""
        records = np.zeros(len(flows), RECORD)
        for record, each in zip(records, flows, strict=True):
            for name, value in each.items():
                record[name] = np.void(to_bytes(value)) if name in ("src", "dst") else value
        interval = (T + second - 1) * SECOND, (T + second) * SECOND
        about = replace(header(), node=node, start_ns=interval[0], end_ns=interval[1])
        known = OWNERS if owners is None else owners
        raw = RawMessage(about, records, {}, {k: v for k, v in known.items() if v}, {})
        self.directory.host_pods.learn(raw)
        self.connections.learn(about, records)
        resolved = self.connections.resolve(about, records)
        hosted = self.directory.host_pods.find(about, resolved.records, raw.owners)
        self.missing = hosted.missing or resolved.missing
        self.batch, _ = enrich(
            resolved.records, self.directory, interval, node,
            learnt=Learnt(resolved.services, hosted.names),
        )  # fmt: skip
        rows: list[dict[str, Any]] = enriched.completed(self.batch).to_pylist()
        return rows


def named(row: dict[str, Any], end: str) -> tuple[str, str, str]:
    return row[f"{end}_kind"], row[f"{end}_pod"], row[f"{end}_node"]


def test_each_socket_of_a_node_has_the_pod_that_made_it_and_the_rest_is_the_nodes() -> None:
    enricher = Enricher()
    rows = enricher.names(1, "n1", served(6443, 71), served(80, 72), served(22, 73), served(23, 0))
    assert [named(each, "src") for each in rows] == [
        ("pod", "api", "n1"),
        ("pod", "proxy", "n1"),
        ("node", "", "n1"),
        ("node", "", "n1"),
    ]
    assert rows[0]["src_workload"] == "apis"
    assert [each["src_ip"] for each in rows] == [NODE] * 4


def test_readers_tell_the_owners_of_one_address_apart() -> None:
    enricher = Enricher()
    enricher.names(1, "n1", served(6443, 71), served(80, 72), served(22, 73))
    for batch in (enricher.batch, enriched.piece_of(enricher.batch, 0, 3)):
        read = enriched.decode(enriched.encode(batch))
        found = [str(each.endpoint) for each in Sightings().of(read, "src") if each]
        assert sorted(found) == ["n1", "system/api", "system/proxy"]


def test_the_other_end_of_the_connection_has_the_same_pod() -> None:
    enricher = Enricher()
    enricher.names(1, "n1", served(6443, 71), served(22, 73))
    api, ssh = enricher.names(1, "n3", called(NODE, 6443), called(NODE, 22))
    assert named(api, "dst") == ("pod", "api", "n1")
    assert named(ssh, "dst") == ("node", "", "n1")
    assert ssh["dst_candidates"] == "system/api,system/proxy"


def test_what_such_a_pod_calls_is_called_by_it_at_both_ends() -> None:
    enricher = Enricher()
    (own,) = enricher.names(1, "n1", flow(NODE, 50_000, CLIENT, 80, role=CALLS, owner=72, opens=1))
    (other,) = enricher.names(1, "n3", flow(CLIENT, 80, NODE, 50_000, role=SERVES, opens=1))
    assert named(own, "src") == named(other, "dst") == ("pod", "proxy", "n1")


def test_a_port_that_another_program_uses_later_is_not_the_pods() -> None:
    enricher = Enricher()
    enricher.names(1, "n1", flow(NODE, 50_000, CLIENT, 80, role=CALLS, owner=72, opens=1))
    (goes_on,) = enricher.names(60, "n3", flow(CLIENT, 80, NODE, 50_000, role=SERVES))
    (new,) = enricher.names(60, "n3", flow(CLIENT, 80, NODE, 50_000, role=SERVES, opens=1))
    assert named(goes_on, "dst") == ("pod", "proxy", "n1")
    assert named(new, "dst") == ("node", "", "n1")
    assert enricher.missing, "the node may tell more"


def test_a_program_of_the_node_never_has_the_name_of_a_pod_that_had_its_port() -> None:
    enricher = Enricher()

    def calls(owner: int, **more: int) -> dict[str, Any]:
        return flow(NODE, 50_000, CLIENT, 8080, role=CALLS, owner=owner, **more)

    answers = flow(CLIENT, 8080, NODE, 50_000, role=SERVES)
    (row,) = enricher.names(1, "n1", calls(72, opens=1))
    assert named(row, "src") == ("pod", "proxy", "n1")
    for second, more in ((61, {"opens": 1}), (62, {}), (63, {})):
        (row,) = enricher.names(second, "n1", calls(73, **more))
        assert named(row, "src") == ("node", "", "n1")
        (row,) = enricher.names(second, "n3", answers)
        assert named(row, "dst") == ("node", "", "n1")


def test_two_pods_may_call_from_one_port_of_their_node() -> None:
    enricher, other = Enricher(), "10.244.3.2"
    own = [
        flow(NODE, 50_000, CLIENT, 8080, role=CALLS, owner=72),
        flow(NODE, 50_000, other, 9090, role=CALLS, owner=71),
    ]
    theirs = [
        flow(CLIENT, 8080, NODE, 50_000, role=SERVES),
        flow(other, 9090, NODE, 50_000, role=SERVES),
    ]
    for second in (1, 2):
        assert [each["src_pod"] for each in enricher.names(second, "n1", *own)] == ["proxy", "api"]
        rows = enricher.names(second, "n3", *theirs)
        assert [each["dst_pod"] for each in rows] == ["proxy", "api"]


def test_a_server_keeps_its_name_however_long_its_node_is_silent(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = 1000.0
    monkeypatch.setattr("flowverdict_enricher.recent.time.monotonic", lambda: now)
    enricher = Enricher()
    enricher.names(1, "n1", served(6443, 71))
    for second in range(10, 3600, 10):
        now += 10
        (row,) = enricher.names(second, "n3", called(NODE, 6443))
        assert named(row, "dst") == ("pod", "api", "n1")


def test_a_server_that_is_no_longer_heard_keeps_its_name() -> None:
    enricher = Enricher()
    enricher.names(1, "n1", served(6443, 71, opens=1))
    (row,) = enricher.names(60, "n3", called(NODE, 6443, failed_opens=1))
    assert named(row, "dst") == ("pod", "api", "n1")


def test_a_pod_behind_a_service_answers_in_its_place_though_it_has_no_address() -> None:
    enricher = Enricher()
    enricher.names(1, "n1", served(8080, 72, opens=1))
    (row,) = enricher.names(1, "n3", called(FRONT, 80, opens=1))
    assert named(row, "dst") == ("pod", "proxy", "n1")
    assert (row["dst_ip"], row["dst_port"], row["dst_service"]) == (NODE, 8080, "front")


def test_what_answers_for_an_address_entered_for_a_service_is_named_with_its_node() -> None:
    enricher = Enricher()
    enricher.directory.backends.enter("slice", ("default", "web"), frozenset({to_bytes(NODE)}))
    enricher.names(1, "n1", served(6443, 71, opens=1))
    (row,) = enricher.names(1, "n3", called(WEB, 443, opens=1))
    assert named(row, "dst") == ("pod", "api", "n1")
    assert row["dst_service"] == "", "the service is in another namespace"
    enricher.directory.backends.enter("slice", ("default", "web"), frozenset())
    (row,) = enricher.names(60, "n3", called(WEB, 443, opens=1))
    assert row["dst_kind"] == "service"


def test_without_control_groups_a_node_is_named_with_its_candidates() -> None:
    enricher = Enricher()
    (own,) = enricher.names(1, "n1", served(6443, 0))
    (row,) = enricher.names(1, "n3", called(NODE, 6443, opens=1))
    for each in (named(own, "src"), named(row, "dst")):
        assert each == ("node", "", "n1")
    assert row["dst_candidates"] == "system/api,system/proxy"
    assert not enricher.missing, "nobody will tell more"


@pytest.mark.parametrize("owners", [{71: "uid-of-nobody"}, {}])
def test_a_control_group_of_no_known_pod_names_nobody(owners: dict[int, str]) -> None:
    (row,) = Enricher().names(1, "n1", served(6443, 71), owners=owners)
    assert named(row, "src") == ("node", "", "n1")


def test_a_pod_that_has_an_address_is_what_its_address_says() -> None:
    (row,) = Enricher().names(1, "n3", flow(CLIENT, 80, NODE, 50_000, owner=71))
    assert named(row, "src") == ("pod", "client", "n3")


def test_connections_over_loopback_teach_nothing() -> None:
    enricher = Enricher()
    enricher.names(1, "n1", flow("127.0.0.1", 80, "127.0.0.1", 50_000, role=SERVES, owner=71))
    (row,) = enricher.names(1, "n3", flow("127.0.0.1", 50_000, "127.0.0.1", 80, role=CALLS))
    assert row["dst_pod"] == ""


def test_a_client_whose_ports_are_folded_is_told_by_its_own_end_only() -> None:
    enricher = Enricher()
    (own,) = enricher.names(1, "n1", flow(NODE, 0, CLIENT, 80, role=CALLS, owner=72))
    (other,) = enricher.names(1, "n3", flow(CLIENT, 80, NODE, 0, role=SERVES))
    assert named(own, "src") == ("pod", "proxy", "n1")
    assert named(other, "dst") == ("node", "", "n1")


def a_pod(*, annotations: dict[str, str] | None = None, phase: str = "Running") -> Object:
    content = {
        "metadata": {"name": "etcd-n1", "namespace": "kube-system", "uid": "mirror",
                     "annotations": annotations or {}},
        "spec": {"nodeName": "n1", "hostNetwork": True},
        "status": {"phase": phase, "podIPs": [{"ip": NODE}]},
    }  # fmt: skip
    return msgspec.convert(content, Pod)


@pytest.mark.parametrize(
    ("annotations", "uid"),
    [({}, "mirror"), ({"kubernetes.io/config.hash": "hash-of-its-file"}, "hash-of-its-file")],
)
def test_a_static_pods_control_group_has_the_hash_of_its_file(
    annotations: dict[str, str], uid: str
) -> None:
    enricher = Enricher()
    cluster = Cluster(enricher.directory)
    cluster.put(a_pod(annotations=annotations))
    (row,) = enricher.names(1, "n1", served(2379, 71), owners={71: uid})
    assert named(row, "src") == ("pod", "etcd-n1", "n1")
    cluster.put(a_pod(annotations=annotations, phase="Failed"))
    (row,) = enricher.names(1, "n1", served(2379, 71), owners={71: uid})
    assert named(row, "src") == ("node", "", "n1"), "it has ended"


def test_a_service_in_kubernetes_is_answered_by_a_pod_on_a_nodes_network() -> None:
    enricher = Enricher()
    cluster = Cluster(enricher.directory)
    cluster.put(a_pod())
    web: Service = ("kube-system", "web")
    piece = {
        "metadata": {"name": "web", "namespace": web[0], "uid": "slice",
                     "labels": {"kubernetes.io/service-name": web[1]}},
        "endpoints": [{"addresses": [NODE], "targetRef": {"kind": "Pod", "uid": "mirror"}}],
    }  # fmt: skip
    cluster.put(msgspec.convert(piece, EndpointSlice))
    enricher.names(1, "n1", served(2379, 71), owners={71: "mirror"})
    assert enricher.directory.host_pods.services_at(
        to_bytes(NODE) + (2379).to_bytes(2, "little")
    ) == {web}


def test_a_static_pod_that_the_api_server_knows_anew_is_not_gone() -> None:
    def mirror(uid: str) -> Pod:
        hash_of_file = {"kubernetes.io/config.hash": "ab" * 16}
        meta = {"name": "api-n1", "namespace": "system", "uid": uid, "annotations": hash_of_file}
        spec = {"nodeName": "n1", "hostNetwork": True}
        return msgspec.convert({"metadata": meta, "spec": spec, "status": {"podIP": NODE}}, Pod)

    directory = Directory()
    cluster = Cluster(directory)
    for uid in ("first", "second"):
        cluster.put(mirror(uid))
    cluster.keep_only(Pod, ["second"])
    raw = RawMessage(header(), np.zeros(1, RECORD), {}, {7: "ab" * 16}, {})
    raw.records["src"], raw.records["owner"] = np.void(to_bytes(NODE)), 7
    directory.host_pods.learn(raw)
    (names,) = directory.host_pods.find(header(), raw.records, raw.owners).names.values()
    assert (names.pod, names.condition) == ("api-n1", "")
    cluster.keep_only(Pod, [])
    (names,) = directory.host_pods.find(
        replace(header(), start_ns=0, end_ns=1), raw.records, raw.owners
    ).names.values()
    assert names.condition == "gone"
