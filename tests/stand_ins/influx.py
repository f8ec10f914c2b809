"""InfluxDB 2 for tests, with faults that the real one cannot be made to have."""

import json
import re
from collections import deque
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.stand_ins.listening import Listening

__all__ = ["InfluxStandIn"]


class InfluxStandIn(Listening):
    """The part of InfluxDB's HTTP API that the influx-writer uses, on a fixed port.

    A repeated point overwrites itself. `answers` are sent to the next writes instead of 204: a
    status, with headers. `refuse` is a pattern for malformed lines, `most_bytes` the size limit of
    a request.
    """

    def __init__(self) -> None:
        super().__init__(_Handler)
        self.token = "secret"
        self.points: dict[tuple[str, str], str] = {}
        self.answers: deque[tuple[int, dict[str, str]]] = deque()
        self.refuse = ""
        self.most_bytes = 50_000_000
        self.writes = 0

    def write(self, body: str) -> tuple[int, str]:
        self.writes += 1
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

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers["Authorization"] != f"Token {self.stand_in.token}":
            self._answer(401, {"code": "unauthorized", "message": "unauthorized access"})
            return
        if self.stand_in.answers:
            status, headers = self.stand_in.answers.popleft()
            self._answer(status, {"code": "error", "message": f"status {status}"}, headers)
            return
        status, why = self.stand_in.write(body.decode())
        self._answer(status, {"code": "error", "message": why})

    def log_message(self, format: str, *args: Any) -> None:
        pass
