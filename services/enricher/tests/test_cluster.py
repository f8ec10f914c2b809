"""What a cluster's objects name, whatever happened on the way there."""

import itertools
import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from prometheus_client import REGISTRY

from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.enriched import Names
from flowverdict_enricher.cluster import Cluster
from flowverdict_enricher.directory import Directory
from flowverdict_enricher.objects import ClusterService, EndpointSlice, Job, Node, Object, Pod

PODS, NODES, SERVICES, JOBS = ("p0", "p1", "p2"), ("n0", "n1"), ("s0", "s1"), ("j0", "j1")
LATE = 1 << 62


def built(kind: type[Object], uid: str, content: dict[str, object], **meta: object) -> Object:
    metadata = {"name": uid, "uid": uid, "creationTimestamp": "2026-01-01T00:00:00Z", **meta}
    return msgspec.convert({"metadata": metadata, **content}, kind, strict=False)


def owned_by(job: str | None) -> list[dict[str, object]]:
    return [{"kind": "Job", "name": job, "uid": job, "controller": True}] if job else []


pods = st.builds(
    lambda uid, node, phase, ready, deleted, hosted: built(
        Pod,
        uid,
        {
            "spec": {"nodeName": node, "hostNetwork": hosted},
            "status": {
                "phase": phase,
                "podIPs": [{"ip": f"10.0.0.{uid[1]}"}],
                "conditions": [{"type": "Ready", "status": ready}],
            },
        },
        deletionTimestamp=deleted,
        # Who made a pod is as old as the pod, and so is its address here.
        ownerReferences=owned_by({"p0": "j0", "p1": "j1"}.get(uid)),
    ),
    st.sampled_from(PODS),
    st.sampled_from(NODES),
    st.sampled_from(("Pending", "Running", "Succeeded")),
    st.sampled_from(("True", "False")),
    st.sampled_from((None, "2026-01-02T00:00:00Z")),
    st.booleans(),
)
nodes = st.builds(
    lambda uid, zone: built(
        Node,
        uid,
        {"status": {"addresses": [{"type": "InternalIP", "address": f"10.1.0.{uid[1]}"}]}},
        labels={"topology.kubernetes.io/zone": zone} if zone else {},
    ),
    st.sampled_from(NODES),
    st.sampled_from(("", "a", "b")),
)
services = st.builds(
    # A cluster address belongs to one service at a time.
    lambda uid, headless: built(
        ClusterService, uid, {"spec": {"clusterIPs": ["None" if headless else f"10.96.0.{uid[1]}"]}}
    ),
    st.sampled_from(SERVICES),
    st.booleans(),
)
slices = st.builds(
    lambda uid, within: built(
        EndpointSlice,
        f"{uid}-slice",
        {
            "endpoints": [
                {"targetRef": {"kind": "Pod", "uid": pod}, "conditions": {"ready": ready}}
                for pod, ready in within.items()
            ]
            or None
        },
        labels={"kubernetes.io/service-name": uid},
    ),
    st.sampled_from(SERVICES),
    st.dictionaries(st.sampled_from(PODS), st.sampled_from((True, False, None))),
)
jobs = st.builds(
    lambda uid: built(
        Job,
        uid,
        {},
        ownerReferences=[{"kind": "CronJob", "name": "nightly", "controller": True}],
    ),
    st.sampled_from(JOBS),
)
# A pod keeps its zone and its CronJob where the node or the Job is gone before it.
lasting = st.tuples(st.just(False), st.one_of(nodes, jobs))
passing = st.tuples(st.booleans(), st.one_of(pods, slices, services))
changes = st.lists(st.one_of(lasting, passing), max_size=30)


def told(objects: list[tuple[bool, Object]]) -> Directory:
    """A directory after `objects` were put, or removed where the first is True."""
    directory = Directory()
    cluster = Cluster(directory)
    for removed, thing in objects:
        if removed:
            cluster.remove(type(thing), thing.metadata.uid)
        else:
            cluster.put(thing)
    return directory


def names(directory: Directory, addresses: list[str]) -> list[Names]:
    return [directory.at(to_bytes(each), LATE, LATE + 1) for each in addresses]


@given(changes)
def test_names_are_those_of_what_is_there_now_and_not_of_the_way_it_came_about(
    history: list[tuple[bool, Object]],
) -> None:
    last = {(type(thing), thing.metadata.uid): (removed, thing) for removed, thing in history}
    left = [(False, thing) for removed, thing in last.values() if not removed]
    left.sort(key=lambda each: type(each[1]).__name__, reverse=True)
    addresses = [f"10.0.0.{pod[1]}" for pod in PODS] + [f"10.1.0.{node[1]}" for node in NODES]
    addresses += [f"10.96.0.{service[1]}" for service in SERVICES]
    assert names(told(history), addresses) == names(told(left), addresses)


@given(changes)
def test_a_fresh_list_ends_what_is_not_on_it(history: list[tuple[bool, Object]]) -> None:
    directory = Directory()
    cluster = Cluster(directory)
    for _, thing in history:
        cluster.put(thing)
    for kind in (Pod, Node, ClusterService, EndpointSlice, Job):
        cluster.keep_only(kind, [])
    assert len(directory) == 0


def condition_of(address: str, *objects: Object) -> str:
    return told([(False, each) for each in objects]).at(to_bytes(address), LATE, LATE + 1).condition


def a_service() -> Object:
    return built(ClusterService, "s0", {"spec": {"clusterIPs": ["10.96.0.1"]}})


def a_slice(uid: str, *ready: bool | None) -> Object:
    endpoints = [{"conditions": {} if each is None else {"ready": each}} for each in ready]
    labels = {"kubernetes.io/service-name": "s0"}
    return built(EndpointSlice, uid, {"endpoints": endpoints}, labels=labels)


def test_a_service_has_no_ready_endpoints_if_no_slice_of_it_has_one() -> None:
    both = a_slice("1", False), a_slice("2")
    assert condition_of("10.96.0.1", a_service(), *both) == "no_ready_endpoints"
    assert condition_of("10.96.0.1", *both, a_service()) == "no_ready_endpoints"
    for third in (True, None):  # one that does not say is ready
        assert condition_of("10.96.0.1", a_service(), *both, a_slice("3", False, third)) == ""


def test_nothing_is_known_about_a_service_without_slices() -> None:
    assert condition_of("10.96.0.1", a_service()) == ""
    only = a_slice("1", False)
    gone = told([(False, a_service()), (False, only), (True, only)])
    assert gone.at(to_bytes("10.96.0.1"), LATE, LATE + 1).condition == ""


def test_pods_and_nodes_say_whether_they_are_ready_or_on_their_way_out() -> None:
    def pod(ready: str, **meta: object) -> Object:
        status = {
            "phase": "Running",
            "podIPs": [{"ip": "10.0.0.1"}],
            "conditions": [{"type": "Ready", "status": ready}],
        }
        return built(Pod, "p", {"status": status}, **meta)

    assert condition_of("10.0.0.1", pod("True")) == ""
    assert condition_of("10.0.0.1", pod("False")) == "not_ready"
    deleted = pod("False", deletionTimestamp="2026-01-02T00:00:00Z")
    assert condition_of("10.0.0.1", deleted) == "terminating"
    addresses = [{"type": "InternalIP", "address": "10.1.0.1"}]
    lost = {"addresses": addresses, "conditions": [{"type": "Ready", "status": "Unknown"}]}
    assert condition_of("10.1.0.1", built(Node, "n", {"status": lost})) == "not_ready"


def test_an_address_for_pods_that_nobody_has_was_a_deleted_pods_unless_it_is_in_use() -> None:
    spec: dict[str, object] = {"spec": {"podCIDRs": ["10.246.2.0/24", "fd00:2::/64", "nonsense"]}}
    directory = told([(False, built(Node, "n2", spec))])
    for text in ("10.246.2.7", "fd00:2::7"):
        address = to_bytes(text)
        found = directory.at(address, LATE, LATE + 1)
        assert (found.kind, found.node, found.condition) == ("unknown", "", "gone")
        assert directory.at(address, LATE, LATE + 1, "n2").condition == ""
    for text in ("10.246.3.7", "192.168.1.1", "fd00:3::7"):
        assert directory.at(to_bytes(text), LATE, LATE + 1).condition == ""


def test_the_gateway_of_a_nodes_pods_is_the_node_unless_a_pod_has_its_address() -> None:
    node = built(Node, "n2", {"spec": {"podCIDRs": ["10.246.2.0/24", "fd00:2::/64"]}})
    for text in ("10.246.2.1", "fd00:2::1"):
        (found,) = names(told([(False, node)]), [text])
        assert (found.kind, found.node) == ("node", "n2")
        status = {"podIPs": [{"ip": text}], "phase": "Running", "startTime": "2026-01-02T00:00:00Z"}
        pod = built(Pod, "p9", {"spec": {"nodeName": "n2"}, "status": status})
        for order in ([node, pod, node], [pod, node]):
            (found,) = names(told([(False, each) for each in order]), [text])
            assert (found.kind, found.pod) == ("pod", "p9")


def test_the_addresses_of_tunnels_and_routers_are_the_nodes() -> None:
    annotations = {
        "projectcalico.org/IPv4VXLANTunnelAddr": "10.244.1.64",
        "network.cilium.io/ipv4-cilium-host": "10.244.1.33",
    }
    directory = told([(False, built(Node, "n1", {}, annotations=annotations))])
    for found in names(directory, ["10.244.1.64", "10.244.1.33"]):
        assert (found.kind, found.node) == ("node", "n1")


def multus(uid: str, *ips: str) -> Object:
    status = [{"name": "cbr0", "ips": ["10.9.9.9"], "default": True}, {"name": "x", "ips": ips}]
    annotations = {"k8s.v1.cni.cncf.io/network-status": json.dumps(status)}
    return built(
        Pod,
        uid,
        {"status": {"phase": "Running", "podIPs": [{"ip": f"10.0.0.{uid[1]}"}]}},
        annotations=annotations,
    )


def test_a_pods_further_networks_are_its_own_unless_somebody_else_has_the_address() -> None:
    victim = built(Pod, "p2", {"status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.2"}]}})
    claims = multus("p1", "192.168.77.5", "10.0.0.2", "10.96.0.1", "10.1.0.0", "nonsense")
    node = built(Node, "n0", {"status": {"addresses": [{"address": "10.1.0.0"}]}})
    directory = told([(False, each) for each in (victim, node, a_service(), claims, claims)])
    addresses = ["192.168.77.5", "10.0.0.2", "10.96.0.1", "10.1.0.0", "10.9.9.9"]
    found = names(directory, addresses)
    assert [each.pod for each in found] == ["p1", "p2", "", "", ""]
    assert [each.kind for each in found] == ["pod", "pod", "service", "node", "unknown"]
    broken = built(Pod, "p3", {}, annotations={"k8s.v1.cni.cncf.io/network-status": "{"})
    assert len(told([(False, broken)])) == 1


def outside(uid: str, external: list[str], balanced: list[str], own: str) -> Object:
    status = {"loadBalancer": {"ingress": [{"ip": each} for each in balanced]}}
    spec = {"clusterIPs": [own], "externalIPs": external}
    return built(ClusterService, uid, {"spec": spec, "status": status})


def test_a_services_outside_addresses_are_its_own_unless_somebody_else_has_them() -> None:
    node = built(Node, "n0", {"status": {"addresses": [{"address": "10.1.0.0"}]}})
    hostile = outside("s0", ["10.50.0.7", "10.96.0.1"], ["10.1.0.0"], "10.96.0.0")
    other = outside("s1", ["10.50.0.7"], ["10.50.0.8"], "10.96.0.1")
    for order in itertools.permutations((hostile, other, node)):
        directory = told([(False, each) for each in order])
        found = names(directory, ["10.50.0.7", "10.50.0.8", "10.96.0.1", "10.1.0.0"])
        assert [each.service for each in found] == ["s0", "s1", "s1", ""]
        assert found[3].kind == "node"
        gone = told([*((False, each) for each in order), (True, hostile)])
        (found_again,) = names(gone, ["10.50.0.7"])
        assert found_again.service == "s1"


def test_a_service_that_was_made_again_under_its_name_may_go_before_the_first() -> None:
    one, again = (
        built(ClusterService, uid, {"spec": {"clusterIPs": ["10.96.0.1"]}}, name="s0")
        for uid in ("first", "second")
    )
    history = [(False, one), (False, again), (True, again), (True, one)]
    assert len(told(history)) == 0


def test_an_address_of_two_pods_is_likely_that_of_the_node_which_uses_it() -> None:
    twins = [
        built(
            Pod,
            uid,
            {
                "spec": {"nodeName": node},
                "status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.8"}], "startTime": since},
            },
        )
        for uid, node, since in (
            ("p0", "n0", "2026-01-01T00:00:00Z"),
            ("p1", "n1", "2026-01-01T01:00:00Z"),
        )
    ]
    address = to_bytes("10.0.0.8")
    for order in (twins, twins[::-1]):
        directory = told([(False, each) for each in order])
        for node, pod in (("n0", "p0"), ("n1", "p1")):
            found = directory.at(address, LATE, LATE + 1, node)
            assert (found.pod, found.name_confidence, found.condition) == (pod, "likely", "")
        assert directory.at(address, LATE, LATE + 1).name_confidence == "likely"
    one_left = told([*((False, each) for each in twins), (True, twins[1])])
    assert one_left.at(address, LATE, LATE + 1).pod == "p0"


def entered(service: str, *addresses: str) -> Object:
    """A slice that somebody wrote by hand, or the API server for itself."""
    labels = {"kubernetes.io/service-name": service}
    endpoints = [{"addresses": [each]} for each in addresses]
    return built(EndpointSlice, f"{service}-entered", {"endpoints": endpoints}, labels=labels)


@given(
    st.permutations([
        built(ClusterService, "s0", {"spec": {"clusterIPs": ["10.96.0.0"]}}),
        built(ClusterService, "s1", {"spec": {"clusterIPs": ["10.96.0.1"]}}),
        entered("s0", "10.9.0.1", "10.1.0.0", "10.0.0.0"),
        entered("s1", "10.9.0.1", "10.9.0.2"),
        built(Node, "n0", {"status": {"addresses": [{"address": "10.1.0.0"}]}}),
        built(Pod, "p0", {"status": {"phase": "Running", "podIPs": [{"ip": "10.0.0.0"}]}}),
    ])
)  # fmt: skip
def test_an_address_that_somebody_entered_is_the_services_unless_a_pod_or_a_node_has_it(
    order: list[Object],
) -> None:
    directory = told([(False, each) for each in order])
    first, second, node, pod = names(directory, ["10.9.0.1", "10.9.0.2", "10.1.0.0", "10.0.0.0"])
    assert (first.kind, first.service) == ("service", "s0")
    assert (second.kind, second.service) == ("service", "s1")
    assert (node.kind, node.node) == ("node", "n0")
    assert (pod.kind, pod.pod) == ("pod", "p0")


def test_an_address_that_is_no_longer_entered_is_nobodys() -> None:
    service, slice_ = a_service(), entered("s0", "10.9.0.1")
    directory = told([(False, service), (False, slice_), (True, slice_)])
    (found,) = names(directory, ["10.9.0.1"])
    assert found.kind == "unknown"
    (kept,) = names(told([(False, service), (False, slice_)]), ["10.9.0.1"])
    assert (kept.kind, kept.condition) == ("service", "")


def test_objects_with_only_the_older_fields_have_their_addresses_too() -> None:
    directory = told(
        [
            (False, built(Node, "N1", {"spec": {"podCIDR": "10.244.7.0/24"}})),
            (False, built(Pod, "P1", {"status": {"podIP": "10.244.7.9"}})),
            (False, built(ClusterService, "S1", {"spec": {"clusterIP": "10.96.0.9"}})),
        ]
    )
    found = names(directory, ["10.244.7.0", "10.244.7.1", "10.244.7.9", "10.96.0.9"])
    assert [each.kind for each in found] == ["node", "node", "pod", "service"]


def test_the_older_annotation_of_multus_and_a_network_length_are_read() -> None:
    status = '[{"name": "n", "ips": ["192.168.7.3/24"]}]'
    annotations = {"k8s.v1.cni.cncf.io/networks-status": status}
    pod = built(Pod, "P1", {"status": {"podIPs": [{"ip": "10.0.0.1"}]}}, annotations=annotations)
    assert names(told([(False, pod)]), ["192.168.7.3"])[0].pod == "P1"


@pytest.mark.parametrize("kind", [None, "VirtualMachine", "Node", "ExternalEndpoint"])
def test_an_endpoint_that_is_no_pod_is_the_services(kind: str | None) -> None:
    target = {"targetRef": {"kind": kind, "uid": "x"}} if kind else {}
    piece = built(
        EndpointSlice,
        "slice",
        {"endpoints": [{"addresses": ["172.30.0.4"], **target}]},
        labels={"kubernetes.io/service-name": "S1"},
    )
    service = built(ClusterService, "S1", {"spec": {"clusterIPs": ["10.96.0.9"]}})
    (found,) = names(told([(False, service), (False, piece)]), ["172.30.0.4"])
    assert (found.kind, found.service) == ("service", "S1")


def test_the_address_that_was_asked_for_is_the_load_balancers() -> None:
    spec = {"clusterIPs": ["10.96.0.9"], "loadBalancerIP": "203.0.113.7"}
    (found,) = names(told([(False, built(ClusterService, "S1", {"spec": spec}))]), ["203.0.113.7"])
    assert found.service == "S1"


def test_a_node_is_in_the_metrics_until_the_last_of_its_name_is_gone() -> None:
    def shown() -> set[str]:
        return {
            sample.labels["node"]
            for metric in REGISTRY.collect()
            if metric.name == "flowverdict_cluster_node"
            for sample in metric.samples
        }

    cluster = Cluster(Directory())
    first = built(Node, "gone-and-back", {})
    again = built(Node, "another", {}, name="gone-and-back")
    cluster.put(first)
    cluster.put(again)
    cluster.remove(Node, "gone-and-back")
    assert "gone-and-back" in shown()
    cluster.remove(Node, "another")
    assert "gone-and-back" not in shown()
