"""Names from a Kubernetes API, played by an HTTP server that fails as the real one does."""

import asyncio
import contextlib
import json
import queue
import threading
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from conftest import eventually
from flowverdict_contracts.addresses import to_bytes
from flowverdict_enricher import kubernetes
from flowverdict_enricher.directory import Directory
from flowverdict_lab.free_port import free_port
from flowverdict_runtime.context import CannotRun, Context

END, CUT = object(), object()


def pod(name: str, ip: str, **changes: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": name,
            "namespace": "default",
            "uid": f"uid-{name}",
            "resourceVersion": "5",
            "labels": changes.get("labels", {}),
            "ownerReferences": changes.get("owners", []),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        "spec": {"nodeName": "worker0", "hostNetwork": changes.get("host_network", False)},
        "status": {
            "phase": changes.get("phase", "Running"),
            "podIP": ip,
            "podIPs": [{"ip": ip}] if ip else [],
            "startTime": "2026-01-01T00:00:01Z",
        },
    }


def owned_by(kind: str, name: str) -> list[dict[str, Any]]:
    return [{"kind": kind, "name": name, "uid": f"uid-{kind}-{name}", "controller": True}]


def thing(kind: str, name: str, **content: Any) -> dict[str, Any]:
    """An object that is not a pod; `labels` and `owners` go into its metadata."""
    return {
        "metadata": {
            "name": name,
            "namespace": "" if kind == "Node" else "default",
            "uid": f"uid-{kind}-{name}",
            "resourceVersion": "5",
            "labels": content.pop("labels", {}),
            "ownerReferences": content.pop("owners", []),
            "creationTimestamp": "2026-01-01T00:00:00Z",
        },
        **content,
    }


def node(name: str, ip: str, zone: str) -> dict[str, Any]:
    addresses = [{"type": "InternalIP", "address": ip}, {"type": "Hostname", "address": name}]
    labels = {"topology.kubernetes.io/zone": zone}
    return thing("Node", name, labels=labels, status={"addresses": addresses})


def service(name: str, *ips: str) -> dict[str, Any]:
    return thing("Service", name, spec={"clusterIP": ips[0], "clusterIPs": list(ips)})


def endpoint_slice(name: str, service: str, *pods: str) -> dict[str, Any]:
    targets = [{"targetRef": {"kind": "Pod", "name": p, "uid": f"uid-{p}"}} for p in pods]
    labels = {"kubernetes.io/service-name": service}
    # The API writes null if there is none.
    return thing("EndpointSlice", name, labels=labels, endpoints=targets or None)


RESOURCES = {
    "/api/v1/pods": "pods",
    "/api/v1/nodes": "nodes",
    "/api/v1/services": "services",
    "/apis/discovery.k8s.io/v1/endpointslices": "endpointslices",
    "/apis/batch/v1/jobs": "jobs",
}


class Api:
    """Lists `objects` in pages, watches through `events`, and refuses with `refuse` when set.

    `pods`, `lists` and `watched_from` are of pods.
    """

    def __init__(self) -> None:
        self.objects: dict[str, list[dict[str, Any]]] = {name: [] for name in RESOURCES.values()}
        self.events: dict[str, queue.Queue[Any]] = {name: queue.Queue() for name in self.objects}
        self.refuse: dict[str, int] = {}
        self.lists = 0
        self.watched_from: list[str] = []
        self.page = 2
        self.pages_expire = False

    @property
    def pods(self) -> list[dict[str, Any]]:
        return self.objects["pods"]

    @pods.setter
    def pods(self, pods: list[dict[str, Any]]) -> None:
        self.objects["pods"] = pods

    def tell(self, type_: str, resource: str, thing: dict[str, Any]) -> None:
        self.events[resource].put({"type": type_, "object": thing})


class Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        resource = RESOURCES.get(url.path, "")
        if not resource or resource in self.api.refuse:
            self._json(self.api.refuse.get(resource, 404), {"kind": "Status"})
        elif "watch" in query:
            assert query["allowWatchBookmarks"] == "true"
            if resource == "pods":
                self.api.watched_from.append(query["resourceVersion"])
            self._watch(resource)
        else:
            self._list(resource, query)

    def _list(self, resource: str, query: dict[str, str]) -> None:
        if "continue" in query and self.api.pages_expire:
            self._json(410, {"kind": "Status", "metadata": {"continue": "2"}, "reason": "Expired"})
            return
        begin = int(query.get("continue", 0))
        objects = self.api.objects[resource]
        more = begin + self.api.page if query["limit"] != "0" else len(objects)
        metadata = {"resourceVersion": str(100 + self.api.lists)}
        if more < len(objects):
            metadata["continue"] = str(more)
        elif resource == "pods":
            self.api.lists += 1
        self._json(200, {"metadata": metadata, "items": objects[begin:more] or None})

    def _watch(self, resource: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while (event := self.api.events[resource].get()) is not END:
            if event is CUT:
                self.close_connection = True
                return
            line = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
            # In two pieces: a line need not come in one.
            for piece in (line[: len(line) // 2], line[len(line) // 2 :]):
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def _json(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def api(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[Api, str]]:
    monkeypatch.setattr(kubernetes, "FIRST_PAUSE_SECONDS", 0.05)
    api = Api()
    server = ThreadingHTTPServer(("127.0.0.1", 0), type("H", (Handler,), {"api": api}))
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "c",
        "clusters": [
            {"name": "c", "cluster": {"server": f"http://127.0.0.1:{server.server_port}"}}
        ],
        "contexts": [{"name": "c", "context": {"cluster": "c", "user": "u"}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
    }
    path = tmp_path / "kubeconfig"
    path.write_text(json.dumps(config))
    yield api, str(path)
    for events in api.events.values():
        events.put(END)
    server.shutdown()
    server.server_close()


@contextlib.asynccontextmanager
async def following(kubeconfig: str, *label_keys: str) -> AsyncIterator[tuple[Directory, Context]]:
    directory, context = Directory(), Context()
    context.health.waiting("names", "reading")
    task = asyncio.create_task(kubernetes.follow(kubeconfig, directory, context, label_keys))
    try:
        yield directory, context
    finally:
        context.stopping.set()
        await task


def now(directory: Directory, address: str) -> tuple[str, str]:
    """Kind and pod or node of an address, long after all that happened."""
    late = 1 << 62
    found = directory.at(to_bytes(address), late, late + 1)
    return found.kind, found.pod or found.node


async def test_pods_are_listed_page_by_page_and_then_watched(api: tuple[Api, str]) -> None:
    server, kubeconfig = api
    server.pods = [pod(f"p{number}", f"10.0.0.{number}") for number in range(1, 6)]
    server.objects["nodes"] = [node("worker0", "10.1.0.1", "a")]
    async with following(kubeconfig) as (directory, context):
        await eventually(lambda: "names" not in context.health.reasons())
        assert [now(directory, f"10.0.0.{n}") for n in range(1, 6)] == [
            ("pod", f"p{n}") for n in range(1, 6)
        ]
        assert now(directory, "10.1.0.1") == ("node", "worker0")
        server.tell("ADDED", "pods", pod("new", "10.0.0.9"))
        await eventually(lambda: now(directory, "10.0.0.9") == ("pod", "new"))
        server.tell("DELETED", "pods", pod("new", "10.0.0.9"))
        await eventually(lambda: now(directory, "10.0.0.9")[0] == "unknown")


async def test_a_list_whose_pages_expire_is_read_whole(api: tuple[Api, str]) -> None:
    server, kubeconfig = api
    server.pages_expire = True
    server.pods = [pod(f"p{number}", f"10.0.0.{number}") for number in range(1, 6)]
    async with following(kubeconfig) as (directory, context):
        await eventually(lambda: "names" not in context.health.reasons())
        assert [now(directory, f"10.0.0.{n}") for n in range(1, 6)] == [
            ("pod", f"p{n}") for n in range(1, 6)
        ]


async def test_a_completed_pod_gives_its_address_to_the_next(api: tuple[Api, str]) -> None:
    server, kubeconfig = api
    server.pods = [pod("job", "10.0.0.1")]
    async with following(kubeconfig) as (directory, _):
        await eventually(lambda: now(directory, "10.0.0.1") == ("pod", "job"))
        server.tell("MODIFIED", "pods", pod("job", "10.0.0.1", phase="Succeeded"))
        server.tell("ADDED", "pods", pod("next", "10.0.0.1"))
        await eventually(lambda: now(directory, "10.0.0.1") == ("pod", "next"))


async def test_a_pod_on_the_host_network_does_not_take_the_nodes_address(
    api: tuple[Api, str],
) -> None:
    server, kubeconfig = api
    server.pods = [pod("proxy", "10.1.0.1", host_network=True)]
    server.objects["nodes"] = [node("worker0", "10.1.0.1", "a")]
    async with following(kubeconfig) as (directory, _):
        await eventually(lambda: now(directory, "10.1.0.1") == ("node", "worker0"))


async def test_a_watch_that_ends_is_taken_up_where_the_last_bookmark_left_it(
    api: tuple[Api, str],
) -> None:
    server, kubeconfig = api
    async with following(kubeconfig) as _:
        bookmark = {"metadata": {"resourceVersion": "777"}}
        server.tell("BOOKMARK", "pods", bookmark)
        server.events["pods"].put(END)
        await eventually(lambda: server.watched_from == ["100", "777"])
    assert server.lists == 1


async def test_a_watch_that_is_too_old_leads_to_a_fresh_list_that_ends_what_is_gone(
    api: tuple[Api, str],
) -> None:
    server, kubeconfig = api
    server.pods = [pod("gone", "10.0.0.1"), pod("stays", "10.0.0.2")]
    async with following(kubeconfig) as (directory, _):
        await eventually(lambda: now(directory, "10.0.0.1") == ("pod", "gone"))
        server.pods = [pod("stays", "10.0.0.2")]
        server.events["pods"].put({"type": "ERROR", "object": {"code": 410, "message": "too old"}})
        server.events["pods"].put(END)
        await eventually(lambda: server.lists == 2)
        await eventually(lambda: now(directory, "10.0.0.1")[0] == "unknown")
        assert now(directory, "10.0.0.2") == ("pod", "stays")


@pytest.mark.parametrize(
    ("status", "words"),
    [(403, "grant get, list and watch on pods"), (401, "credentials"), (500, "500")],
)
async def test_a_refusing_api_is_named_as_the_reason_and_asked_again(
    api: tuple[Api, str], status: int, words: str
) -> None:
    server, kubeconfig = api
    server.refuse["pods"] = status
    async with following(kubeconfig) as (directory, context):
        await eventually(lambda: words in context.health.reasons().get("names", ""))
        server.pods = [pod("p", "10.0.0.1")]
        server.refuse.clear()
        await eventually(lambda: now(directory, "10.0.0.1") == ("pod", "p"))
        await eventually(lambda: "names" not in context.health.reasons())


@pytest.mark.parametrize("odd", [{"labels": None}, {"ownerReferences": [{"kind": 5}]}])
async def test_one_odd_object_keeps_no_other_from_its_name(
    api: tuple[Api, str], odd: dict[str, Any]
) -> None:
    server, kubeconfig = api
    strange = pod("odd", "10.0.0.1")
    strange["metadata"] |= odd
    server.pods = [strange, pod("fine", "10.0.0.2")]
    async with following(kubeconfig) as (directory, context):
        await eventually(lambda: "names" not in context.health.reasons())
        assert now(directory, "10.0.0.2") == ("pod", "fine")
        server.tell("MODIFIED", "pods", strange)
        server.tell("ADDED", "pods", pod("next", "10.0.0.3"))
        await eventually(lambda: now(directory, "10.0.0.3") == ("pod", "next"))
    assert server.lists == 1


async def test_a_watch_that_is_cut_goes_on_from_what_it_had(api: tuple[Api, str]) -> None:
    server, kubeconfig = api
    async with following(kubeconfig) as (directory, _):
        later = pod("p", "10.0.0.1")
        later["metadata"]["resourceVersion"] = "555"
        server.tell("ADDED", "pods", later)
        server.events["pods"].put(CUT)
        await eventually(lambda: server.watched_from == ["100", "555"])
        assert now(directory, "10.0.0.1") == ("pod", "p")
    assert server.lists == 1


async def test_nonsense_from_the_api_is_survived(api: tuple[Api, str]) -> None:
    server, kubeconfig = api
    async with following(kubeconfig) as (directory, context):
        await eventually(lambda: "names" not in context.health.reasons())
        server.pods = [pod("p", "10.0.0.1")]
        server.events["pods"].put(b"{not json}\n")
        server.events["pods"].put(END)
        await eventually(lambda: now(directory, "10.0.0.1") == ("pod", "p"))


async def named(directory: Directory, address: str, **wanted: str) -> None:
    """Wait until an address' name has these fields."""

    def has() -> bool:
        found = directory.at(to_bytes(address), 1 << 62, (1 << 62) + 1)
        return {name: getattr(found, name) for name in wanted} == wanted

    await eventually(has, 10)


async def test_a_pod_is_named_after_what_made_it(api: tuple[Api, str]) -> None:
    server, kubeconfig = api
    template = {"pod-template-hash": "7d9"}
    rollout = {"rollouts-pod-template-hash": "7d9"}
    server.pods = [
        pod("web", "10.0.0.1", owners=owned_by("ReplicaSet", "web-7d9"), labels=template),
        pod("canary", "10.0.0.2", owners=owned_by("ReplicaSet", "canary-7d9"), labels=rollout),
        pod("bare", "10.0.0.3", owners=owned_by("ReplicaSet", "bare-7d9")),
        pod("once", "10.0.0.4", owners=owned_by("Job", "once")),
        pod("nightly", "10.0.0.5", owners=owned_by("Job", "nightly-29371200")),
        pod("alone", "10.0.0.6"),
    ]
    nightly = thing("Job", "nightly-29371200", owners=owned_by("CronJob", "nightly"))
    server.objects["jobs"] = [thing("Job", "once"), nightly]
    async with following(kubeconfig) as (directory, _):
        await named(directory, "10.0.0.1", workload="web", workload_kind="Deployment")
        await named(directory, "10.0.0.2", workload="canary", workload_kind="Rollout")
        await named(directory, "10.0.0.3", workload="bare-7d9", workload_kind="ReplicaSet")
        await named(directory, "10.0.0.4", workload="once", workload_kind="Job")
        await named(directory, "10.0.0.5", workload="nightly", workload_kind="CronJob")
        await named(directory, "10.0.0.6", workload="", workload_kind="")


async def test_a_services_addresses_are_the_services_until_it_is_deleted(
    api: tuple[Api, str],
) -> None:
    server, kubeconfig = api
    server.objects["services"] = [service("web", "10.96.0.7", "fd00::7"), service("db", "None")]
    async with following(kubeconfig) as (directory, _):
        for address in ("10.96.0.7", "fd00::7"):
            await named(directory, address, kind="service", namespace="default", service="web")
        server.tell("DELETED", "services", service("web", "10.96.0.7", "fd00::7"))
        await named(directory, "10.96.0.7", kind="unknown")


async def test_a_pod_has_its_nodes_zone_and_its_service_in_whatever_order_they_come(
    api: tuple[Api, str],
) -> None:
    server, kubeconfig = api
    async with following(kubeconfig) as (directory, _):
        server.tell("ADDED", "endpointslices", endpoint_slice("web-1", "web", "early"))
        server.tell("ADDED", "pods", pod("early", "10.0.0.1"))
        await named(directory, "10.0.0.1", pod="early", service="web", zone="")
        server.tell("ADDED", "nodes", node("worker0", "10.1.0.1", "a"))
        await named(directory, "10.0.0.1", zone="a", service="web")
        await named(directory, "10.1.0.1", kind="node", node="worker0", zone="a")
        server.tell("MODIFIED", "nodes", node("worker0", "10.1.0.1", "b"))
        await named(directory, "10.0.0.1", zone="b")
        server.tell("ADDED", "endpointslices", endpoint_slice("api-1", "api", "early"))
        await named(directory, "10.0.0.1", service="api")  # the first of two by name
        server.tell("MODIFIED", "endpointslices", endpoint_slice("api-1", "api"))
        await named(directory, "10.0.0.1", service="web")
        server.tell("DELETED", "endpointslices", endpoint_slice("web-1", "web", "early"))
        await named(directory, "10.0.0.1", service="", zone="b")


async def test_chosen_labels_of_a_pod_are_in_its_names_and_follow_its_changes(
    api: tuple[Api, str],
) -> None:
    server, kubeconfig = api
    labels = {"team": "payments", "app.kubernetes.io/version": "1.24", "other": "no"}
    server.pods = [pod("p1", "10.0.0.1", labels=labels), pod("p2", "10.0.0.2")]
    async with following(kubeconfig, "app.kubernetes.io/version", "team") as (directory, _):
        chosen = "app.kubernetes.io/version=1.24,team=payments"
        await named(directory, "10.0.0.1", pod="p1", labels=chosen)
        await named(directory, "10.0.0.2", pod="p2", labels="")
        server.tell("MODIFIED", "pods", pod("p1", "10.0.0.1", labels={"team": "search"}))
        await named(directory, "10.0.0.1", pod="p1", labels="team=search")


@pytest.mark.parametrize("resource", sorted(RESOURCES.values()))
async def test_names_wait_for_every_resource_that_they_are_made_of(
    api: tuple[Api, str], resource: str
) -> None:
    server, kubeconfig = api
    server.refuse[resource] = 403
    async with following(kubeconfig) as (_, context):
        words = f"Kubernetes: {resource}: the API denies access"
        await eventually(lambda: context.health.reasons()["names"].startswith(words))
        assert kubernetes.check(kubeconfig) == 1
        server.refuse.clear()
        await eventually(lambda: "names" not in context.health.reasons())
    assert kubernetes.check(kubeconfig) == 0


async def test_an_api_that_is_away_is_said_once_for_all_resources(
    api: tuple[Api, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = json.loads(Path(api[1]).read_text())
    config["clusters"][0]["cluster"]["server"] = f"http://127.0.0.1:{free_port()}"
    away = tmp_path / "away"
    away.write_text(json.dumps(config))
    assert kubernetes.check(str(away)) == 1
    assert capsys.readouterr().out.count("refused") == 1
    every = "nodes, services, endpointslices, jobs, pods: "
    async with following(str(away)) as (_, context):
        await eventually(lambda: every in context.health.reasons()["names"])
        assert "/api/v1" not in context.health.reasons()["names"]


def test_without_a_cluster_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(CannotRun, match="FLOWVERDICT_KUBECONFIG"):
        kubernetes._connect("")
