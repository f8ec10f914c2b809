"""The base of stand-ins for HTTP services: a fixed port, start and stop."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from flowverdict_lab.free_port import free_port

__all__ = ["Listening"]


class Listening:
    """Answers on a port of 127.0.0.1 between `start` and `stop`, which may be called repeatedly.

    Args:
        handler: the class that answers; it finds the stand-in as its `stand_in`.
    """

    def __init__(self, handler: type[BaseHTTPRequestHandler]) -> None:
        self.port = free_port()
        self._handler = type("Handler", (handler,), {"stand_in": self})
        self._server: ThreadingHTTPServer | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self._server = ThreadingHTTPServer(("127.0.0.1", self.port), self._handler)
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self._server is not None:
            self._server.shutdown()
            self._server.server_close()
            self._server = None
