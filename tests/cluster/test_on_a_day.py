"""A day in the cluster: what happens, and what Flowverdict must say about it.

They take long: `script/cluster test --day` runs them.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import pytest

from conftest import eventually
from flowverdict_lab.kubernetes.cluster import Cluster
from flowverdict_lab.kubernetes.control_plane import start_api_server
from tests.cluster.counting import Retransmissions, published
from tests.cluster.installation import NAMESPACE, Incident, Installation, in_network

CALL = """
import socket, sys, time
while True:
    try:
        with socket.create_connection((sys.argv[1], int(sys.argv[2])), 1) as connection:
            connection.sendall(b"x" * 10_000)
    except OSError:
        pass
    time.sleep(0.2)
"""
SERVE = """
import socket, sys
server = socket.create_server((sys.argv[1], 9000))
while True:
    with server.accept()[0] as connection:
        while connection.recv(65536):
            pass
"""
Fault = Callable[[], contextlib.AbstractContextManager[None]]


async def incidents(
    installation: Installation, fault: Fault, seconds: float = 45, settle: float = 45
) -> list[Incident]:
    """Those of the time in which something happens, and after it until all are resolved."""
    await quiet(installation)
    since = time.time()
    with fault():
        await asyncio.sleep(seconds)
    await asyncio.sleep(settle)
    await quiet(installation)
    found = await installation.incidents(since)
    for verdict in (each for incident in found for each in incident.verdicts):
        print(verdict.window.end, verdict.incident_id[:4], verdict.basis, verdict.status,
              f"{verdict.flows.failing} fail:", verdict.summary)  # fmt: skip
    return found


async def quiet(installation: Installation) -> None:
    """Wait until no incident is open and no verdict was published for 15 seconds."""

    async def nothing_open() -> bool:
        found = await installation.incidents(time.time() - 60)
        is_over = all(each.verdicts[-1].status == "resolved" for each in found)
        return is_over and not await installation.incidents(time.time() - 15)

    await eventually(nothing_open, 240)


def blamed(found: list[Incident]) -> list[str]:
    return sorted(each.blamed for each in found)


@contextlib.contextmanager
def calling(process: int, address: str, port: int) -> Iterator[None]:
    """From the network of a process, connections to an address are tried, whether it answers."""
    inside = ["nsenter", f"--net=/proc/{process}/ns/net", "--", sys.executable, "-c"]
    caller = subprocess.Popen([*inside, CALL, address, str(port)])
    try:
        yield
    finally:
        caller.kill()
        caller.wait()


@contextlib.contextmanager
def serving(process: int, address: str) -> Iterator[None]:
    """In the network of a node's first process, a server listens on port 9000 of a new address."""
    in_network(process, "ip", "address", "add", f"{address}/24", "dev", "eth0")
    inside = ["nsenter", f"--net=/proc/{process}/ns/net", "--", sys.executable, "-c"]
    server = subprocess.Popen([*inside, SERVE, address])
    try:
        yield
    finally:
        server.kill()
        server.wait()
        in_network(process, "ip", "address", "delete", f"{address}/24", "dev", "eth0")


@pytest.mark.day
async def test_a_node_that_is_cut_off_is_one_incident(installation: Installation) -> None:
    found = await incidents(installation, lambda: installation.cut_off("n2"))
    assert blamed(found) == ["node n2"], [str(each) for each in found]
    assert "its collector has been silent since" in found[0].verdicts[0].summary


@pytest.mark.day
async def test_a_node_that_is_cut_off_with_the_pipeline_on_it_is_one_incident(
    installation: Installation,
) -> None:
    found = await incidents(installation, lambda: installation.cut_off("n1"))
    assert blamed(found) == ["node n1"], [str(each) for each in found]


@pytest.mark.day
async def test_a_rollout_is_no_incident(installation: Installation) -> None:
    @contextlib.contextmanager
    def rollout() -> Iterator[None]:
        installation.kubectl("-n", "shop", "rollout", "restart", "deployment")
        yield

    assert blamed(await incidents(installation, rollout)) == []


@pytest.mark.day
async def test_scaling_to_one_and_back_and_a_forced_deletion_are_no_incident(
    installation: Installation,
) -> None:
    @contextlib.contextmanager
    def scaled_and_deleted() -> Iterator[None]:
        installation.kubectl("-n", "shop", "scale", "deployment/api", "--replicas=1")
        time.sleep(10)
        installation.kubectl("-n", "shop", "scale", "deployment/api", "--replicas=4")
        pod = f"pod/{installation.pods('shop', 'app=front')[0]['metadata']['name']}"
        installation.kubectl("-n", "shop", "delete", pod, "--force", "--grace-period=0")
        yield

    assert blamed(await incidents(installation, scaled_and_deleted)) == []


@pytest.mark.day
async def test_a_deleted_pod_that_others_still_call_is_no_incident(
    installation: Installation,
) -> None:
    deleted = installation.pods("shop", "app=api")[0]
    address = deleted["status"]["podIP"]

    @contextlib.contextmanager
    def deleted_and_called() -> Iterator[None]:
        name = f"pod/{deleted['metadata']['name']}"
        installation.kubectl("-n", "shop", "delete", name, "--wait=false")
        with contextlib.ExitStack() as callers:
            for caller in installation.pods("shop", "app=front"):
                process = installation.process_in(caller)
                callers.enter_context(calling(process, address, 8080))
            yield

    assert blamed(await incidents(installation, deleted_and_called)) == []


@pytest.mark.day
async def test_a_second_cluster_on_the_same_kernel_is_not_in_the_counts(
    installation: Installation,
) -> None:
    first = installation.machines
    second = Cluster(f"{first.name}-2")
    shared = "10.202.0.77"  # each has it, on its own first node
    try:
        second.up(first.programs, 1, print)
        with serving(second.node("n1").pid, "10.202.0.78"), serving(first.node("n1").pid, shared):
            with (
                calling(second.control_plane.pid, "10.202.0.78", 9000),
                calling(first.control_plane.pid, shared, 9000),
            ):
                await eventually(lambda: shared in installation.page("exporter", 9191), 60)
            assert "10.202.0.78" not in installation.page("exporter", 9191)
    finally:
        second.down()


@pytest.mark.day
@pytest.mark.parametrize("ways", [("to",), ("from",), ("to", "from")])
async def test_one_broken_backend_of_a_service_is_that_pod_alone(
    installation: Installation, ways: tuple[str, ...]
) -> None:
    pod = installation.pods("shop", "app=api")[0]
    found = await incidents(installation, lambda: installation.pod_loss(pod, 30, *ways))
    assert blamed(found) == [f"pod shop/{pod['metadata']['name']}"]


@pytest.mark.day
@pytest.mark.timeout(900)
async def test_one_broken_backend_is_at_most_one_page(installation: Installation) -> None:
    """What Alertmanager would send to people, for as long as it takes every rule to fire."""
    await quiet(installation)
    pod = installation.pods("shop", "app=api")[0]
    before = set(installation.pages())
    seen: set[tuple[str, str]] = set()
    with installation.pod_loss(pod, 30, "to", "from"):
        deadline = time.monotonic() + 300
        while time.monotonic() < deadline:
            seen |= set(installation.pages()) - before
            await asyncio.sleep(5)
    print(seen)
    assert [name for name, _ in seen] == ["FlowverdictVerdict"]


@pytest.mark.day
async def test_a_service_without_ready_endpoints_is_a_warning_about_that(
    installation: Installation,
) -> None:
    def use(image: str) -> None:
        template = {"spec": {"containers": [{"name": "pod", "image": image}]}}
        strategy = {"type": "Recreate", "rollingUpdate": None}
        patch = json.dumps({"spec": {"strategy": strategy, "template": template}})
        installation.kubectl("-n", "shop", "patch", "deployment", "db", "-p", patch)

    @contextlib.contextmanager
    def image_is_missing() -> Iterator[None]:
        use("ghcr.io/flowverdict/nowhere:1")
        yield
        use("ghcr.io/flowverdict/experiment:0.1.0")

    (found,) = await incidents(installation, image_is_missing)
    assert found.blamed == "service shop/db"
    assert {each.severity for each in found.verdicts} == {"warning"}
    assert "it has no ready endpoint" in found.verdicts[0].summary


@contextlib.contextmanager
def admitting(installation: Installation, to: str, *callers: str) -> Iterator[None]:
    """While a network policy lets only these workloads of the shop connect to another one."""
    policy = {
        "apiVersion": "networking.k8s.io/v1",
        "kind": "NetworkPolicy",
        "metadata": {"name": "admitting", "namespace": "shop"},
        "spec": {
            "podSelector": {"matchLabels": {"app": to}},
            "policyTypes": ["Ingress"],
            "ingress": [
                {"from": [{"podSelector": {"matchLabels": {"app": each}}}]} for each in callers
            ],
        },
    }
    installation.kubectl("apply", "-f", "-", text=json.dumps(policy))
    yield
    installation.kubectl("-n", "shop", "delete", "networkpolicy", "admitting")


@pytest.mark.day
async def test_a_policy_that_shuts_a_service_is_that_service(installation: Installation) -> None:
    (found,) = await incidents(installation, lambda: admitting(installation, "db"))
    assert found.blamed == "service shop/db"
    assert any("connection attempts time out" in each.summary for each in found.verdicts)


@pytest.mark.day
async def test_a_policy_that_denies_one_of_two_callers_is_the_link_between_the_workloads(
    installation: Installation,
) -> None:
    (found,) = await incidents(installation, lambda: admitting(installation, "api", "front"))
    assert found.blamed == "the link between workloads shop/report -> shop/api"
    assert any("Check network policies" in each.summary for each in found.verdicts)


@pytest.mark.day
async def test_a_node_that_is_drained_is_no_incident(installation: Installation) -> None:
    @contextlib.contextmanager
    def drained() -> Iterator[None]:
        installation.kubectl("drain", "n2", "--ignore-daemonsets", "--delete-emptydir-data",
                             "--force", "--grace-period=1", "--timeout=60s")  # fmt: skip
        yield
        installation.kubectl("uncordon", "n2")

    assert blamed(await incidents(installation, drained)) == []


@pytest.mark.day
async def test_an_api_server_that_is_unavailable_is_at_most_its_service(
    installation: Installation,
) -> None:
    cluster = installation.machines

    @contextlib.contextmanager
    def unavailable() -> Iterator[None]:
        cluster.control_plane.stop("apiserver")
        yield
        start_api_server(cluster.control_plane, cluster.programs, cluster.keys)

    found = blamed(await incidents(installation, unavailable))
    assert found in ([], ["service default/kubernetes"])


@pytest.mark.day
@pytest.mark.parametrize(("percent", "seconds"), [(10, 45), (1, 120)])
async def test_loss_on_a_nodes_wire_is_the_node_or_the_link_between_nodes(
    installation: Installation, percent: int, seconds: float
) -> None:
    found = await incidents(
        installation, lambda: installation.loss(percent, node="n2"), seconds, settle=90
    )
    assert blamed(found) in (["node n2"], ["the link between nodes n1 <-> n2"])


@pytest.mark.day
async def test_a_new_version_over_this_one_loses_no_count_and_blames_nobody_else(
    installation: Installation,
) -> None:
    broken = installation.pods("shop", "app=api")[0]

    @contextlib.contextmanager
    def upgraded() -> Iterator[None]:
        with installation.pod_loss(broken, 10, "to", "from"):
            installation.upgrade("0.1.1")
            yield

    await quiet(installation)
    counts = await Retransmissions.begun(installation, published)
    found = await incidents(installation, upgraded)
    await counts.are_exact()
    assert blamed(found) == [f"pod shop/{broken['metadata']['name']}"]
    for pod in installation.pods(NAMESPACE):
        for container in pod["spec"]["containers"]:
            if container["image"].startswith("ghcr.io/flowverdict/"):
                assert container["image"].endswith(":0.1.1"), pod["metadata"]["name"]
