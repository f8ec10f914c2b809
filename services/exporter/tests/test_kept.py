"""What the exporter keeps in NATS, and goes on from after it was killed."""

import asyncio
import contextlib
import re
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import msgspec
import nats
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client
from nats.js import JetStreamContext

from conftest import NatsServer, a_verdict, enriched_batch, eventually, flow_row, header
from flowverdict_contracts import enriched, verdicts
from flowverdict_contracts.subjects import (
    EXPORTER_STATE_BUCKET,
    FLOWS_ENRICHED,
    SUBJECT_ENRICHED,
)
from flowverdict_exporter import adding
from flowverdict_exporter.adding import Adding, Totals
from flowverdict_exporter.incidents import Incidents
from flowverdict_exporter.kept import Kept, KeptStore, Position
from flowverdict_exporter.lookups import Lookups
from flowverdict_exporter.nodes import Nodes
from flowverdict_exporter.series import PairSeries
from flowverdict_exporter.services import Services
from flowverdict_exporter.sums import KeptSums
from flowverdict_runtime.consumer import consume
from flowverdict_runtime.context import CannotRun, Context
from flowverdict_runtime.kept_state import pull_from_sequence
from flowverdict_runtime.streams import ensure_streams

BUDGET = 40

rows = st.builds(
    flow_row,
    st.sampled_from(["pod-a", "pod-b", "pod-c", "pod-d"]),
    st.sampled_from(["pod-e", "pod-f", "pod-g"]),
    retransmitted_segments=st.integers(0, 1000),
    rtt_us=st.integers(0, 10**6),
    dns_lookups=st.integers(0, 3),
)
batches = st.lists(st.lists(rows, min_size=1, max_size=5), max_size=6)


def totals() -> Totals:
    return Totals(PairSeries(BUDGET, 3600), Nodes(), Lookups(3600), Services(3600), Incidents())


@given(before=batches, after=batches)
def test_sums_that_were_kept_and_restored_go_on_as_if_nothing_had_happened(
    before: list[list[dict[str, Any]]], after: list[list[dict[str, Any]]]
) -> None:
    """Beyond the budget, too."""
    one, other = totals().series, totals().series
    for each in before:
        one.add(enriched_batch(*each))
    kept = Kept(one.kept(), Nodes().kept(), [])
    other.restore(Kept.decode(kept.encode()).sums)
    assert other.text(openmetrics=False) == one.text(openmetrics=False)
    for each in after:
        for series in (one, other):
            series.add(enriched_batch(*each))
    assert other.text(openmetrics=False) == one.text(openmetrics=False)


def test_the_sums_of_an_earlier_version_go_on_without_what_it_did_not_have() -> None:
    one, other = totals(), totals()
    row = flow_row("pod-a", "pod-e", retransmitted_segments=3, dns_lookups=2)
    one.series.add(enriched_batch(row))
    one.incidents.add(a_verdict())
    kept = one.kept()
    (incident,) = kept.incidents
    earlier = replace(
        kept.sums,
        metrics=kept.sums.metrics[:-2],
        sums=kept.sums.sums[:-2],
        overflows=kept.sums.overflows[:-2],
        ends=[end[:-1] for end in kept.sums.ends],
        by_sender=None,
    )
    before_labels_were_named = msgspec.msgpack.decode(msgspec.msgpack.encode(earlier))
    del before_labels_were_named["labels"]
    earlier = msgspec.convert(before_labels_were_named, KeptSums)
    old_verdict = incident.verdict.replace(verdicts.SCHEMA.encode(), b"rca.verdicts/1")
    incidents = [replace(incident, verdict=old_verdict)]
    other.restore(Position(5, "now"), replace(kept, sums=earlier, incidents=incidents), 4)
    page = other.series.text(openmetrics=False)
    assert re.search(r"tcp_retransmissions_total{.*} 3\n", page)
    assert re.search(r"dns_lookups_total{.*} 2\n", page)
    other.series.add(enriched_batch(row))
    assert re.search(r"tcp_retransmissions_total{.*} 6\n", other.series.text(openmetrics=False))
    assert other.incidents.kept() == ([], [])
    assert other.position == Position(5, "now")


@pytest.mark.parametrize("histograms", [False, True])
def test_totals_go_on_when_histograms_by_pair_are_switched(histograms: bool) -> None:
    row = flow_row("pod-a", "pod-e", rtt_us=700)
    one = PairSeries(BUDGET, 3600, histograms=histograms)
    one.add(enriched_batch(row))
    other = PairSeries(BUDGET, 3600, histograms=not histograms)
    other.restore(one.kept())
    other.add(enriched_batch(row))
    page = other.text(openmetrics=False)
    for metric in ("tcp_rtt_seconds", "tcp_sender_rtt_seconds"):
        assert re.search(rf"^{metric}_count{{.*}} 2$", page, re.MULTILINE), metric
    assert ("tcp_rtt_seconds_bucket{" in page) is not histograms


def test_if_the_sums_by_sender_cannot_be_restored_neither_are_those_by_pair() -> None:
    one, other = totals(), totals()
    one.series.add(enriched_batch(flow_row("pod-a", "pod-e", retransmitted_segments=3)))
    kept = one.series.kept()
    assert kept.by_sender is not None
    wrong = replace(kept.by_sender, sums=[each[:-8] for each in kept.by_sender.sums])
    with pytest.raises(ValueError, match="other columns"):
        other.series.restore(replace(kept, by_sender=wrong))
    assert other.series.text(openmetrics=False) == totals().series.text(openmetrics=False)


@pytest.mark.parametrize(
    "wrong",
    [
        {"ends": [("10.0.0.1", "a")]},
        {"ages": b"\0" * 800},
        {"sources": (99).to_bytes(8, "little")},
        {"targets": b""},
    ],
)
def test_sums_of_other_labels_or_columns_are_refused_before_any_is_taken(
    wrong: dict[str, Any],
) -> None:
    one, other = totals(), totals()
    one.series.add(enriched_batch(flow_row("pod-a", "pod-e", retransmitted_segments=3)))
    with pytest.raises(ValueError, match=r"other|not there"):
        other.series.restore(replace(one.series.kept(), **wrong))
    assert other.series.text(openmetrics=False) == totals().series.text(openmetrics=False)


def test_a_message_lost_while_no_exporter_ran_is_noticed_by_the_next() -> None:
    one, other = Nodes(), Nodes()
    one.add(header(1_000_000, 1))
    other.restore(Kept.decode(Kept(totals().series.kept(), one.kept(), []).encode()).nodes)
    other.add(header(1_000_001, 3))
    (run,) = other.kept().runs
    assert (run.newest, [gap[:2] for gap in run.gaps]) == (3, [(2, 3)])


def test_an_open_incident_is_still_open_for_the_next_exporter_unless_it_has_heard_better() -> None:
    one, other, third = Incidents(), Incidents(), Incidents()
    one.add(a_verdict())
    kept = Kept.decode(replace(totals().kept(), incidents=one.kept()[0]).encode()).incidents
    other.restore(kept, [])
    ((still_open,), _) = other.kept()
    assert still_open.verdict == verdicts.encode(a_verdict())
    third.add(a_verdict(status="resolved", second=1_000_002))
    third.restore(kept, [])
    assert not third.kept()[0]


@pytest.fixture
async def jetstream(nats_client: Client) -> JetStreamContext:
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    return jetstream


async def publish(jetstream: JetStreamContext, number: int) -> None:
    batch = enriched_batch(flow_row("pod-a", "pod-b", retransmitted_segments=1))
    head = header(1_000_000 + number, number).encode(enriched.SCHEMA)
    await jetstream.publish(SUBJECT_ENRICHED, enriched.encode(batch), headers=head)


def retransmissions(shown: Totals) -> int | None:
    """None if there are no totals on the page."""
    lines = [
        line
        for line in shown.text(openmetrics=False).splitlines()
        if line.startswith("tcp_retransmissions_total{")
    ]
    return int(lines[0].rpartition(" ")[2]) if lines else None


async def end(task: asyncio.Task[None]) -> None:
    while not task.done():
        task.cancel()  # wait_for may swallow one, in Python 3.11
        await asyncio.wait([task], timeout=0.1)


@contextlib.asynccontextmanager
async def exporter(url: str) -> AsyncIterator[Totals]:
    """One that ends as suddenly as if it was killed: it does nothing when it is cancelled."""
    shown, context = totals(), Context()
    client = await nats.connect(url)
    jetstream = client.jetstream()

    async def subscribe(before: Adding | None) -> Adding:
        return await Adding.open(jetstream, context, shown, before)

    running = asyncio.create_task(consume(jetstream, context, FLOWS_ENRICHED, subscribe))
    try:
        yield shown
    finally:
        await end(running)
        await client.close()


async def test_totals_are_exact_and_never_fall_however_often_it_is_killed(
    nats_server: NatsServer, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adding, "_KEEP_SECONDS", 0.2)
    published, highest = 0, 0

    async def go_on_publishing() -> None:
        nonlocal published
        while True:
            published += 1
            await publish(jetstream, published)

    publishing = asyncio.create_task(go_on_publishing())
    for killed_at in (0, 40, 41, 300, 700):
        async with exporter(nats_server.url) as shown:
            while published < killed_at + 1:
                now = retransmissions(shown)
                assert now is None or now >= highest
                highest = max(highest, now or 0)
                await asyncio.sleep(0.001)
    await end(publishing)
    async with exporter(nats_server.url) as shown:

        async def has_all() -> bool:
            # What was being published when that ended may be stored only now.
            last = (await jetstream.stream_info(FLOWS_ENRICHED)).state.last_seq
            return (retransmissions(shown), shown.position.next_sequence) == (last, last + 1)

        await eventually(has_all)


async def test_messages_that_were_delivered_and_did_not_arrive_are_read_again(
    nats_server: NatsServer, jetstream: JetStreamContext
) -> None:
    """As when a connection breaks while NATS writes to it, or a second exporter starts."""
    async with exporter(nats_server.url) as shown:
        await publish(jetstream, 1)
        await eventually(lambda: retransmissions(shown) == 1)
        other = await jetstream.pull_subscribe_bind("exporter", FLOWS_ENRICHED)
        for number in range(2, 30):
            asked = asyncio.create_task(other.fetch(3, timeout=0.2))
            await publish(jetstream, number)
            await asyncio.wait([asked])
            asked.exception()
        await eventually(lambda: retransmissions(shown) == 29)


async def test_what_fails_once_it_is_known_who_exports_is_tried_again(
    nats_server: NatsServer, jetstream: JetStreamContext, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = 0

    async def fails_now_and_then(*arguments: Any) -> Any:
        nonlocal failures
        failures += 1
        if failures in (2, 3):
            raise nats.errors.TimeoutError
        return await pull_from_sequence(*arguments)

    name = "flowverdict_exporter.adding.pull_from_sequence"
    monkeypatch.setattr(name, fails_now_and_then)
    async with exporter(nats_server.url) as shown:
        await publish(jetstream, 1)
        await eventually(lambda: retransmissions(shown) == 1)
        await jetstream.delete_consumer(FLOWS_ENRICHED, "exporter")
        await publish(jetstream, 2)
        await eventually(lambda: retransmissions(shown) == 2)
    assert failures >= 4


async def test_after_nats_lost_its_last_messages_the_next_ones_are_counted(
    nats_server: NatsServer, jetstream: JetStreamContext
) -> None:
    created = str((await jetstream.stream_info(FLOWS_ENRICHED)).created)
    store = await KeptStore.open(jetstream, 1, "before")
    await store.claim(Position(10, created))
    async with exporter(nats_server.url) as shown:
        await eventually(lambda: shown.position.next_sequence == 1)
        for number in range(1, 5):
            await publish(jetstream, number)
        await eventually(lambda: retransmissions(shown) == 4)


async def test_a_bucket_that_somebody_removes_is_there_again(jetstream: JetStreamContext) -> None:
    store = await KeptStore.open(jetstream, 1, "one")
    await store.claim(Position(1, "then"))
    await jetstream.delete_key_value(EXPORTER_STATE_BUCKET)
    kept = totals().kept()
    with pytest.raises(nats.errors.Error):
        await store.save(Position(2, "then"), kept.encode())
    await store.save(Position(3, "then"), kept.encode())
    again = await KeptStore.open(jetstream, 1, "one")
    assert await again.load() == (Position(3, "then"), kept)


def test_the_nodes_counts_are_not_shown_either_until_they_are_complete() -> None:
    shown, other = totals(), totals()
    shown.nodes.add(header(1_000_000, 1))
    assert not list(shown.nodes.collect()), "it is not known yet what was kept"
    shown.restored.set()
    assert list(shown.nodes.collect())
    other.restored.set()
    other.restore(Position(5, "then"), shown.kept(), last_sequence=7)
    assert not list(other.nodes.collect())
    other.all_read()
    assert list(other.nodes.collect())


async def test_what_does_not_fit_in_one_message_is_kept_in_pieces(
    jetstream: JetStreamContext,
) -> None:
    store = await KeptStore.open(jetstream, 1, "one")
    await store.claim(Position(1, "then"))
    full = totals()
    for at in range(BUDGET // 2):
        full.series.add(enriched_batch(flow_row(f"pod-{at}", "pod-b", rtt_us=at)))
    kept = full.kept()
    store._piece_bytes = 100  # as a server with a small max_payload would have it
    await store.save(Position(5, "then"), kept.encode())
    again = await KeptStore.open(jetstream, 1, "one")
    assert await again.load() == (Position(5, "then"), kept)


async def test_a_killed_save_leaves_what_was_kept_before(jetstream: JetStreamContext) -> None:
    store = await KeptStore.open(jetstream, 1, "one")
    await store.claim(Position(1, "then"))
    kept = totals().kept()
    await store.save(Position(5, "then"), kept.encode())
    bucket = await jetstream.key_value(EXPORTER_STATE_BUCKET)
    await bucket.put("0.0", b"half of what comes")
    assert await (await KeptStore.open(jetstream, 1, "one")).load() == (Position(5, "then"), kept)


async def test_what_another_version_kept_is_left_and_reading_goes_on_where_it_was(
    nats_server: NatsServer, jetstream: JetStreamContext
) -> None:
    async with exporter(nats_server.url) as shown:
        for number in (1, 2):
            await publish(jetstream, number)
        await eventually(lambda: retransmissions(shown) == 2)
    store = await KeptStore.open(jetstream, 1, "one")
    sums = replace(shown.series.kept(), metrics=["of", "another"])
    await store.save(Position(3, ""), Kept(sums, shown.nodes.kept(), []).encode())
    async with exporter(nats_server.url) as shown:
        await publish(jetstream, 3)
        await eventually(lambda: retransmissions(shown) == 1)


async def test_a_second_exporter_ends_the_first(jetstream: JetStreamContext) -> None:
    one = await KeptStore.open(jetstream, 1, "one")
    await one.claim(Position(1, "then"))
    other = await KeptStore.open(jetstream, 1, "other")
    await other.claim(None)
    with pytest.raises(CannotRun, match="another exporter is already running"):
        await one.save(Position(2, "then"), b"")
