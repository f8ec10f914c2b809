"""`flowverdict-tail` on a real NATS server."""

import io
import json
import os
import pty
import subprocess
import sys
import termios
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

import pyarrow as pa
import pytest
from nats.aio.client import Client
from nats.aio.msg import Msg
from rich.console import Console

from conftest import (
    Flow,
    NatsServer,
    a_cause,
    a_verdict,
    enriched_batch,
    eventually,
    flow_row,
    header,
)
from flowverdict_contracts import enriched, raw
from flowverdict_tail.overview import Overview
from flowverdict_tail.rows import flow_rows
from flowverdict_tail.table import LiveFlows, LiveVerdicts

TAIL = str(Path(sys.executable).with_name("flowverdict-tail"))


@pytest.fixture
def tail(nats_server: NatsServer, tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """Starts `flowverdict-tail STREAM`; gives the file that its output goes to."""
    running: list[subprocess.Popen[bytes]] = []

    def start(stream: str) -> Path:
        output = tmp_path / f"{stream}.jsonl"
        with output.open("wb") as file:
            argv = [TAIL, stream, "--nats", nats_server.url]
            running.append(subprocess.Popen(argv, stdout=file, stderr=subprocess.STDOUT))
        return output

    yield start
    for process in running:
        process.terminate()
        assert process.wait() == 0


async def lines_of(client: Client, output: Path, publish: Callable[[], object]) -> list[str]:
    """Output lines once there are any; what is published before it listens passes unseen."""

    async def some() -> list[str]:
        await publish()  # type: ignore[misc]
        return output.read_text().splitlines()

    found: list[str] = await eventually(some)
    return found


async def test_raw_flows_are_printed_with_addresses_and_roles(
    tail: Callable[[str], Path], nats_client: Client, raw_body: Callable[..., bytes]
) -> None:
    body = raw_body(Flow("10.0.0.1", "fd00::2", retransmitted_segments=3, role=2))
    headers = header(0).encode(raw.SCHEMA)
    output = tail("raw")
    found = await lines_of(
        nats_client, output, lambda: nats_client.publish("flows.raw.n1", body, headers=headers)
    )
    row = json.loads(found[0])
    assert (row["src"], row["dst"], row["role"]) == ("10.0.0.1", "fd00::2", "server")
    assert (row["retransmitted_segments"], row["node"]) == (3, "n1")
    assert row["start"] == "1970-01-01T00:00:00.000Z"


async def test_named_flows_are_printed_and_malformed_ones_reported(
    tail: Callable[[str], Path], nats_client: Client
) -> None:
    body = enriched.encode(enriched_batch(flow_row("pod-a@w0", "pod-b@w1")))
    headers = header(0).encode(enriched.SCHEMA)

    async def publish() -> None:
        await nats_client.publish("flows.enriched", b"nonsense")
        await nats_client.publish("flows.enriched", body, headers=headers)

    output = tail("flows")
    await lines_of(nats_client, output, publish)
    found = await eventually(lambda: [x for x in output.read_text().splitlines() if x[0] == "{"])
    assert json.loads(found[0])["src_pod"] == "pod-a"
    assert "malformed message on flows.enriched" in output.read_text()


def rendered(table: LiveFlows) -> str:
    console = Console(width=120, record=True, file=io.StringIO())
    console.print(table.render())
    return console.export_text()


def test_the_live_table_shows_the_worst_pair_first_by_name() -> None:
    table = LiveFlows()
    assert "waiting" in rendered(table)
    good = flow_row("pod-a@w", "pod-b@w", retransmitted_segments=0)
    bad = flow_row("pod-c@w", "pod-d@w", retransmitted_segments=9)
    table.add(enriched_batch(good, bad))
    lines = rendered(table).splitlines()
    shown = [line for line in lines if "default/" in line]
    assert "default/pod-c" in shown[0]
    assert "9.0%" in shown[0]
    assert "default/pod-a" in shown[1]


def test_without_a_nats_it_repeats_the_error_until_it_is_stopped() -> None:
    process = subprocess.Popen(
        [TAIL, "verdicts", "--nats", "nats://127.0.0.1:1"], stderr=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    assert "NATS at nats://127.0.0.1:1" in process.stderr.readline()
    process.terminate()
    process.wait()
    process.stderr.close()


def shown(what: Overview | LiveVerdicts) -> str:
    console = Console(file=io.StringIO(), width=140)
    console.print(what.render())
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    return str(text)


def test_the_overview_shows_the_worst_pairs_first_with_their_rates() -> None:
    overview = Overview()
    rows = [
        flow_row("pod-a@w0", "pod-b@w1", retransmitted_segments=30, rtt_us=2500),
        flow_row("pod-c@w0", "pod-b@w1", retransmitted_segments=1),
        flow_row("pod-d@w0", "pod-b@w1", data_segments_sent=2, retransmitted_segments=2),
    ]
    overview.add_flows(header(node="w0"), enriched_batch(*rows))
    overview.add_flows(header(node="w1"), enriched_batch(rows[0] | {"src_port": 7}))
    text = shown(overview)
    assert "2 nodes report" in text
    assert "30 data segments/s" in text
    lines = [line for line in text.splitlines() if "default/pod-" in line]
    assert len(lines) == 2, "two segments are too few for a ratio"
    assert "default/pod-a" in lines[0]
    assert "30.0%" in lines[0]
    assert "2.5" in lines[0]
    assert "default/pod-c" in lines[1]


def test_the_overview_shows_incidents_until_they_are_resolved() -> None:
    overview = Overview()
    assert "No open incident" in shown(overview)
    overview.add_verdict(a_verdict(causes=(a_cause("pod", "shop/[bold]cart"),)))
    text = shown(overview)
    assert "1 open" in text
    assert "pod shop/[bold]cart is to blame" in text
    assert "score 0.90" in text
    overview.add_verdict(a_verdict(status="resolved"))
    assert "No open incident" in shown(overview)
    assert "until" in shown(overview)


def test_a_verdict_is_shown_with_the_cluster_that_it_is_about() -> None:
    overview, table = Overview(), LiveVerdicts()
    for shows in (overview.add_verdict, table.add):
        shows(a_verdict(cluster="eu-1", causes=(a_cause("pod", "shop/cart"),)))
    assert "eu-1: pod shop/cart is to blame" in shown(overview)
    assert "eu-1: pod shop/cart is to blame" in shown(table)


def test_a_node_that_falls_silent_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [1000.0]
    monkeypatch.setattr("flowverdict_tail.overview.time.monotonic", lambda: clock[0])
    overview = Overview()
    overview.add_flows(header(node="w0"), enriched_batch(flow_row("pod-a", "pod-b")))
    clock[0] += 16
    overview.add_flows(header(node="w1"), enriched_batch(flow_row("pod-a", "pod-b")))
    assert "silent: w0" in shown(overview)


def test_the_overview_needs_a_terminal_and_says_so(nats_server: NatsServer) -> None:
    argv = [TAIL, "--nats", nats_server.url]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "name a stream" in done.stderr


def test_nothing_from_outside_steers_the_terminal() -> None:
    odd = "\x1b]52;c;evil\x07\x1b[2J\u202e"
    overview, table = Overview(), LiveVerdicts()
    verdict = a_verdict(causes=(a_cause("pod", odd),))
    overview.add_verdict(verdict)
    table.add(verdict)
    row = flow_row("pod-a", "pod-b") | {"src_pod": odd, "dst_node": odd}
    overview.add_flows(header(), enriched_batch(row))
    console = Console(file=io.StringIO(), width=140)
    console.print(overview.render(), table.render())
    text = console.file.getvalue()  # type: ignore[attr-defined]  # a StringIO
    assert "52;c;evil" in text
    assert not set(text) & {"\x1b", "\x07", "\u202e"}


def test_a_message_with_very_many_pairs_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flowverdict_tail.live_pairs._REMEMBERED_PAIRS", 10)
    overview = Overview()
    rows = [flow_row(f"pod-{number}", "pod-x") for number in range(100)]
    overview.add_flows(header(), enriched_batch(*rows))
    overview.add_flows(header(), enriched_batch(flow_row("pod-new", "pod-x")))
    assert "default/pod-" in shown(overview)


def test_a_small_message_with_very_many_rows_takes_little_memory() -> None:
    """As JSON lines; all rows at once would take 95 MB."""
    thousand = enriched_batch(*[flow_row("pod-a", "pod-b")] * 1000)
    message = Msg(
        Client(),
        data=enriched.encode(pa.concat_batches([thousand] * 20)),
        headers=header().encode(enriched.SCHEMA),
    )
    tracemalloc.start()
    try:
        assert sum(1 for _ in flow_rows(message)) == 20_000
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("key", [b"q", b"Q"])
def test_q_ends_it_and_the_terminal_is_as_before(key: bytes) -> None:
    outer, inner = pty.openpty()
    before = termios.tcgetattr(inner)
    environ = {**os.environ, "FLOWVERDICT_NATS_URL": "nats://127.0.0.1:1"}
    with subprocess.Popen(
        [TAIL], stdin=inner, stdout=inner, stderr=subprocess.PIPE, env=environ
    ) as running:
        assert running.stderr is not None
        assert b"retrying" in running.stderr.readline()
        os.write(outer, key)
        assert running.wait(20) == 0
    assert termios.tcgetattr(inner) == before
    for each in (outer, inner):
        os.close(each)
