"""How long servers take to answer."""

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client

from conftest import Collector, NatsServer, eventually
from flowverdict_lab.live_support import why_not_live

REASON = why_not_live()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no eBPF: {REASON}")

DELAY = 0.15
Script = Callable[[socket.socket], None]


@contextlib.contextmanager
def server(serve: Script) -> Iterator[int]:
    """Serves each connection in this way; gives its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def accept() -> None:
            with contextlib.suppress(OSError):
                while True:
                    threading.Thread(target=served, args=(listener.accept()[0],)).start()

        def served(connection: socket.socket) -> None:
            with connection, contextlib.suppress(OSError):
                serve(connection)

        thread = threading.Thread(target=accept)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def answers_after(seconds: float) -> Script:
    def serve(connection: socket.socket) -> None:
        while connection.recv(1000):
            time.sleep(seconds)
            connection.sendall(b"answer")

    return serve


def asks(port: int, times: int, pause: float = 0.0) -> None:
    with socket.create_connection(("127.0.0.1", port)) as connection:
        for _ in range(times):
            connection.sendall(b"question")
            connection.recv(1000)
            time.sleep(pause)


@pytest.fixture
def collector(nats_server: NatsServer, tmp_path: Path) -> Iterator[Collector]:
    running = Collector(nats_server, tmp_path)
    yield running
    running.stop()


async def counted(collector: Collector, port: int, opens: int) -> tuple[int, float]:
    """Answers that the clients of a server got, and their mean time, once all have ended."""
    await eventually(lambda: collector.total(port, "client", "opens") == opens)
    seen = len(collector.headers)
    await eventually(lambda: len(collector.headers) > seen + 1)
    assert collector.total(port, "server", "answers") == 0, "only a client gets answers"
    answers = collector.total(port, "client", "answers")
    return answers, collector.total(port, "client", "answers_us") / 1e6 / max(answers, 1)


@pytest.mark.parametrize("pause", [0.0, 0.05])
async def test_each_late_answer_is_counted_with_its_time(
    collector: Collector, nats_client: Client, pause: float
) -> None:
    await collector.listen(nats_client)
    with server(answers_after(DELAY)) as port:
        for _ in range(3):
            asks(port, 4, pause)
        answers, mean = await counted(collector, port, 3)
    assert answers == 12
    assert DELAY - 0.02 < mean < DELAY + 0.1


async def test_answers_at_once_take_no_time(collector: Collector, nats_client: Client) -> None:
    await collector.listen(nats_client)
    with server(answers_after(0)) as port:
        asks(port, 50, 0.015)
        answers, mean = await counted(collector, port, 1)
    assert answers <= 50
    assert mean < 0.02


async def test_what_a_server_sends_unasked_is_no_answer(
    collector: Collector, nats_client: Client
) -> None:
    def serve(connection: socket.socket) -> None:
        while connection.recv(1000):
            connection.sendall(b"at once")
            for _ in range(3):
                time.sleep(0.3)
                connection.sendall(b"event")

    await collector.listen(nats_client)
    with server(serve) as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"subscribe")
            for _ in range(4):
                connection.recv(1000)
        answers, mean = await counted(collector, port, 1)
    assert answers <= 1
    assert mean < 0.02


async def test_the_end_of_an_idle_connection_is_no_answer(
    collector: Collector, nats_client: Client
) -> None:
    def serve(connection: socket.socket) -> None:
        connection.recv(1000)
        time.sleep(0.5)

    await collector.listen(nats_client)
    with server(serve) as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.sendall(b"question")
            assert connection.recv(1000) == b""
        answers, _ = await counted(collector, port, 1)
    assert answers == 0


async def test_a_server_that_speaks_first_has_not_been_asked(
    collector: Collector, nats_client: Client
) -> None:
    def serve(connection: socket.socket) -> None:
        time.sleep(0.3)
        connection.sendall(b"welcome")
        connection.recv(1000)

    await collector.listen(nats_client)
    with server(serve) as port:
        with socket.create_connection(("127.0.0.1", port)) as connection:
            connection.recv(1000)
        answers, _ = await counted(collector, port, 1)
    assert answers == 0
