"""A fake Grafana for tests: the HTTP API that the provisioner uses, with state and faults."""

import base64
import json
import threading
from collections import Counter
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.stand_ins.listening import Listening

__all__ = ["GrafanaStandIn"]

Json = dict[str, Any]
_PATHS = {
    "datasources/uid": "data_sources",
    "folders": "folders",
    "dashboards/uid": "dashboards",
    "v1/provisioning/alert-rules": "alert_rules",
}


class GrafanaStandIn(Listening):
    """Stores what it is sent, as Grafana does.

    It numbers a dashboard's versions and refuses to overwrite a version other than the given one
    (412), never returns a data source's secrets, and, like a Grafana that is starting, answers 503
    while `starting` is above 0. After `close_after` changing requests it shuts down without
    answering the next one, which it has applied, or not if `close_before` is set.
    `refuses` has the answer, a status and a body, to changing requests that it refuses, by method
    and path without `/api/`. `answer_with`, if set, answers every request: a status, a type and a
    body. `before_save` is called with a dashboard's uid before it is saved.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.data_sources: dict[str, Json] = {}
        self.secrets: dict[str, Json] = {}
        self.folders: dict[str, Json] = {}
        self.dashboards: dict[str, Json] = {}
        self.alert_rules: dict[str, Json] = {}
        self.starting = 0
        self.close_after: int | None = None
        self.close_before = False
        self.answer_with: tuple[int, str, bytes] | None = None
        self.refuses: dict[str, tuple[int, Json]] = {}
        self.intervals: dict[str, int] = {}
        self.before_save: Any = None
        self.requests: Counter[str] = Counter()

    def save_dashboard(self, asked: Json) -> tuple[int, Json]:
        """Handles POST /api/dashboards/db."""
        model = asked["dashboard"]
        uid = model["uid"]
        if self.before_save is not None:
            self.before_save(uid)
        stored = self.dashboards.get(uid)
        version = stored["dashboard"]["version"] if stored else 0
        if not asked.get("overwrite") and stored is not None and model.get("version") != version:
            message = "The dashboard has been changed by someone else"
            return 412, {"status": "version-mismatch", "message": message}
        folder = asked.get("folderUid", "")
        if folder and folder not in self.folders:
            return 400, {"message": "folder not found"}
        number = stored["dashboard"]["id"] if stored else len(self.dashboards) + 1
        self.dashboards[uid] = {
            "dashboard": {**model, "id": number, "version": version + 1},
            "meta": {"folderUid": folder, "slug": uid},
        }
        return 200, {"uid": uid, "version": version + 1, "status": "success"}

    def save_data_source(self, asked: Json) -> tuple[int, Json]:
        """Handles POST and PUT on /api/datasources."""
        uid = asked["uid"]
        self.secrets.setdefault(uid, {}).update(asked.pop("secureJsonData", {}))
        defaults = {"basicAuth": False, "readOnly": False, "id": len(self.data_sources) + 1}
        fields = {"secureJsonFields": dict.fromkeys(self.secrets[uid], True)}
        self.data_sources[uid] = {**defaults, **asked, **fields}
        return 200, {"datasource": self.data_sources[uid], "message": "saved"}


class _Handler(BaseHTTPRequestHandler):
    stand_in: GrafanaStandIn

    def _answer(self, status: int, body: Any) -> None:
        encoded = json.dumps(body).encode()
        if self._shuts_down(status):
            return
        self._send(status, "application/json", encoded)

    def _send(self, status: int, kind: str, encoded: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(encoded)))
        if status in (301, 302):
            self.send_header("Location", "http://login.example/")
        self.end_headers()
        self.wfile.write(encoded)

    def _shuts_down(self, status: int) -> bool:
        """Closes the connection, and the server, without an answer to a change."""
        grafana = self.stand_in
        if self.command == "GET" or grafana.close_after is None or status >= 400:
            return False
        grafana.close_after -= 1
        if grafana.close_after >= 0:
            return False
        self.connection.close()
        threading.Thread(target=grafana.stop).start()
        return True

    def _accepts(self) -> bool:
        grafana = self.stand_in
        if grafana.starting:
            grafana.starting -= 1
            self._answer(503, {"message": "starting"})
            return False
        basic = "Basic " + base64.b64encode(b"admin:secret").decode()
        if self.headers["Authorization"] not in (basic, "Bearer token"):
            self._answer(401, {"message": "Invalid username or password"})
            return False
        if grafana.answer_with is not None:
            self._send(*grafana.answer_with)
            return False
        refused = grafana.refuses.get(f"{self.command} {self._path()}")
        if refused is not None:
            self._answer(*refused)
            return False
        if self.command != "GET" and grafana.close_before and grafana.close_after == 0:
            return not self._shuts_down(200)
        return True

    def _path(self) -> str:
        return self.path.removeprefix("/api/").split("?")[0]

    def do_GET(self) -> None:
        if not self._accepts():
            return
        if self._path() == "org":
            self._answer(200, {"id": 2, "name": "Main Org."})
            return
        group = self._path().rpartition("/rule-groups/")[2]
        rules = [each for each in self.stand_in.alert_rules.values() if each["ruleGroup"] == group]
        if "/rule-groups/" in self._path():
            interval = self.stand_in.intervals.get(group, 60)
            self._answer(200, {"title": group, "interval": interval, "rules": rules})
            return
        for prefix, kind in _PATHS.items():
            if self._path().startswith(f"{prefix}/"):
                uid = self._path().removeprefix(f"{prefix}/")
                found = getattr(self.stand_in, kind).get(uid)
                self._answer(200 if found else 404, found or {"message": f"{kind} not found"})
                return
        self._answer(404, {"message": "not found"})

    def do_POST(self) -> None:
        body = self._body()
        if not self._accepts():
            return
        self.stand_in.requests[self._path()] += 1
        path, grafana = self._path(), self.stand_in
        if path == "dashboards/db":
            self._answer(*grafana.save_dashboard(body))
        elif path == "datasources":
            if body["uid"] in grafana.data_sources:
                self._answer(409, {"message": "data source with the same name already exists"})
                return
            self._answer(*grafana.save_data_source(body))
        elif path == "folders":
            if body["uid"] in grafana.folders:
                self._answer(412, {"message": "the folder has been changed by someone else"})
                return
            grafana.folders[body["uid"]] = body
            self._answer(200, body)
        elif path == "v1/provisioning/alert-rules":
            if body["uid"] in grafana.alert_rules:
                self._answer(409, {"message": "a rule with this uid exists"})
                return
            # Fields that the real Grafana adds.
            added = {"id": 1, "orgID": 2, "provenance": "", "updated": "2026-01-01T00:00:00Z"}
            grafana.alert_rules[body["uid"]] = {**body, **added}
            self._answer(201, body)
        else:
            self._answer(404, {"message": "not found"})

    def do_PUT(self) -> None:
        body = self._body()
        if not self._accepts():
            return
        path, grafana = self._path(), self.stand_in
        self.stand_in.requests[path.rpartition("/")[0]] += 1
        if path.startswith("datasources/uid/"):
            self._answer(*grafana.save_data_source(body))
        elif path.startswith("v1/provisioning/alert-rules/"):
            grafana.alert_rules[body["uid"]] = body
            self._answer(200, body)
        elif "/rule-groups/" in path:
            grafana.intervals[path.rpartition("/")[2]] = body["interval"]
            self._answer(200, body)
        else:
            self._answer(404, {"message": "not found"})

    def _body(self) -> Any:
        return json.loads(self.rfile.read(int(self.headers["Content-Length"])))

    def log_message(self, format: str, *args: Any) -> None:
        pass
