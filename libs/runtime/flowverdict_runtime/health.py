"""/healthz, /readyz and /metrics on one port."""

import json
import logging
import threading
import time
from collections.abc import Callable, Mapping
from errno import EAFNOSUPPORT
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from logging import INFO, WARNING
from socket import AF_INET6, IPPROTO_IPV6, IPV6_V6ONLY, socket
from typing import Any

from isal import igzip
from prometheus_client import REGISTRY, disable_created_metrics
from prometheus_client.exposition import choose_encoder

from flowverdict_runtime.settings import Address, SettingsError

__all__ = ["Health", "serve"]

log = logging.getLogger(__name__)

_STUCK_SECONDS = 60.0

disable_created_metrics()  # a second, useless series for each counter


class Health:
    """What keeps a service from being ready, and whether its event loop is still running.

    Attributes:
        more_metrics: returns further lines of /metrics, for a service with so many series that it
            writes them itself; called with True for OpenMetrics, False for Prometheus' text format.
    """

    def __init__(self) -> None:
        self.more_metrics: Callable[[bool], str] = lambda _: ""
        self._waiting: dict[str, str] = {"start": "starting"}
        self._was_ready: set[str] = set()
        self._beat = time.monotonic()

    def ready(self, part: str) -> None:
        """`part` is working."""
        self._was_ready.add(part)
        if self._waiting.pop(part, None) is not None:
            log.info("ready: %s", part)

    def waiting(self, part: str, why: str) -> None:
        """`part` cannot work now, and `why`; logged if the reason is new."""
        if self._waiting.get(part) != why:
            # Waiting is normal at startup; later it means that something has failed.
            log.log(WARNING if part in self._was_ready else INFO, "waiting: %s: %s", part, why)
        self._waiting[part] = why

    def beat(self) -> None:
        """The event loop is alive."""
        self._beat = time.monotonic()

    def reasons(self) -> dict[str, str]:
        """The reason for each part that keeps the service from being ready."""
        return dict(self._waiting)

    def alive(self) -> bool:
        """False if the event loop has been blocked for a minute."""
        return time.monotonic() - self._beat < _STUCK_SECONDS


class _Handler(BaseHTTPRequestHandler):
    server_version = "flowverdict"
    sys_version = ""
    timeout = 10
    health: Health

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
        openmetrics = content_type.startswith("application/openmetrics-text")
        try:
            own, end = encode(REGISTRY), b"# EOF\n" if openmetrics else b""
        except Exception:
            log.exception("cannot generate the metrics")
            self._answer(500, {"error": "cannot generate the metrics; see the log"})
            return
        body = own.removesuffix(end) + self.health.more_metrics(openmetrics).encode() + end
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if _accepts_gzip(self.headers.get("Accept-Encoding", "")):
            body, headers["Content-Encoding"] = igzip.compress(body, compresslevel=0), "gzip"
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
    daemon_threads = True

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
    handler = type("Handler", (_Handler,), {"health": health})
    try:
        running = _bound_server(listen, handler)
    except OSError as error:
        raise SettingsError(f"FLOWVERDICT_LISTEN is {listen}: {error.strerror}") from error
    threading.Thread(target=running.serve_forever, name="http", daemon=True).start()
    bound: socket = running.socket
    return Address(listen.host, bound.getsockname()[1])
