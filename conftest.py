"""Shared by the tests of several parts: a real NATS server, raw records, deadlines."""

import asyncio
import contextlib
import importlib.util
import json
import os
import shutil
import sys
import time
import urllib.request
from collections import Counter
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Coroutine,
    Iterable,
    Iterator,
    Mapping,
    Sequence,
)
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import nats
import numpy as np
import pyarrow as pa
import pytest
from hypothesis import settings
from nats.aio.client import Client

from flowverdict_contracts import raw, raw_records, verdicts
from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.enriched import ARROW_SCHEMA
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.raw_records import RECORD
from flowverdict_contracts.timestamps import to_rfc3339
from flowverdict_lab.cluster import make_cluster
from flowverdict_lab.free_port import free_port
from flowverdict_lab.network import Network
from flowverdict_lab.pipeline import Pipeline, start_process, stop_process
from flowverdict_rca.panes import Panes
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import Window
from flowverdict_runtime.context import Context

settings.register_profile("any machine", deadline=None)  # timing never decides a test
settings.load_profile("any machine")

SECOND = 1_000_000_000
SLOWER = float(os.environ.get("FLOWVERDICT_TESTS_SLOWER", "1"))
"""How much slower this machine is than most, for deadlines: script/kernels emulates a processor."""
COLLECTOR = str(Path(sys.executable).with_name("flowverdict-collector"))
ENRICHER = str(Path(sys.executable).with_name("flowverdict-enricher"))


# Commands that come from PyPI, such as kubectl, unless the machine has its own.
os.environ["PATH"] = f"{os.environ['PATH']}{os.pathsep}{Path(sys.executable).parent}"


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What was skipped, in one line for each reason."""
    reasons: Counter[str] = Counter()
    for each in terminalreporter.stats.get("skipped", ()):
        reason = each.longrepr[2] if isinstance(each.longrepr, tuple) else str(each.longrepr)
        reasons[reason.removeprefix("Skipped: ")] += 1
    for reason, count in reasons.most_common():
        terminalreporter.write_line(f"skipped {count}: {reason}")


NATS_THAT_TELLS = """
server_name: nats-0
accounts {
  "$SYS" { exports: [{ service: "$SYS.REQ.SERVER.PING.STATSZ", response_type: stream }] }
  EVERYBODY {
    jetstream: enabled
    imports: [{ service: { account: "$SYS", subject: "$SYS.REQ.SERVER.PING.STATSZ" } }]
    users: [{ user: somebody, password: somebody }]
  }
}
no_auth_user: somebody
"""
"""Configuration of a NATS server that tells whoever asks how it is."""


class NatsServer:
    """A nats-server with JetStream, for one test."""

    def __init__(self, folder: Path, *arguments: str) -> None:
        self._folder = folder
        self._arguments = arguments
        self._port = free_port()
        self._process: Any = None

    @property
    def url(self) -> str:
        return f"nats://127.0.0.1:{self._port}"

    def start(self) -> None:
        server = str(Path(sys.executable).with_name("nats-server"))
        argv = [server, "-js", "-a", "127.0.0.1", "-p", str(self._port)]
        argv += ["-sd", str(self._folder / "data"), *self._arguments]
        self._process = start_process(argv, self._folder / "nats.log")

    def stop(self) -> None:
        stop_process(self._process)

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()

    def forget(self) -> None:
        """Lose all data, as a server without a volume does."""
        shutil.rmtree(self._folder / "data")


@pytest.fixture
def network(tmp_path: Path) -> Iterator[Network]:
    """Four pods on two nodes, in network namespaces of their own."""
    logs = tmp_path / "logs"
    logs.mkdir()
    with Network(make_cluster(4, 2), logs) as built:
        yield built


@pytest.fixture
def lab(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[Network, Pipeline]]:
    """The lab without traffic, and the pipeline watching it, with settings if it gets any."""
    cluster = make_cluster(4, 2)
    (tmp_path / "logs").mkdir()
    with (
        Network(cluster, tmp_path / "logs") as network,
        Pipeline(
            tmp_path,
            cluster.inventory(),
            namespaces=network.namespaces(),
            environ=getattr(request, "param", None),
        ) as pipeline,
    ):
        yield network, pipeline


class Collector:
    """A collector process and what it has published."""

    def __init__(
        self,
        server: NatsServer,
        folder: Path,
        command: Sequence[str] = (COLLECTOR,),
        **environ: str,
    ) -> None:
        self.log = folder / "collector.log"
        settings = {
            "FLOWVERDICT_NATS_URL": server.url,
            "FLOWVERDICT_NODE": "test",
            "FLOWVERDICT_LISTEN": "127.0.0.1:0",
            # Elsewhere on this kernel, the same ports may be in use.
            "FLOWVERDICT_NETWORK_NAMESPACES": str(Path("/proc/self/ns/net").stat().st_ino),
            **environ,
        }
        self.process = start_process(list(command), self.log, settings)
        self.records: list[np.void] = []
        self.dns_names: list[str] = []  # of each record
        self.owners: list[str] = []  # likewise
        self.headers: list[IntervalHeader] = []

    async def listen(self, client: Client) -> None:
        async def heard(message: object) -> None:
            read = raw_records.read(message.headers, message.data)  # type: ignore[attr-defined]
            self.headers.append(read.header)
            self.records += list(read.records)
            self.dns_names += [read.names.get(int(each["dns_name"]), "") for each in read.records]
            self.owners += [read.owners.get(int(each["owner"]), "") for each in read.records]

        await client.subscribe("flows.raw.test", cb=heard)
        await client.flush()
        await eventually(lambda: self.headers)

    def metrics(self) -> str:
        return answer_of(self.log, "/metrics")

    def of_port(self, port: int) -> list[np.void]:
        return [each for each in self.records if port in (each["src_port"], each["dst_port"])]

    def total(self, port: int, role: str, field: str) -> int:
        """The sum of a field at one end of the connections with that port."""
        number = raw.ROLES.index(role)
        return sum(int(each[field]) for each in self.of_port(port) if each["role"] == number)

    def stop(self) -> None:
        stop_process(self.process)


@pytest.fixture
def nats_server(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[NatsServer]:
    """Configured by the text that a test may give as the fixture's parameter."""
    folder = tmp_path / "nats"
    folder.mkdir()
    (folder / "nats.conf").write_text(getattr(request, "param", ""))
    server = NatsServer(folder, "-c", str(folder / "nats.conf"))
    server.start()
    yield server
    server.stop()


async def connected_to(server: NatsServer) -> Client:
    """A client that connects again whenever the server is back, without a word."""

    async def quiet(_: Exception) -> None:
        pass

    return await nats.connect(
        server.url, max_reconnect_attempts=-1, reconnect_time_wait=0.1, error_cb=quiet
    )


@pytest.fixture
async def nats_client(nats_server: NatsServer) -> AsyncIterator[Client]:
    client = await connected_to(nats_server)
    yield client
    await client.close()


@dataclass(frozen=True)
class Flow:
    """The values of a raw record."""

    src: str
    dst: str
    segments_sent: int = 100
    retransmitted_segments: int = 0
    retransmitted_syns: int = 0
    retransmitted_synacks: int = 0
    src_port: int = 40000
    dst_port: int = 8080
    bytes_sent: int = 0
    opens: int = 0
    failed_opens: int = 0
    rtt_us: int = 500
    role: int = 1


@pytest.fixture
def raw_body() -> Callable[..., bytes]:
    """Packs `Flow`s as they are stored in the kernel map."""

    def pack(*flows: Flow) -> bytes:
        records = np.zeros(len(flows), RECORD)
        for record, flow in zip(records, flows, strict=True):
            for name in Flow.__dataclass_fields__:
                value = getattr(flow, name)
                if name in ("src", "dst"):
                    value = np.void(to_bytes(value))
                record[name] = value
            handshake = flow.retransmitted_syns + flow.retransmitted_synacks
            record["retransmitted_data_segments"] = flow.retransmitted_segments - handshake
        return records.tobytes()

    return pack


def enriched_batch(*rows: dict[str, Any]) -> pa.RecordBatch:
    """An enriched batch of partial rows; missing fields are empty or 0."""
    columns = []
    for field in ARROW_SCHEMA:
        if pa.types.is_dictionary(field.type):
            values = pa.array([row.get(field.name, "") for row in rows], pa.string())
            columns.append(values.dictionary_encode())
        else:
            columns.append(pa.array([row.get(field.name, 0) for row in rows], field.type))
    return pa.RecordBatch.from_arrays(columns, schema=ARROW_SCHEMA)


def flow_row(src: str, dst: str, **numbers: int) -> dict[str, Any]:
    """A row between two pods named like `pod-a@worker0`, with addresses made from the names.

    Retransmitted segments are data, except for the given SYNs and SYN-ACKs.
    """
    row: dict[str, Any] = {"role": "client", "data_segments_sent": 100, **numbers}
    handshake = row.get("retransmitted_syns", 0) + row.get("retransmitted_synacks", 0)
    row["retransmitted_data_segments"] = max(0, row.get("retransmitted_segments", 0) - handshake)
    for end, name in (("src", src), ("dst", dst)):
        pod, _, node = name.partition("@")
        row |= {
            f"{end}_ip": f"10.0.0.{sum(map(ord, pod)) % 250}",
            f"{end}_kind": "pod",
            f"{end}_namespace": "default",
            f"{end}_pod": pod,
            f"{end}_node": node,
            f"{end}_name_confidence": "certain",
        }
    return row


def window_of(
    *panes: list[dict[str, Any]], settings: RcaSettings, second: int = 1_000_000
) -> Window:
    """The window whose panes, newest first, are these rows; its newest pane starts at `second`."""
    all_panes = Panes(settings)
    length = int(settings.pane_seconds)
    for number, rows in enumerate(reversed(panes)):
        start = second - length * (len(panes) - 1 - number)
        sent = IntervalHeader("n1", "run", number + 1, start * SECOND, (start + length) * SECOND)
        all_panes.add(sent, enriched_batch(*rows), number + 1)
    after = IntervalHeader(
        "n1", "run", 99, (second + length) * SECOND, (second + length + 1) * SECOND
    )
    all_panes.add(after, enriched_batch(), 99)
    return list(all_panes.windows())[-1]


def restarted(
    panes: Panes,
    settings: RcaSettings,
    messages: Iterable[tuple[int, IntervalHeader, pa.RecordBatch]],
) -> Panes:
    """Those of the worker after this one, which reads again what it must of the messages."""
    found = Panes(
        settings, panes.watermark_ns, panes.last_sequence, panes.too_late,
        heard=panes.heard, gaps=panes.gaps,
    )  # fmt: skip
    for sequence, header, batch in messages:
        if sequence >= panes.resume_from:
            found.add(header, batch, sequence)
    return found


def a_cause(
    kind: str = "pod",
    name: str = "default/pod-a",
    *,
    node: str = "worker0",
    direction: str = "both",
) -> verdicts.Cause:
    """A cause that explains nearly everything."""
    ends = []
    for each in name.split(" <-> "):
        namespace, _, own = each.rpartition("/")
        end_kind = {
            "link": "pod" if namespace else "node",
            "node_link": "node",
            "workload_link": "workload",
        }.get(kind, kind)
        ends.append({"kind": end_kind, "namespace": namespace, "name": own})
    plain = {
        "kind": kind, "name": name, "ends": ends, "node": node, "addresses": ["10.244.0.2"],
        "direction": direction, "score": 0.9, "precision": 1.0, "explains": 0.8, "p_value": 0.001,
    }  # fmt: skip
    return msgspec.convert(plain, verdicts.Cause)


def a_verdict(
    *,
    incident_id: str = "c1",
    status: str = "opened",
    causes: tuple[verdicts.Cause, ...] | None = None,
    second: int = 1_000_000,
    cluster: str = "",
) -> verdicts.Verdict:
    """A verdict on the ten seconds that end at `second`."""
    causes = (a_cause(),) if causes is None else causes
    plain = {
        "id": f"{incident_id}/{second}",
        "incident_id": incident_id,
        "cluster": cluster,
        "status": status,
        "opened_at": to_rfc3339(second * SECOND),
        "window": {
            "start": to_rfc3339((second - 10) * SECOND),
            "end": to_rfc3339(second * SECOND),
        },
        "summary": f"{causes[0]} is to blame" if causes else "not enough evidence",
        "enough_evidence": bool(causes),
        "causes": causes,
        "rules": (),
        "conditions": ("HIGH_RETRANSMISSION_RATIO",),
        "severity": "critical" if causes else "warning",
        "fail_ratio": 0.05,
        "flows": {"failing": 6, "ok": 6, "undecided": 0},
        "failing_flows": (),
        "coverage": {
            "nodes_reporting": ("worker0",), "nodes_silent": (), "nodes_late": (),
            "lost_flow_updates": 0, "lost_sockets": 0, "rows_late": 0,
        },
    }  # fmt: skip
    return msgspec.convert(plain, verdicts.Verdict)


def header(second: float = 1_000_000, sequence: int = 1, node: str = "n1") -> IntervalHeader:
    """The header of a one-second interval."""
    start = int(second * SECOND)
    return IntervalHeader(node, "run", sequence, start, start + SECOND)


@contextlib.asynccontextmanager
async def running(context: Context, service: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """A service that runs until the block ends; then it must end, too."""
    task = asyncio.create_task(service)
    try:
        yield
    finally:
        context.stopping.set()
        await asyncio.wait_for(task, 20)


async def eventually(
    condition: Callable[[], Any] | Callable[[], Awaitable[Any]], seconds: float = 30
) -> Any:
    """The first true value of `condition`; fails if there is none in time."""
    seconds *= SLOWER
    deadline = time.monotonic() + seconds
    while True:
        value = condition()
        if asyncio.iscoroutine(value):
            value = await value
        if value:
            return value
        assert time.monotonic() < deadline, f"not within {seconds} s: {condition}"
        await asyncio.sleep(0.1)


def answer_of(log: Path, path: str) -> str:
    """What the service with this log answers over HTTP.

    Raises:
        OSError: if it does not, or not with success.
    """
    started = json.loads(log.read_text().splitlines()[0])
    with urllib.request.urlopen(f"http://{started['listen']}{path}") as answer:  # our own
        return str(answer.read().decode())


async def until_ready(log: Path) -> None:
    """Wait for the service with this log."""

    def is_ready() -> bool:
        with contextlib.suppress(OSError, IndexError):
            return bool(answer_of(log, "/readyz"))
        return False

    await eventually(lambda: asyncio.to_thread(is_ready))


@contextlib.contextmanager
def running_enricher(
    url: str, inventory: Mapping[str, Any], log: Path, **environ: str
) -> Iterator[Path]:
    """An enricher with the names of an inventory, which stands beside its log; yields the log."""
    names = log.with_suffix(".json")
    names.write_text(json.dumps(inventory))
    settings = {
        "FLOWVERDICT_NATS_URL": url,
        "FLOWVERDICT_LISTEN": "127.0.0.1:0",
        "FLOWVERDICT_NAMES": "inventory",
        "FLOWVERDICT_INVENTORY": str(names),
        **environ,
    }
    running = start_process([ENRICHER], log, settings)
    try:
        yield log
    finally:
        stop_process(running)


def load_program(path: Path) -> Any:
    """A program that belongs to no package, as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
