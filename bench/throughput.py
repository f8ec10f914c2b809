"""Rows per second through the enricher, the exporter and the intake of the RCA worker, on one core,
without NATS in between.

A message is like the collector's: 2,048 records from 200 pods that all talk to each other, or that
call each other through 20 services; or from 30 pods of a node to any of 10,000. Each figure is the
median of five rounds, measured in CPU seconds of this process.
"""

import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import count

import msgspec
import numpy as np
import numpy.typing as npt

from bench.figure import Figure
from flowverdict_contracts import byte_columns, enriched, raw, raw_records
from flowverdict_contracts.addresses import to_bytes, to_text
from flowverdict_contracts.enriched import Names
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.raw import ROLES
from flowverdict_enricher.connections import Connections
from flowverdict_enricher.directory import Directory
from flowverdict_enricher.enrich import Learnt, enrich
from flowverdict_enricher.inventory import Inventory, apply
from flowverdict_exporter.series import PairSeries
from flowverdict_lab import recording
from flowverdict_lab.demo import SHIPPED_RECORDING
from flowverdict_rca.panes import Panes
from flowverdict_rca.settings import RcaSettings
from flowverdict_runtime.settings import load

__all__ = ["measure"]

_ROWS = 2048
_PODS, _MANY_PODS, _ON_A_NODE = 200, 10_000, 30
_SERVICES = 20
_MESSAGES = 50
_NODES = 10
_ROUNDS = 5


def _records(seed: int, src: range, dst: range) -> npt.NDArray[np.void]:
    chooser = np.random.default_rng(seed)
    records = np.zeros(_ROWS, raw_records.RECORD)
    for end, pods in (("src", src), ("dst", dst)):
        addresses = np.array([np.void(to_bytes(_address(pod))) for pod in pods])
        records[end] = addresses[chooser.integers(0, len(pods), _ROWS)]
    for name in ("segments_sent", "data_segments_sent", "bytes_sent", "rtt_us"):
        records[name] = chooser.integers(0, 10_000, _ROWS)
    return records


def _to_services(records: npt.NDArray[np.void]) -> npt.NDArray[np.void]:
    """The same flows, half of them clients' ends of connections to services, the rest servers'."""
    records = records.copy()
    clients, servers = np.split(records, 2)  # views
    ports = np.arange(len(clients)) + 30_000
    for each, role, port in ((clients, "client", "src_port"), (servers, "server", "dst_port")):
        each["role"] = ROLES.index(role)
        each[port] = ports
    servers["src"], servers["dst"] = clients["dst"], clients["src"]
    services = np.array([np.void(to_bytes(f"10.96.0.{n + 1}")) for n in range(_SERVICES)])
    pods = {_address(pod): pod for pod in range(_PODS)}
    called = [pods[to_text(each.tobytes())] % _SERVICES for each in clients["dst"]]
    clients["dst"] = services[called]
    return records


def _packed(records: npt.NDArray[np.void]) -> bytes:
    return byte_columns.pack(records.tobytes(), raw.RECORD_BYTES)


def _address(pod: int) -> str:
    return f"10.244.{pod // 250}.{pod % 250 + 1}"


def _directory(pods: int) -> Directory:
    directory = Directory()
    for pod in range(pods):
        endpoint = Names("pod", "default", f"web-{pod}", "web", "Deployment", f"node-{pod % 10}")
        own = [to_bytes(_address(pod))]
        directory.put(str(pod), endpoint, own, 0, 0)
        directory.backends.put(str(pod), [("default", f"web-{pod % _SERVICES}")], own)
    for number in range(_SERVICES):
        names = Names("service", "default", service=f"web-{number}")
        directory.put(f"service {number}", names, [to_bytes(f"10.96.0.{number + 1}")], 0, 0)
    return directory


def _rows_per_second(work: Callable[[], object], messages: int = 1) -> float:
    """Of `messages` messages at a time."""
    work()
    rounds = []
    for _ in range(_ROUNDS):
        began = time.process_time()
        for _ in range(_MESSAGES // messages):
            work()
        rounds.append(_ROWS * _MESSAGES / (time.process_time() - began))
    return statistics.median(rounds)


def _bytes_of_a_flow() -> tuple[float, float]:
    """What a flow of a recorded run takes, raw and named."""
    about, messages = recording.read(SHIPPED_RECORDING)
    directory, flows, raw_bytes, named_bytes = Directory(), 0, 0, 0
    apply(msgspec.json.decode(about.inventory, type=Inventory), directory, 0, 0)
    for each in messages:
        read = raw_records.read(each.headers, each.body)
        interval = read.header.start_ns, read.header.end_ns
        flows += len(read.records)
        raw_bytes += len(_packed(read.records))
        batch, _ = enrich(read.records, directory, interval, read.header.node)
        named_bytes += len(enriched.encode(batch))
    return raw_bytes / flows, named_bytes / flows


def measure() -> list[Figure]:
    """Enricher: decode, name, encode; to services, also learn and find who answers. Exporter:
    decode, add up. RCA worker: decode, add up, make windows, which are not judged.
    """
    few = _records(1, range(_PODS), range(_PODS))
    body, directory, series = _packed(few), _directory(_PODS), PairSeries(100_000, 3600)
    header = IntervalHeader("n1", "run", 1, 0, 10**9)
    headers = replace(header, is_packed=True).encode(raw.SCHEMA)

    def through_enricher() -> bytes:
        records = raw_records.read(headers, body).records
        return enriched.encode(enrich(records, directory, (0, 1), "n1")[0])

    large = _directory(_MANY_PODS)
    nodes = [range(at, at + _ON_A_NODE) for at in range(0, _MESSAGES * _ON_A_NODE, _ON_A_NODE)]
    of_many = [_packed(_records(at, pods, range(_MANY_PODS))) for at, pods in enumerate(nodes)]

    def of_many_pods() -> None:
        for each in of_many:
            records = raw_records.read(headers, each).records
            enriched.encode(enrich(records, large, (0, 1), "n1")[0])

    connections, to_services = Connections(directory), _packed(_to_services(few))

    def through_enricher_to_services() -> bytes:
        records = raw_records.read(headers, to_services).records
        connections.learn(header, records)
        resolved = connections.resolve(header, records)
        batch, _ = enrich(
            resolved.records, directory, (0, 1), "n1", learnt=Learnt(resolved.services)
        )
        return enriched.encode(batch)

    named, panes, messages = through_enricher(), Panes(load(RcaSettings, {})), count(1)

    def into_windows() -> None:
        number = next(messages)
        end_ns = (number // _NODES + 1) * 10**9
        header = IntervalHeader(f"n{number % _NODES}", "run", number, end_ns - 10**9, end_ns)
        panes.add(header, enriched.decode(named), number)
        for _ in panes.windows():
            pass

    raw_bytes, named_bytes = _bytes_of_a_flow()
    return [
        Figure("throughput", "enricher", _rows_per_second(through_enricher), "rows/s per core"),
        Figure(
            "throughput",
            "enricher, of 10,000 pods",
            _rows_per_second(of_many_pods, _MESSAGES),
            "rows/s per core",
        ),
        Figure(
            "throughput",
            "enricher, to services",
            _rows_per_second(through_enricher_to_services),
            "rows/s per core",
        ),
        Figure(
            "throughput",
            "exporter",
            _rows_per_second(lambda: series.add(enriched.decode(named))),
            "rows/s per core",
        ),
        Figure(
            "throughput", "RCA worker's intake", _rows_per_second(into_windows), "rows/s per core"
        ),
        Figure("throughput", "a flow of a recorded run, raw", raw_bytes, "bytes"),
        Figure("throughput", "a flow of a recorded run, named", named_bytes, "bytes"),
        Figure("throughput", "raw message, 2,048 rows", len(body), "bytes"),
        Figure("throughput", "enriched message, 2,048 rows", len(named), "bytes"),
    ]
