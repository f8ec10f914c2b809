"""What runs in a pod: an HTTP server, and calls to the other pods.

    pod.py PORT [PEER...]

With peers, it calls each ten times a second until it is stopped. Without, it reads commands as JSON
lines from standard input: `{"peers": [addresses], "requests_per_second": 10}`, where the rate is
per peer, or `{"server": {…}}` with what is to be slow: `reads_after_seconds`, with `receive_bytes`
of room for what has not been read, and `answers_after_seconds`; or with the share of requests at
which it `resets` the connection. It exits at the end of the input.
"""

import http.client
import json
import random
import signal
import socket
import struct
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

_REQUEST = b"q" * 8 * 1024
_ANSWER = b"a" * 16 * 1024
_REQUESTS_PER_CONNECTION = 5
_CONNECTIONS_PER_PEER = 3
_REQUESTS_PER_SECOND = 10.0
_TIMEOUT_SECONDS = 3
_USUAL_ROOM = 1 << 17
_RESET = struct.pack("ii", 1, 0)
"""Linger for no time: close() resets the connection (socket(7))."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 10

    def do_POST(self) -> None:
        order = self.server.order  # type: ignore[attr-defined]
        time.sleep(order.get("reads_after_seconds", 0))
        self.rfile.read(int(self.headers["Content-Length"]))
        time.sleep(order.get("answers_after_seconds", 0))
        if random.random() < order.get("resets", 0):  # no secret
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            self.connection.close()
            self.close_connection = True  # what still has the socket open ends, too
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(_ANSWER)))
        self.end_headers()
        self.wfile.write(_ANSWER)

    def log_message(self, format: str, *args: Any) -> None:
        pass


class _Server(ThreadingHTTPServer):
    address_family = socket.AF_INET6  # accepts IPv4 as well
    daemon_threads = True
    request_queue_size = 256
    order: dict[str, Any] = {}  # noqa: RUF012 # replaced, never changed

    def obey(self, order: dict[str, Any]) -> None:
        """Behave so; the room for what is not read is that of new connections."""
        self.order = order
        room = order.get("receive_bytes", _USUAL_ROOM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        print(f"connection from {client_address[0]}: {sys.exc_info()[1]}", flush=True)


def _call(peer: str, port: int, pause: float, stop: threading.Event) -> None:
    """A few requests over one connection, like a client with a connection pool."""
    connection = http.client.HTTPConnection(peer, port, timeout=_TIMEOUT_SECONDS)
    try:
        for _ in range(_REQUESTS_PER_CONNECTION):
            began = time.monotonic()
            connection.request("POST", "/", body=_REQUEST)
            connection.getresponse().read()
            if stop.wait(max(0.0, began + pause - time.monotonic())):
                return
    finally:
        connection.close()


def _keep_calling(peer: str, port: int, pause: float, stop: threading.Event) -> None:
    while not stop.is_set():
        try:
            _call(peer, port, pause, stop)
        except (OSError, http.client.HTTPException) as error:
            print(f"call to {peer}: {error!r}", flush=True)
            stop.wait(pause)


def _start_calls(peers: list[str], port: int, rate: float, stop: threading.Event) -> None:
    for peer in peers * _CONNECTIONS_PER_PEER:
        arguments = (peer, port, _CONNECTIONS_PER_PEER / rate, stop)
        threading.Thread(target=_keep_calling, args=arguments, daemon=True).start()


def main() -> None:
    """Serve, and obey commands until the input ends."""
    port = int(sys.argv[1])
    server = _Server(("::", port), _Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print("serving", flush=True)
    stop = threading.Event()
    if sys.argv[2:]:
        signal.signal(signal.SIGTERM, lambda *_: stop.set())
        _start_calls(sys.argv[2:], port, _REQUESTS_PER_SECOND, stop)
        stop.wait()
        return
    for line in sys.stdin:
        order = json.loads(line)
        if "server" in order:
            server.obey(order["server"])
            continue
        stop.set()
        stop = threading.Event()
        _start_calls(order["peers"], port, order["requests_per_second"], stop)


if __name__ == "__main__":
    main()
