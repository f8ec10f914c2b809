"""A fake Kubernetes API for tests: objects get created, become ready, and take time to delete."""

import base64
import json
import re
import uuid
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import yaml

from tests.stand_ins.listening import Listening

__all__ = ["KubernetesStandIn"]

Object = dict[str, Any]
_TOKEN = "token-of-the-test"


class KubernetesStandIn(Listening):
    """The part of the API that the project's programs use.

    A pod becomes ready once it has been read `polls_until_ready` times, and is gone once it has
    been read after its deletion; a namespace disappears with everything in it. `refuse` maps
    patterns of requests ("POST /api/v1/…") to the status they get. `stuck` maps pods that stay
    waiting to the reason, `ended` has those that end at once, `nodes` maps pods to nodes. `denied`
    has what access reviews deny, as "verb resource". `changes` lists creations and removals.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.objects: dict[str, Object] = {}
        self.logs: dict[str, Callable[[], str]] = {}
        self.refuse: dict[str, int] = {}
        self.stuck: dict[str, str] = {}
        self.nodes: dict[str, str] = {}
        self.ended: set[str] = set()
        self.denied: set[str] = set()
        self.changes: list[str] = []
        self.polls_until_ready = 1
        self.version = 0
        self.on_running: Callable[[Object], None] = lambda _: None

    def kubeconfig(self, folder: Path) -> Path:
        """Write a kubeconfig for this API."""
        path = folder / "kubeconfig"
        config = {
            "apiVersion": "v1",
            "kind": "Config",
            "current-context": "test",
            "clusters": [{"name": "test", "cluster": {"server": self.url}}],
            "users": [{"name": "test", "user": {"token": _TOKEN}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
        }
        path.write_text(yaml.safe_dump(config))
        return path

    def add(self, path: str, thing: Object) -> None:
        self.version += 1
        for name, value in thing.pop("stringData", {}).items():
            thing.setdefault("data", {})[name] = base64.b64encode(value.encode()).decode()
        metadata = thing.setdefault("metadata", {})
        metadata.setdefault("uid", str(uuid.uuid4()))
        metadata["resourceVersion"] = str(self.version)
        self.objects[path] = thing

    def names(self) -> set[str]:
        """The paths of all objects there are now."""
        return set(self.objects)

    def secret(self, path: str) -> dict[str, str]:
        """The values of a Secret."""
        data = self.objects[path].get("data", {})
        return {name: base64.b64decode(value).decode() for name, value in data.items()}

    def create(self, path: str, thing: Object) -> tuple[int, Object]:
        name = thing["metadata"]["name"]
        namespace = re.match(r"(/api/v1/namespaces/[^/]+)/", path)
        if namespace and namespace[1] not in self.objects:
            return 404, {"message": f"namespaces {namespace[1]} not found"}
        if f"{path}/{name}" in self.objects:
            return 409, {"message": f"{name} already exists"}
        self.changes.append(f"created {name}")
        if path.endswith("/pods"):
            thing["status"] = {"phase": "Pending"}
            name = thing["metadata"]["name"]
            thing["spec"].setdefault("nodeName", self.nodes.get(name, "worker0"))
        self.add(f"{path}/{name}", thing)
        return 201, thing

    def list_(self, path: str) -> tuple[int, Object]:
        """All objects directly below `path`, ignoring the label selector."""
        below = [each for each in self.objects if each.rpartition("/")[0] == path]
        return 200, {"metadata": {}, "items": [self.objects[each] for each in below]}

    def read(self, path: str) -> tuple[int, Object]:
        if path.endswith("/pods"):
            return self.list_(path)
        thing = self.objects.get(path)
        if thing is None:
            return 404, {"message": "not found"}
        thing["polls"] = thing.get("polls", 0) + 1
        if "deletionTimestamp" in thing["metadata"]:
            if thing["polls"] > 1:
                for each in [p for p in self.objects if p == path or p.startswith(f"{path}/")]:
                    del self.objects[each]
                return 404, {"message": "not found"}
        elif "/pods/" in path:
            self._advance(thing)
        return 200, {key: value for key, value in thing.items() if key != "polls"}

    def _advance(self, pod: Object) -> None:
        name = pod["metadata"]["name"]
        if name in self.stuck:
            waiting = {"reason": self.stuck[name], "message": "as the kubelet reports"}
            status = {"name": "c", "ready": False, "image": "", "imageID": "", "restartCount": 0}
            pod["status"]["containerStatuses"] = [status | {"state": {"waiting": waiting}}]
        elif name in self.ended:
            pod["status"] = {"phase": "Failed"}
        elif pod["polls"] >= self.polls_until_ready and pod["status"]["phase"] == "Pending":
            ready = [{"type": "Ready", "status": "True"}]
            pod["status"] = {"phase": "Running", "conditions": ready}
            self.on_running(pod)

    def delete(self, path: str) -> tuple[int, Object]:
        thing = self.objects.get(path)
        if thing is None:
            return 404, {"message": "not found"}
        self.changes.append(f"removed {thing['metadata']['name']}")
        thing["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
        thing["polls"] = 0
        # Not a Status: the object being deleted, like the API if deletion takes time.
        return 200, {key: value for key, value in thing.items() if key != "polls"}

    def patch(self, path: str, change: Object) -> tuple[int, Object]:
        thing = self.objects.get(path)
        if thing is None:
            return 404, {"message": "not found"}
        wanted = change.get("metadata", {}).get("resourceVersion")
        if wanted not in (None, thing["metadata"]["resourceVersion"]):
            return 409, {"message": "the object has been modified"}
        for value in change.get("data", {}).values():
            base64.b64decode(value, validate=True)
        thing.setdefault("data", {}).update(change.get("data", {}))
        self.add(path, thing | {"stringData": change.get("stringData", {})})
        return 200, thing

    def review(self, asked: Object) -> tuple[int, Object]:
        attributes = asked["spec"]["resourceAttributes"]
        what = f"{attributes['verb']} {attributes['resource']}"
        return 201, {"spec": asked["spec"], "status": {"allowed": what not in self.denied}}


class _Handler(BaseHTTPRequestHandler):
    stand_in: KubernetesStandIn

    def _answer(self, status: int, body: Object | str) -> None:
        text = body if isinstance(body, str) else json.dumps(body)
        self.send_response(status)
        kind = "text/plain" if isinstance(body, str) else "application/json"
        self.send_header("Content-Type", kind)
        encoded = text.encode()
        self.send_header("Content-Length", str(len(encoded)))
        self.end_headers()
        self.wfile.write(encoded)

    def _handle(self) -> tuple[int, Object | str]:
        length = int(self.headers.get("Content-Length") or 0)
        body = json.loads(self.rfile.read(length) or b"{}")
        path = self.path.split("?")[0]
        if self.headers["Authorization"] != f"Bearer {_TOKEN}":
            return 401, {"message": "Unauthorized"}
        for pattern, status in self.stand_in.refuse.items():
            if re.search(pattern, f"{self.command} {path}"):
                return status, {"kind": "Status", "message": "refused by the stand-in"}
        if self.command == "GET" and path.endswith("/log"):
            pod = path.removesuffix("/log")
            if pod not in self.stand_in.objects:
                return 404, {"message": "not found"}
            read_log = self.stand_in.logs.get(pod.rsplit("/", 1)[1], str)
            return 200, read_log()
        if path.endswith("/selfsubjectaccessreviews"):
            return self.stand_in.review(body)
        if self.command == "GET":
            return self.stand_in.read(path)
        if self.command == "POST":
            return self.stand_in.create(path, body)
        if self.command == "PATCH":
            return self.stand_in.patch(path, body)
        return self.stand_in.delete(path)

    def do_GET(self) -> None:
        self._answer(*self._handle())

    do_POST = do_PATCH = do_DELETE = do_GET  # noqa: N815 # http.server's names

    def log_message(self, format: str, *args: Any) -> None:
        pass
