"""The exporter as a process: messages in, a scrape out."""

import gzip
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.js.errors import NotFoundError

from conftest import NatsServer, a_verdict, enriched_batch, eventually, flow_row, header
from flowverdict_contracts import enriched, verdicts
from flowverdict_contracts.subjects import FLOWS_ENRICHED, SUBJECT_ENRICHED, SUBJECT_VERDICTS
from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process, stop_process
from flowverdict_runtime.streams import ensure_streams

Process = subprocess.Popen[bytes]
PORT = free_port()


@pytest.fixture
def start(nats_server: NatsServer, tmp_path: Path) -> Iterator[Callable[[], Process]]:
    """Starts an exporter."""
    running: list[Process] = []

    def started() -> Process:
        environ = {
            "FLOWVERDICT_NATS_URL": nats_server.url,
            "FLOWVERDICT_LISTEN": f"127.0.0.1:{PORT}",
        }
        argv = [sys.executable, "-m", "flowverdict_exporter"]
        running.append(start_process(argv, tmp_path / "exporter.log", environ))
        return running[-1]

    yield started
    for process in running:
        stop_process(process)


def scrape() -> dict[str, float]:
    """Series to value, as a Prometheus asks for them."""
    accept = {"Accept-Encoding": "gzip", "Accept": "application/openmetrics-text; version=1.0.0"}
    request = urllib.request.Request(f"http://127.0.0.1:{PORT}/metrics", headers=accept)
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            lines = gzip.decompress(answer.read()).decode().splitlines()
    except OSError:
        return {}
    assert lines[-1] == "# EOF"
    pairs = (line.rpartition(" ") for line in lines if not line.startswith("#"))
    return {series: float(value) for series, _, value in pairs}


def retransmissions() -> float:
    return sum(v for k, v in scrape().items() if k.startswith("tcp_retransmissions_total{"))


async def publish(client: Client, first: int, count: int) -> None:
    jetstream = client.jetstream()
    await ensure_streams(jetstream)
    for number in range(first, first + count):
        batch = enriched_batch(flow_row("pod-a", "pod-b", retransmitted_segments=number))
        headers = header(1_000_000, number).encode(enriched.SCHEMA)
        await jetstream.publish(SUBJECT_ENRICHED, enriched.encode(batch), headers=headers)


async def acknowledged(client: Client, count: int) -> bool:
    try:
        info = await client.jetstream().consumer_info(FLOWS_ENRICHED, "exporter")
    except NotFoundError:
        return False
    return info.ack_floor is not None and info.ack_floor.stream_seq == count


async def test_after_kill_9_it_goes_on_where_it_was(
    start: Callable[[], Process], nats_client: Client
) -> None:
    exporter = start()
    await publish(nats_client, 1, 5)
    await eventually(lambda: retransmissions() == 1 + 2 + 3 + 4 + 5)
    await eventually(lambda: acknowledged(nats_client, 5))
    exporter.kill()
    exporter.wait()
    await publish(nats_client, 6, 5)
    start()
    await eventually(lambda: retransmissions() > 0)
    assert retransmissions() >= 1 + 2 + 3 + 4 + 5, "lower than it has been"
    await eventually(lambda: acknowledged(nats_client, 10))
    await eventually(lambda: retransmissions() == sum(range(1, 11)))


async def test_incidents_and_nodes_are_on_the_page_and_a_malformed_verdict_is_skipped(
    start: Callable[[], Process], nats_client: Client
) -> None:
    jetstream = nats_client.jetstream()
    await publish(nats_client, 1, 1)
    await jetstream.publish(SUBJECT_VERDICTS, b"{}")
    await jetstream.publish(SUBJECT_VERDICTS, verdicts.encode(a_verdict()))
    start()

    def incident() -> list[str]:
        return [key for key in scrape() if key.startswith("flowverdict_incident_active{")]

    (active,) = await eventually(incident)
    assert 'cause_name="pod-a"' in active
    # Flows and verdicts come from two streams, in any order.
    last_interval = 'flowverdict_node_last_interval_timestamp_seconds{node="n1"}'
    page = await eventually(lambda: page if last_interval in (page := scrape()) else None)
    assert page[last_interval] == 1_000_001
    assert page['flowverdict_messages_malformed_total{stream="RCA_VERDICTS"}'] >= 1
    await jetstream.publish(SUBJECT_VERDICTS, verdicts.encode(a_verdict(status="resolved")))
    await eventually(lambda: active not in scrape())


async def test_incidents_that_were_resolved_before_the_exporter_was_there_are_on_the_page(
    start: Callable[[], Process], nats_client: Client
) -> None:
    now = int(time.time())
    await publish(nats_client, 1, 1)
    for status, second in (("opened", now - 60), ("resolved", now - 20)):
        body = verdicts.encode(a_verdict(status=status, second=second))
        await nats_client.jetstream().publish(SUBJECT_VERDICTS, body)
    start()
    resolved = "flowverdict_resolved_incident_timestamp_seconds{"

    def past() -> list[tuple[str, float]]:
        return [item for item in scrape().items() if item[0].startswith(resolved)]

    ((labels, when),) = await eventually(past)
    assert 'cause_name="pod-a"' in labels
    assert when == now - 20
    assert not [key for key in scrape() if key.startswith("flowverdict_incident_active{")]


async def test_a_row_that_cannot_be_is_left_out_and_counted_and_the_others_go_on(
    start: Callable[[], Process], nats_client: Client
) -> None:
    start()
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    good = flow_row("pod-a", "pod-b", retransmitted_segments=3)
    batch = enriched_batch(good, good | {"dst_ip": "10.0.0.256"}, good | {"bytes_sent": 1 << 63})
    headers = header(1_000_000, 1).encode(enriched.SCHEMA)
    await jetstream.publish(SUBJECT_ENRICHED, enriched.encode(batch), headers=headers)
    await eventually(lambda: retransmissions() == 3)
    left_out = {k: v for k, v in scrape().items() if k.startswith("flowverdict_rows_left_out_")}
    assert sum(v for k, v in left_out.items() if 'field="dst_ip"' in k and "_total" in k) == 1
    assert sum(v for k, v in left_out.items() if 'field="bytes_sent"' in k and "_total" in k) == 1


async def test_how_much_of_its_stream_nats_keeps_is_on_the_page(
    start: Callable[[], Process], nats_client: Client
) -> None:
    start()
    await publish(nats_client, 1, 3)
    state = (await nats_client.jetstream().stream_info(FLOWS_ENRICHED)).state

    def kept() -> bool:
        page, stream = scrape(), f'{{stream="{FLOWS_ENRICHED}"}}'
        sizes = [
            page.get(f"flowverdict_stream_{name}{stream}") for name in ("messages", "stored_bytes")
        ]
        return sizes == [3, state.bytes] and page[f"flowverdict_stream_limit_bytes{stream}"] > 1e8

    await eventually(kept)
