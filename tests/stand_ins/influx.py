"""InfluxDB 2 for tests: a stand-in with faults, and a real store with the same write API."""

import json
import re
import subprocess
import urllib.parse
import urllib.request
from collections import deque
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process, stop_process
from tests.stand_ins.listening import Listening

__all__ = ["VICTORIA", "InfluxStandIn", "Victoria"]

VICTORIA = Path(".cache/victoria-metrics/usr/bin/victoria-metrics").absolute()


class InfluxStandIn(Listening):
    """The part of InfluxDB's HTTP API that the service uses, on a fixed port.

    A repeated point overwrites itself. `answers` are sent to the next writes instead of 204: a
    status, with headers. `refuse` is a pattern for malformed lines, `most_bytes` the size limit of
    a request.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.token = "secret"
        self.buckets: dict[str, int] = {}
        self.points: dict[tuple[str, str], str] = {}
        self.answers: deque[tuple[int, dict[str, str]]] = deque()
        self.refuse = ""
        self.most_bytes = 50_000_000
        self.writes = 0

    def write(self, query: dict[str, str], body: str) -> tuple[int, str]:
        self.writes += 1
        if query["bucket"] not in self.buckets:
            return 404, f"bucket {query['bucket']!r} not found"
        if len(body) > self.most_bytes:
            return 413, "request body too large"
        lines = [line for line in body.split("\n") if line]
        for line in lines:
            if self.refuse and re.search(self.refuse, line):
                return 400, f"unable to parse {line!r}"
        for line in lines:
            # Tags may contain escaped spaces.
            tags, fields, time = re.split(r"(?<!\\) (?=\w+=)| (?=\d+$)", line)
            self.points[tags, time] = fields
        return 204, ""


class _Handler(BaseHTTPRequestHandler):
    stand_in: InfluxStandIn

    def _answer(self, status: int, body: Any = "", headers: dict[str, str] | None = None) -> None:
        encoded = b"" if status == 204 else json.dumps(body).encode()
        if headers and "Body" in headers:
            encoded = headers.pop("Body").encode("latin-1")
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(encoded)))
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(encoded)

    def _authorized(self) -> bool:
        if self.headers["Authorization"] == f"Token {self.stand_in.token}":
            return True
        self._answer(401, {"code": "unauthorized", "message": "unauthorized access"})
        return False

    def do_GET(self) -> None:
        if not self._authorized():
            return
        if self.path.startswith("/api/v2/orgs"):
            self._answer(200, {"orgs": [{"id": "0" * 16, "name": "flowverdict"}]})
            return
        query = dict(urllib.parse.parse_qsl(urllib.parse.urlsplit(self.path).query))
        named = [
            {"id": "1" * 16, "name": name, "retentionRules": []}
            for name in self.stand_in.buckets
            if query.get("name") in (None, name)
        ]
        self._answer(200, {"buckets": named})

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if not self._authorized():
            return
        parts = urllib.parse.urlsplit(self.path)
        if parts.path == "/api/v2/buckets":
            asked = json.loads(body)
            self.stand_in.buckets[asked["name"]] = asked["retentionRules"][0]["everySeconds"]
            self._answer(201, asked | {"id": "1" * 16})
            return
        if self.stand_in.answers:
            status, headers = self.stand_in.answers.popleft()
            self._answer(status, {"code": "error", "message": f"status {status}"}, headers)
            return
        status, why = self.stand_in.write(dict(urllib.parse.parse_qsl(parts.query)), body.decode())
        self._answer(status, {"code": "error", "message": why})

    def log_message(self, format: str, *args: Any) -> None:
        pass


class Victoria:
    """A real VictoriaMetrics; it deduplicates points, as InfluxDB does."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        argv = [str(VICTORIA), f"-storageDataPath={self._folder / 'data'}"]
        argv += [f"-httpListenAddr=127.0.0.1:{self.port}", "-dedup.minScrapeInterval=1ms"]
        argv += ["-retentionPeriod=100y"]
        self._process = start_process(argv, self._folder / "victoria.log")

    def stop(self) -> None:
        if self._process is not None:
            stop_process(self._process)
            self._process = None

    def read(self, series: str) -> list[tuple[dict[str, str], list[float], list[int]]]:
        """Labels, values and milliseconds of each series that matches."""
        query = urllib.parse.urlencode({"match[]": series})
        for path in ("/internal/force_flush", "/internal/resetRollupResultCache"):
            with urllib.request.urlopen(self.url + path, timeout=5):
                pass
        address = f"{self.url}/api/v1/export?{query}&reduce_mem_usage=0"
        with urllib.request.urlopen(address, timeout=5) as answer:
            lines = [json.loads(line) for line in answer.read().splitlines()]
        return [(each["metric"], each["values"], each["timestamps"]) for each in lines]
