"""A NATS that somebody else set up: its limits, and streams with our names that are not ours."""

import asyncio
import contextlib
import json
import socket
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nats.aio.client import Client
from nats.js.api import RePublish, RetentionPolicy, StreamConfig, StreamSource
from nats.js.errors import NotFoundError

from conftest import (
    Collector,
    NatsServer,
    eventually,
    running_enricher,
)
from flowverdict_contracts import enriched, raw
from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.raw_records import RECORD
from flowverdict_contracts.subjects import FLOWS_ENRICHED, FLOWS_RAW, raw_subject
from flowverdict_lab.live_support import why_not_live
from flowverdict_runtime.streams import ensure_streams

SECOND = 1_000_000_000
REASON = why_not_live()


def many_rows(count: int) -> bytes:
    """Raw records of as many flows, each between two addresses of its own."""
    records = np.zeros(count, RECORD)
    for at in range(count):
        records[at]["src"] = np.frombuffer(to_bytes(f"10.1.{at >> 8}.{at & 255}"), np.uint8)
        records[at]["dst"] = np.frombuffer(to_bytes(f"10.2.{at >> 8}.{at & 255}"), np.uint8)
    records["data_segments_sent"] = np.arange(1, count + 1)
    records["bytes_sent"] = 1000
    return records.tobytes()


async def publish_raw(client: Client, node: str, sequence: int, body: bytes) -> None:
    header = IntervalHeader(node, "run", sequence, (sequence - 1) * SECOND, sequence * SECOND)
    await client.jetstream().publish(raw_subject(node), body, headers=header.encode(raw.SCHEMA))


def readiness(log: Path) -> str:
    """What a service says about what keeps it from being ready; empty before it listens."""
    try:
        listen = json.loads(log.read_text().splitlines()[0])["listen"]
        with urllib.request.urlopen(f"http://{listen}/readyz") as answer:
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        return error.read().decode()
    except (OSError, IndexError, ValueError):
        return ""


async def says(log: Path, text: str) -> bool:
    return text in await asyncio.to_thread(readiness, log)


async def consumers(client: Client) -> list[Any]:
    """Those of the raw flows."""
    with contextlib.suppress(NotFoundError):
        return await client.jetstream().consumers_info(FLOWS_RAW)
    return []


def is_ready(log: Path) -> Any:
    return says(log, '"ready": true')


@pytest.mark.skipif(REASON is not None, reason=f"no eBPF: {REASON}")
@pytest.mark.parametrize("nats_server", ["max_payload: 16384"], indirect=True)
async def test_a_collector_sends_what_a_small_max_payload_has_room_for(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    running = Collector(nats_server, tmp_path)
    try:
        await running.listen(nats_client)
        with socket.create_server(("127.0.0.1", 0), backlog=700) as server:
            port = server.getsockname()[1]
            clients = [socket.create_connection(("127.0.0.1", port)) for _ in range(700)]
            await eventually(lambda: running.total(port, "client", "opens") == 700)
            for client in clients:
                client.close()
        sequences = [each.sequence for each in running.headers]
        assert sequences == list(range(sequences[0], sequences[0] + len(sequences)))
        assert running.process.poll() is None
    finally:
        running.stop()


async def test_what_a_stream_does_not_take_whole_is_enriched_in_pieces_and_holds_up_nobody(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(
        StreamConfig(name=FLOWS_ENRICHED, subjects=["flows.enriched"], max_msg_size=16384)
    )
    await ensure_streams(jetstream)
    await publish_raw(nats_client, "big", 1, many_rows(2000))
    for sequence in range(1, 4):
        await publish_raw(nats_client, "small", sequence, many_rows(3))
    seen: dict[str, list[int]] = {"big": [], "small": []}
    with running_enricher(nats_server.url, {"pods": []}, tmp_path / "enricher.log"):
        read = 0

        async def all_came() -> bool:
            nonlocal read
            last = (await jetstream.stream_info(FLOWS_ENRICHED)).state.last_seq
            for number in range(read + 1, last + 1):
                message = await jetstream.get_msg(FLOWS_ENRICHED, number)
                header = IntervalHeader.decode(message.headers, enriched.SCHEMA)
                batch = enriched.decode(message.data or b"")
                seen[header.node] += batch.column("data_segments_sent").to_pylist()
                assert len(message.data or b"") <= 16384
            read = last
            return len(seen["big"]) >= 2000 and len(seen["small"]) >= 9

        await eventually(all_came)
    assert sorted(seen["big"]) == list(range(1, 2001))
    assert sorted(seen["small"]) == [1, 1, 1, 2, 2, 2, 3, 3, 3]


WRONG_STREAMS: dict[str, tuple[dict[str, Any], str]] = {
    "other subjects": (
        {"subjects": ["old.enriched"]},
        "stream FLOWS_ENRICHED stores old.enriched, not flows.enriched",
    ),
    "a mirror": (
        {"mirror": StreamSource(name="ORIGIN")},
        "stream FLOWS_ENRICHED is a mirror of ORIGIN",
    ),
    "a work queue": (
        {"subjects": ["flows.enriched"], "retention": RetentionPolicy.WORK_QUEUE},
        "stream FLOWS_ENRICHED has the retention workqueue",
    ),
    "no acknowledgements": (
        {"subjects": ["flows.enriched"], "no_ack": True},
        "stream FLOWS_ENRICHED acknowledges nothing",
    ),
    "what goes on into another stream": (
        {
            "subjects": ["flows.enriched"],
            "republish": RePublish(src="flows.enriched", dest="rca.verdicts"),
        },
        "stream FLOWS_ENRICHED publishes what it stores again, on rca.verdicts",
    ),
}


@pytest.mark.parametrize("kind", WRONG_STREAMS)
async def test_a_stream_with_our_name_that_is_something_else_is_named_and_nothing_is_ready(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path, kind: str
) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(StreamConfig(name="ORIGIN", subjects=["origin"]))
    config, sentence = WRONG_STREAMS[kind]
    await jetstream.add_stream(StreamConfig(name=FLOWS_ENRICHED, **config))
    log = tmp_path / "enricher.log"
    with running_enricher(nats_server.url, {"pods": []}, log):
        await eventually(lambda: says(log, sentence))
        await jetstream.delete_stream(FLOWS_ENRICHED)
        await eventually(lambda: is_ready(log))


async def test_a_stream_of_our_subjects_with_another_name_is_named(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    jetstream = nats_client.jetstream()
    await jetstream.add_stream(StreamConfig(name="ARCHIVE", subjects=["flows.>"]))
    log = tmp_path / "enricher.log"
    with running_enricher(nats_server.url, {"pods": []}, log):
        await eventually(
            lambda: says(log, "stream ARCHIVE already stores flows.>: take flows.raw.>")
        )


LIMITS = {
    "a window for duplicates": (
        'jetstream { limits { duplicate_window: "2m" } }',
        "it would be 3600 s, and FLOWVERDICT_DUPLICATE_WINDOW_SECONDS makes it shorter",
        {"FLOWVERDICT_DUPLICATE_WINDOW_SECONDS": "120"},
    ),
    "messages in hand": (
        "jetstream { limits { max_ack_pending: 1000 } }",
        "it would be 4096, and FLOWVERDICT_MAX_ACK_PENDING makes it fewer",
        {"FLOWVERDICT_MAX_ACK_PENDING": "1000"},
    ),
    "storage": (
        "jetstream { max_file_store: 1GB }",
        "it needs 1074 MB",
        {"FLOWVERDICT_STREAM_BYTES": "200000000"},
    ),
}


@pytest.mark.parametrize(
    ("nats_server", "sentence", "settings"), LIMITS.values(), ids=LIMITS, indirect=["nats_server"]
)
async def test_a_limit_that_is_too_low_is_named_with_the_setting_that_fits_it(
    nats_server: NatsServer,
    nats_client: Client,
    tmp_path: Path,
    sentence: str,
    settings: dict[str, str],
) -> None:
    log = tmp_path / "enricher.log"
    with running_enricher(nats_server.url, {"pods": []}, log):
        await eventually(lambda: says(log, sentence))
    for info in await nats_client.jetstream().streams_info():
        await nats_client.jetstream().delete_stream(str(info.config.name))
    fitting = tmp_path / "fitting.log"
    with running_enricher(nats_server.url, {"pods": []}, fitting, **settings):
        await eventually(lambda: is_ready(fitting))


async def test_a_paused_consumer_is_named_until_it_goes_on(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    log = tmp_path / "enricher.log"
    with running_enricher(nats_server.url, {"pods": []}, log):
        await eventually(lambda: consumers(nats_client))
        await eventually(lambda: is_ready(log))
        pause = b'{"pause_until": "2100-01-01T00:00:00Z"}'
        subject = f"$JS.API.CONSUMER.PAUSE.{FLOWS_RAW}.enricher"
        await nats_client.request(subject, pause)
        await publish_raw(nats_client, "n1", 1, many_rows(1))
        await eventually(lambda: says(log, "it is paused; nats consumer resume FLOWS_RAW enricher"))
        await nats_client.request(subject, b"{}")
        await eventually(lambda: is_ready(log))
