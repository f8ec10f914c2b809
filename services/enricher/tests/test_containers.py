"""Names from a Docker engine, played by an HTTP server that comes and goes."""

import asyncio
import contextlib
import json
import queue
import time
from collections.abc import AsyncIterator, Iterator
from http.server import BaseHTTPRequestHandler
from typing import Any

import pytest

from conftest import eventually
from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.enriched import Names
from flowverdict_enricher import containers
from flowverdict_enricher.directory import Directory
from flowverdict_runtime.context import Context
from tests.stand_ins.listening import Listening

END = object()


class Engine(Listening):
    """What of Docker's API the enricher reads; `events` are sent to who listens."""

    def __init__(self) -> None:
        super().__init__(Handler)
        self.containers: list[dict[str, Any]] = []
        self.events: queue.Queue[Any] = queue.Queue()
        self.refuse = 0
        self.lists = 0

    @property
    def docker_url(self) -> str:
        return f"tcp://127.0.0.1:{self.port}"

    def run(self, name: str, ip: str, ipv6: str = "", **labels: str) -> None:
        network = {"IPAddress": ip, "GlobalIPv6Address": ipv6}
        self.containers.append(
            {
                "Id": f"id-{name}",
                "Names": [f"/other/{name}-link", f"/{name}"],
                "Created": 1_700_000_000,
                "Labels": {f"com.docker.compose.{key}": value for key, value in labels.items()},
                "NetworkSettings": {"Networks": {"app": network, "none": {"IPAddress": ""}}},
            }
        )

    def tell(self, action: str, at: float) -> None:
        self.events.put({"Type": "container", "Action": action, "timeNano": int(at * 1e9)})


NETWORKS = [
    {"Name": "app", "IPAM": {"Config": [{"Subnet": "172.18.0.0/16", "Gateway": "172.18.0.1"}]}},
    {"Name": "v6", "IPAM": {"Config": [{"Gateway": "fd00::1/64"}, {"Subnet": "fd01::/64"}]}},
    {"Name": "none", "IPAM": {"Config": None}},
]


class Handler(BaseHTTPRequestHandler):
    stand_in: Engine
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        path = self.path.split("?")[0]
        answers: dict[str, Any] = {
            "version": {"ApiVersion": "1.44", "Version": "25.0"},
            "info": {"Name": "host7"},
            "networks": NETWORKS,
            "json": self.stand_in.containers,
        }
        if self.stand_in.refuse:
            self._json(self.stand_in.refuse, {"message": "not now"})
        elif path.endswith("/events"):
            self._events()
        else:
            self.stand_in.lists += path.endswith("/containers/json")
            self._json(200, answers[path.rsplit("/", 1)[1]])

    def _json(self, status: int, content: object) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _events(self) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        while (event := self.stand_in.events.get()) is not END:
            line = event if isinstance(event, bytes) else json.dumps(event).encode() + b"\n"
            self.wfile.write(b"%x\r\n%b\r\n" % (len(line), line))
            self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def engine(monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    monkeypatch.setattr(containers, "FIRST_PAUSE_SECONDS", 0.01)
    stand_in = Engine()
    stand_in.start()
    yield stand_in
    stand_in.events.put(END)
    stand_in.stop()


@contextlib.asynccontextmanager
async def following(engine: Engine) -> AsyncIterator[tuple[Directory, Context]]:
    directory, context = Directory(), Context()
    context.health.ready("start")
    context.health.waiting("names", "reading")
    task = asyncio.create_task(containers.follow(engine.docker_url, directory, context))
    try:
        yield directory, context
    finally:
        context.stopping.set()
        engine.events.put(END)
        await task


def at(directory: Directory, address: str, seconds: float | None = None) -> Names:
    moment = int((time.time() if seconds is None else seconds) * 1e9)
    return directory.at(to_bytes(address), moment, moment + 1)


async def test_a_container_has_its_name_project_and_service_and_a_gateway_is_the_host(
    engine: Engine,
) -> None:
    engine.run("shop-web-1", "172.18.0.2", "fd00::2", project="shop", service="web")
    engine.run("alone", "172.18.0.3")
    async with following(engine) as (directory, context):
        await eventually(lambda: not context.health.reasons())
        web = Names("pod", "shop", "shop-web-1", "web", "ComposeService", "host7")
        assert at(directory, "172.18.0.2") == at(directory, "fd00::2") == web
        assert at(directory, "172.18.0.3") == Names("pod", "docker", "alone", node="host7")
        assert at(directory, "172.18.0.1") == at(directory, "fd00::1")
        assert at(directory, "fd00::1") == Names("node", node="host7")
        assert at(directory, "172.18.0.9").kind == "unknown"


@pytest.mark.parametrize(
    "odd",
    [
        {"Names": None},
        {"Names": []},
        {"Id": 7},
        {"Labels": {"com.docker.compose.project": {"a": 1}}},
        {"Created": "x"},
        {"Created": -1},
        {"Created": 1 << 60},
        {"NetworkSettings": None},
        {"NetworkSettings": {"Networks": None}},
    ],
)
async def test_one_odd_container_keeps_no_other_from_its_name(
    engine: Engine, odd: dict[str, Any]
) -> None:
    engine.run("odd", "172.18.0.2")
    engine.containers[-1] |= odd
    engine.run("fine", "172.18.0.3")
    async with following(engine) as (directory, context):
        await eventually(lambda: not context.health.reasons())
        assert at(directory, "172.18.0.3").pod == "fine"


async def test_an_address_goes_to_the_next_container_at_the_moment_of_its_start(
    engine: Engine,
) -> None:
    engine.run("old", "172.18.0.2")
    async with following(engine) as (directory, context):
        await eventually(lambda: not context.health.reasons())
        before, change = time.time(), time.time() + 100
        engine.tell("exec_start: /healthcheck", before)  # of no interest
        engine.containers.clear()
        engine.run("new", "172.18.0.2")
        engine.tell("start", change)
        await eventually(lambda: at(directory, "172.18.0.2", change + 1).pod == "new")
        assert at(directory, "172.18.0.2", before).pod == "old"
        assert engine.lists == 2


@pytest.mark.parametrize("noise", [b"", b"{broken\n", b'"text"\n', b"[1]\n", b"\xff\n"])
async def test_an_engine_that_goes_and_comes_back_is_read_anew(
    engine: Engine, noise: bytes
) -> None:
    engine.run("one", "172.18.0.2")
    async with following(engine) as (directory, context):
        await eventually(lambda: not context.health.reasons())
        engine.refuse = 503
        engine.events.put(noise or END)
        engine.events.put(END)
        reasons = await eventually(context.health.reasons)
        assert reasons["names"].startswith(f"Docker at {engine.docker_url}: ")
        engine.containers.clear()
        engine.run("two", "172.18.0.3")
        engine.refuse = 0
        await eventually(lambda: not context.health.reasons())
        await eventually(lambda: at(directory, "172.18.0.3").pod == "two")


def test_check_says_what_it_found(engine: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    engine.run("one", "172.18.0.2")
    assert containers.check(engine.docker_url) == 0
    assert capsys.readouterr().out.startswith("ok ")
    engine.stop()
    assert containers.check(engine.docker_url) == 1
    assert "check FLOWVERDICT_DOCKER_URL" in capsys.readouterr().out
