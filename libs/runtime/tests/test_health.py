"""What a service says of itself over HTTP."""

import contextlib
import errno
import gzip
import json
import resource
import socket
import threading
import time
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor

import pytest

from flowverdict_runtime import http_server
from flowverdict_runtime.health import Health
from flowverdict_runtime.http_server import serve
from flowverdict_runtime.settings import Address, SettingsError


def get(where: Address, path: str, accept: str = "") -> tuple[int, str, str]:
    request = urllib.request.Request(f"http://{where}{path}", headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return answer.status, answer.read().decode(), answer.headers["Content-Type"]
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode(), error.headers["Content-Type"]


def test_a_service_that_waits_is_alive_but_not_ready_and_says_for_what() -> None:
    health = Health()
    health.ready("start")
    health.waiting("nats", "connecting")
    where = serve(health, Address("127.0.0.1", 0))
    assert get(where, "/healthz")[0] == 200
    status, body, _ = get(where, "/readyz")
    assert status == 503
    assert json.loads(body)["waiting"] == {"nats": "connecting"}
    health.ready("nats")
    assert get(where, "/readyz")[0] == 200


def test_metrics_come_as_text_or_openmetrics_as_asked() -> None:
    where = serve(Health(), Address("127.0.0.1", 0))
    assert "python_info" in get(where, "/metrics")[1]
    assert "openmetrics" in get(where, "/metrics", "application/openmetrics-text")[2]


def test_an_unknown_path_is_not_found() -> None:
    assert get(serve(Health(), Address("127.0.0.1", 0)), "/../etc/passwd")[0] == 404


def test_a_client_that_hangs_keeps_no_other_waiting() -> None:
    where = serve(Health(), Address("127.0.0.1", 0))
    with socket.create_connection((where.host, where.port)) as hanging:
        hanging.send(b"GET /hea")
        assert get(where, "/healthz")[0] == 200


def test_a_flood_of_connections_that_ask_for_nothing_keeps_nobody_waiting() -> None:
    where = serve(Health(), Address("127.0.0.1", 0))
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, 20_000), hard))
    threads = threading.active_count()
    try:
        with contextlib.ExitStack() as flood:
            for number in range(3000):
                opened = flood.enter_context(socket.create_connection((where.host, where.port)))
                with contextlib.suppress(OSError):  # it is closed already
                    opened.send(b"GET /hea")
                if number % 500 == 0:
                    assert get(where, "/healthz")[0] == 200
            assert get(where, "/healthz")[0] == 200
            assert threading.active_count() - threads < 200
        assert get(where, "/healthz")[0] == 200
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def test_a_request_that_trickles_is_closed_as_a_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "_PATIENCE_SECONDS", 1.0)
    where = serve(Health(), Address("127.0.0.1", 0))
    with socket.create_connection((where.host, where.port)) as trickling:
        trickling.settimeout(0.1)
        deadline = time.monotonic() + 30
        closed = False
        while not closed:
            assert time.monotonic() < deadline
            try:
                trickling.send(b"G")
                closed = trickling.recv(1) == b""
            except TimeoutError:
                continue
            except OSError:
                closed = True


def test_all_who_ask_for_metrics_meanwhile_share_a_page() -> None:
    health, go_on = Health(), threading.Event()
    rendered: list[None] = []

    def more(_: bool) -> str:
        rendered.append(None)
        go_on.wait(20)
        return f"page {len(rendered)}\n"

    health.more_metrics = more
    where = serve(health, Address("127.0.0.1", 0))
    with ThreadPoolExecutor(12) as scrapers:
        first = scrapers.submit(get, where, "/metrics")
        deadline = time.monotonic() + 20
        while not rendered:
            assert time.monotonic() < deadline
        others = [scrapers.submit(get, where, "/metrics") for _ in range(10)]
        while (
            sum(
                thread.name.endswith("(process_request_thread)") for thread in threading.enumerate()
            )
            < 11
        ):
            assert time.monotonic() < deadline
        go_on.set()
        assert first.result()[1].endswith("page 1\n")
        shared = {each.result()[1].splitlines()[-1] for each in others}
    # One that asks once the second page is begun gets a third.
    assert shared <= {"page 2", "page 3"}
    assert len(rendered) <= 3


def test_every_address_is_those_of_ipv4_and_of_ipv6() -> None:
    where = serve(Health(), Address("::", 0))
    for host in ("127.0.0.1", "::1"):
        assert get(Address(host, where.port), "/healthz")[0] == 200


def test_without_ipv6_every_address_is_those_of_ipv4(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.socket

    class WithoutIpv6(real):  # type: ignore[misc, valid-type]
        def __init__(self, family: int = -1, *arguments: int, **more: object) -> None:
            if family == socket.AF_INET6:
                raise OSError(errno.EAFNOSUPPORT, "no IPv6")
            super().__init__(family, *arguments, **more)

    monkeypatch.setattr(socket, "socket", WithoutIpv6)
    where = serve(Health(), Address("::", 0))
    monkeypatch.undo()
    assert get(Address("127.0.0.1", where.port), "/healthz")[0] == 200


def test_a_port_that_is_taken_is_a_clear_error() -> None:
    where = serve(Health(), Address("127.0.0.1", 0))
    with pytest.raises(
        SettingsError, match=f"FLOWVERDICT_LISTEN is {where}: Address already in use"
    ):
        serve(Health(), where)


@pytest.mark.parametrize(
    ("accept_encoding", "packed"),
    [("gzip", True), ("deflate, gzip;q=0.5", True), ("gzip;q=0", False), ("gzip;q=0.0", False),
     ("identity", False), ("", False)],
)  # fmt: skip
def test_metrics_are_packed_only_for_who_takes_gzip(accept_encoding: str, packed: bool) -> None:
    health = Health()
    health.more_metrics = lambda _: 'more{label="ä"} 1\n'
    where = serve(health, Address("127.0.0.1", 0))
    request = urllib.request.Request(
        f"http://{where}/metrics", headers={"Accept-Encoding": accept_encoding}
    )
    with urllib.request.urlopen(request, timeout=5) as answer:
        body, encoding = answer.read(), answer.headers["Content-Encoding"]
    assert encoding == ("gzip" if packed else None)
    text = (gzip.decompress(body) if packed else body).decode()
    assert text.endswith('more{label="ä"} 1\n')


def test_a_services_own_lines_stand_before_the_end_of_openmetrics() -> None:
    health = Health()
    health.more_metrics = lambda openmetrics: f"more {int(openmetrics)}\n"
    where = serve(health, Address("127.0.0.1", 0))
    body = get(where, "/metrics", "application/openmetrics-text")[1]
    assert body.endswith("more 1\n# EOF\n")
