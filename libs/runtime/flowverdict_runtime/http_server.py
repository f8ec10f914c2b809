"""/healthz, /readyz and /metrics on one port."""

import contextlib
import json
import logging
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from errno import EAFNOSUPPORT
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socket import AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, SHUT_RDWR, socket
from typing import Any

from isal import igzip
from prometheus_client import REGISTRY, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from flowverdict_runtime.health import Health
from flowverdict_runtime.settings import Address, SettingsError

__all__ = ["serve"]

log = logging.getLogger(__name__)

_PATIENCE_SECONDS = 10.0
"""For a whole connection. A scrape of 40 MB takes less than a second."""
_MOST_CONNECTIONS = 64

disable_created_metrics()  # a second, useless series for each counter


@dataclass(slots=True)
class _Page:
    """/metrics as it was rendered last.

    Attributes:
        began: when, on the monotonic clock.
        kind: of which format, and whether packed.
    """

    began: float = float("-inf")
    kind: tuple[str, bool] = ("", False)
    body: bytes = b""


class _Metrics:
    """/metrics, rendered once for all who ask for it while it is being rendered."""

    def __init__(self, health: Health) -> None:
        self._health = health
        self._lock = threading.Lock()
        self._page = _Page()

    def page(self, encode: Callable[..., bytes], content_type: str, packed: bool) -> bytes:
        """The page as of now or later."""
        asked, kind = time.monotonic(), (content_type, packed)
        with self._lock:
            if self._page.began < asked or self._page.kind != kind:
                began = time.monotonic()
                self._page = _Page(began, kind, self._render(encode, content_type, packed))
            return self._page.body

    def _render(self, encode: Callable[..., bytes], content_type: str, packed: bool) -> bytes:
        openmetrics = content_type.startswith("application/openmetrics-text")
        own, end = encode(REGISTRY), b"# EOF\n" if openmetrics else b""
        body = own.removesuffix(end) + self._health.more_metrics(openmetrics).encode() + end
        return igzip.compress(body, compresslevel=0) if packed else body


class _Handler(BaseHTTPRequestHandler):
    server_version = "flowverdict"
    sys_version = ""
    timeout = _PATIENCE_SECONDS
    health: Health
    metrics: _Metrics
    server: "_Server"

    def parse_request(self) -> bool:
        is_request = super().parse_request()
        self.server.has_request(self.connection)
        return is_request

    def do_GET(self) -> None:
        path = self.path.split("?", 1)[0]
        if path == "/healthz":
            alive = self.health.alive()
            self._answer(200 if alive else 503, {"alive": alive})
        elif path == "/readyz":
            reasons = self.health.reasons()
            self._answer(503 if reasons else 200, {"ready": not reasons, "waiting": reasons})
        elif path == "/metrics":
            self._metrics()
        else:
            self._answer(404, {"error": "not found: try /healthz, /readyz or /metrics"})

    do_HEAD = do_GET  # noqa: N815 # http.server's name

    def _metrics(self) -> None:
        try:
            encode, content_type = choose_encoder(self.headers.get("Accept", ""))
        except ValueError:  # a malformed Accept header
            encode, content_type = choose_encoder("")
        packed = _accepts_gzip(self.headers.get("Accept-Encoding", ""))
        try:
            body = self.metrics.page(encode, content_type, packed)
        except Exception:
            log.exception("cannot generate the metrics")
            self._answer(500, {"error": "cannot generate the metrics; see the log"})
            return
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if packed:
            headers["Content-Encoding"] = "gzip"
        self._send(200, body, headers)

    def _answer(self, status: int, body: object) -> None:
        encoded = json.dumps(body).encode() + b"\n"
        self._send(status, encoded, {"Content-Type": "application/json"})

    def _send(self, status: int, body: bytes, headers: Mapping[str, str]) -> None:
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        log.debug("http: " + format, *args)


def _accepts_gzip(accept_encoding: str) -> bool:
    """Whether a header lists gzip with a weight other than 0 (RFC 9110, 12.5.3)."""
    for part in accept_encoding.lower().split(","):
        name, *parameters = (each.strip() for each in part.split(";"))
        if name == "gzip":
            return not any(each.startswith("q=0") and not each.strip("q=0.") for each in parameters)
    return False


class _Server(ThreadingHTTPServer):
    """Handles a limited number of connections at a time.

    If there are more, the one that has taken longest to send its request is closed, so that a
    flood of slow ones keeps nobody else waiting. One that takes too long as a whole is closed, too.
    """

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, *arguments: Any) -> None:
        self._open: OrderedDict[socket, float] = OrderedDict()
        self._slow: OrderedDict[socket, None] = OrderedDict()  # those without a whole request
        self._lock = threading.Lock()
        super().__init__(*arguments)

    def process_request(self, request: Any, client_address: Any) -> None:
        with self._lock:
            while len(self._open) >= _MOST_CONNECTIONS:
                self._close(next(iter(self._slow or self._open)))
            self._open[request] = time.monotonic()
            self._slow[request] = None
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._open.pop(request, None)
            self._slow.pop(request, None)
        super().shutdown_request(request)

    def has_request(self, connection: Any) -> None:
        """A whole request has come over this connection."""
        with self._lock:
            self._slow.pop(connection, None)

    def service_actions(self) -> None:
        """Called twice a second."""
        oldest = time.monotonic() - _PATIENCE_SECONDS
        with self._lock:
            for connection in [each for each, began in self._open.items() if began < oldest]:
                self._close(connection)

    def _close(self, connection: socket) -> None:
        self._open.pop(connection, None)
        self._slow.pop(connection, None)
        with contextlib.suppress(OSError):
            connection.shutdown(SHUT_RDWR)  # its thread notices

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        log.debug("http: %s disconnected", client_address, exc_info=True)


class _Server6(_Server):
    address_family = AF_INET6

    def server_bind(self) -> None:
        if self.server_address[0] == "::":  # all addresses, including IPv4
            self.socket.setsockopt(IPPROTO_IPV6, IPV6_V6ONLY, 0)
        super().server_bind()


def _bound_server(listen: Address, handler: type[_Handler]) -> _Server:
    if ":" not in listen.host:
        return _Server((listen.host, listen.port), handler)
    try:
        return _Server6((listen.host, listen.port), handler)
    except OSError as error:
        if listen.host != "::" or error.errno != EAFNOSUPPORT:
            raise
        return _Server(("0.0.0.0", listen.port), handler)  # noqa: S104 # as requested, without IPv6


def serve(health: Health, listen: Address) -> Address:
    """Serve on `listen` from a thread until the process ends; returns the bound address.

    Raises:
        SettingsError: if the address cannot be bound.
    """
    handler = type("Handler", (_Handler,), {"health": health, "metrics": _Metrics(health)})
    try:
        running = _bound_server(listen, handler)
    except OSError as error:
        raise SettingsError(f"FLOWVERDICT_LISTEN is {listen}: {error.strerror}") from error
    threading.Thread(target=running.serve_forever, name="http", daemon=True).start()
    bound: socket = running.socket
    return Address(listen.host, bound.getsockname()[1])
