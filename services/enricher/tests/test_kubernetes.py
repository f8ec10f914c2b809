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

import msgspec
import pytest

from conftest import eventually
from flowverdict_contracts.addresses import to_bytes
from flowverdict_enricher import kubernetes
from flowverdict_enricher.directory import Directory
from flowverdict_runtime.service import CannotRun, Context

END = object()


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
            "hostIP": "10.1.0.1",
            "startTime": "2026-01-01T00:00:01Z",
        },
    }


class Api:
    """Lists `pods` in pages, watches through `events`, and refuses with `refuse` when set."""

    def __init__(self) -> None:
        self.pods: list[dict[str, Any]] = []
        self.events: queue.Queue[Any] = queue.Queue()
        self.refuse = 0
        self.lists = 0
        self.watched_from: list[str] = []
        self.page = 2


class Handler(BaseHTTPRequestHandler):
    api: Api
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(url.query).items()}
        if url.path != "/api/v1/pods" or self.api.refuse:
            self._json(self.api.refuse or 404, {"kind": "Status"})
        elif "watch" in query:
            assert query["allowWatchBookmarks"] == "true"
            self.api.watched_from.append(query["resourceVersion"])
            self._watch()
        else:
            self._list(query)

    def _list(self, query: dict[str, str]) -> None:
        begin = int(query.get("continue", 0))
        page = self.api.pods[begin : begin + self.api.page]
        more = begin + self.api.page
        metadata = {"resourceVersion": str(100 + self.api.lists)}
        if more < len(self.api.pods):
            metadata["continue"] = str(more)
        else:
            self.api.lists += 1
        self._json(200, {"metadata": metadata, "items": page})

    def _watch(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while (event := self.api.events.get()) is not END:
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
    api.events.put(END)
    server.shutdown()
    server.server_close()


@contextlib.asynccontextmanager
async def following(kubeconfig: str) -> AsyncIterator[tuple[Directory, Context]]:
    directory, context = Directory(), Context()
    context.health.waiting("names", "reading")
    task = asyncio.create_task(kubernetes.follow(kubeconfig, directory, context))
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
    async with following(kubeconfig) as (directory, context):
        await eventually(lambda: "names" not in context.health.reasons())
        assert [now(directory, f"10.0.0.{n}") for n in range(1, 6)] == [
            ("pod", f"p{n}") for n in range(1, 6)
        ]
        assert now(directory, "10.1.0.1") == ("node", "worker0")
        server.events.put({"type": "ADDED", "object": pod("new", "10.0.0.9")})
        await eventually(lambda: now(directory, "10.0.0.9") == ("pod", "new"))
        server.events.put({"type": "DELETED", "object": pod("new", "10.0.0.9")})
        await eventually(lambda: now(directory, "10.0.0.9")[0] == "unknown")


async def test_a_completed_pod_gives_its_address_to_the_next(api: tuple[Api, str]) -> None:
    server, kubeconfig = api
    server.pods = [pod("job", "10.0.0.1")]
    async with following(kubeconfig) as (directory, _):
        await eventually(lambda: now(directory, "10.0.0.1") == ("pod", "job"))
        server.events.put({"type": "MODIFIED", "object": pod("job", "10.0.0.1", phase="Succeeded")})
        server.events.put({"type": "ADDED", "object": pod("next", "10.0.0.1")})
        await eventually(lambda: now(directory, "10.0.0.1") == ("pod", "next"))


async def test_a_pod_on_the_host_network_does_not_take_the_nodes_address(
    api: tuple[Api, str],
) -> None:
    server, kubeconfig = api
    server.pods = [pod("proxy", "10.1.0.1", host_network=True)]
    async with following(kubeconfig) as (directory, _):
        await eventually(lambda: now(directory, "10.1.0.1") == ("node", "worker0"))


async def test_a_watch_that_ends_is_taken_up_where_the_last_bookmark_left_it(
    api: tuple[Api, str],
) -> None:
    server, kubeconfig = api
    async with following(kubeconfig) as _:
        bookmark = {"metadata": {"resourceVersion": "777"}}
        server.events.put({"type": "BOOKMARK", "object": bookmark})
        server.events.put(END)
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
        server.events.put({"type": "ERROR", "object": {"code": 410, "message": "too old"}})
        server.events.put(END)
        await eventually(lambda: server.lists == 2)
        await eventually(lambda: now(directory, "10.0.0.1")[0] == "unknown")
        assert now(directory, "10.0.0.2") == ("pod", "stays")


@pytest.mark.parametrize(
    ("status", "words"), [(403, "grant get, list and watch"), (401, "credentials"), (500, "500")]
)
async def test_a_refusing_api_is_named_as_the_reason_and_asked_again(
    api: tuple[Api, str], status: int, words: str
) -> None:
    server, kubeconfig = api
    server.refuse = status
    async with following(kubeconfig) as (directory, context):
        await eventually(lambda: words in context.health.reasons().get("names", ""))
        server.pods, server.refuse = [pod("p", "10.0.0.1")], 0
        await eventually(lambda: now(directory, "10.0.0.1") == ("pod", "p"))
        await eventually(lambda: "names" not in context.health.reasons())


async def test_nonsense_from_the_api_is_survived(api: tuple[Api, str]) -> None:
    server, kubeconfig = api
    async with following(kubeconfig) as (directory, context):
        await eventually(lambda: "names" not in context.health.reasons())
        server.pods = [pod("p", "10.0.0.1")]
        server.events.put(b"{not json}\n")
        server.events.put(END)
        await eventually(lambda: now(directory, "10.0.0.1") == ("pod", "p"))


def test_a_pod_of_a_deployment_is_named_after_the_deployment() -> None:
    def workload(**changes: Any) -> tuple[str, str]:
        decoded = msgspec.json.decode(json.dumps(pod("x", "", **changes)), type=kubernetes._Pod)
        return kubernetes.workload_of(decoded.metadata)

    replica_set = {"kind": "ReplicaSet", "name": "web-7d9", "controller": True}
    assert workload(owners=[replica_set], labels={"pod-template-hash": "7d9"}) == (
        "web",
        "Deployment",
    )
    assert workload(owners=[replica_set]) == ("web-7d9", "ReplicaSet")
    assert workload(owners=[{"kind": "Job", "name": "backup", "controller": True}]) == (
        "backup",
        "Job",
    )
    assert workload() == ("", "")


def test_without_a_cluster_the_error_says_what_to_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(CannotRun, match="FLOWVERDICT_KUBECONFIG"):
        kubernetes._connect("")
