"""What a service says of itself over HTTP."""

import errno
import gzip
import json
import socket
import urllib.error
import urllib.request

import pytest

from flowverdict_runtime.health import Health, serve
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
