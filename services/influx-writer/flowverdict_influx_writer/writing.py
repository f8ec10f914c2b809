"""Writes every enriched message once, also over `kill -9`."""

import asyncio
import logging
import sys
import time
from collections import deque

import msgspec
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from prometheus_client import Counter, Gauge

from flowverdict_contracts import enriched
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.subjects import FLOWS_ENRICHED
from flowverdict_influx_writer.database import Database
from flowverdict_influx_writer.progress import Planned, Progress, ProgressStore
from flowverdict_influx_writer.slots import Slots
from flowverdict_runtime.consumer import check_delivers, finish
from flowverdict_runtime.context import Context
from flowverdict_runtime.kept_state import InOrder, after_acknowledged, pull_from_sequence
from flowverdict_runtime.left_out import LeftOut
from flowverdict_runtime.stored_messages import stored_ns
from flowverdict_runtime.streams import ensure_streams
from flowverdict_runtime.unfinished import Unfinished

__all__ = ["Writing"]

log = logging.getLogger(__name__)

_DURABLE = "influx-writer"
_HOLD_SECONDS = 15.0
"""A slot of ten seconds, and five for what comes late or out of order."""
_LINES_AT_ONCE = 5_000

_ROWS = Counter("flowverdict_influx_rows_total", "Flow rows received.")
_LOST = Gauge(
    "flowverdict_influx_lost_messages",
    "Enriched messages that NATS deleted before they were written, since the first start ever.",
)


class Writing:
    """How the influx-writer handles messages.

    A message is acknowledged once it is written. After a restart, reading begins at what was not
    written, whatever was acknowledged.

    Attributes:
        pull: where the messages come from.
        unfinished: which of them it died of.
        kept: the progress that was kept last.
    """

    def __init__(
        self, pull: JetStreamContext.PullSubscription, database: Database, store: ProgressStore,
        slots: Slots, unfinished: Unfinished, most_in_hand: int,
    ) -> None:  # fmt: skip
        self.pull = pull
        self.unfinished = unfinished
        self.kept = slots.progress
        self._database = database
        self._store = store
        self._slots = slots
        self._in_order = InOrder(unfinished)
        self._left_out = LeftOut()
        self._last_read = time.monotonic()
        self._most_in_hand = most_in_hand
        self._held: deque[Msg] = deque()
        self._expected = slots.progress.resume_from
        _LOST.set(slots.lost)

    @classmethod
    async def open(
        cls, jetstream: JetStreamContext, context: Context, database: Database,
        store: ProgressStore, before: "Writing | None",
    ) -> "Writing":  # fmt: skip
        """Go on from what was kept, else from where an influx-writer was before.

        Raises:
            CannotRun: if another influx-writer has taken over, or starts at the same time.
            Unavailable: if the stream or its consumer cannot be had; the message says why.
            NatsError: if NATS does not answer.
        """
        await ensure_streams(jetstream, [FLOWS_ENRICHED], context.streams)
        info = await jetstream.stream_info(FLOWS_ENRICHED)
        created, last = str(info.created), info.state.last_seq
        progress = await store.load() or (before.kept if before else None)
        if progress is None:
            start = await after_acknowledged(jetstream, FLOWS_ENRICHED, _DURABLE)
            progress = Progress(created, start, start - 1)
        if progress.stream_created != created:
            log.warning("FLOWS_ENRICHED is a new stream: reading it from the start")
            progress = Progress(created, written=progress.written, lost=progress.lost)
        if progress.resume_from > last + 1:
            log.warning("NATS has lost the last messages of FLOWS_ENRICHED")
            progress = Progress(created, last + 1, last, progress.written, lost=progress.lost)
        await store.save(progress)
        start, max_ack_pending = progress.resume_from, context.streams.max_ack_pending
        log.info("reading from sequence %d", start)
        unfinished = before.unfinished if before else await Unfinished.open(store.bucket, start)
        pull = await pull_from_sequence(jetstream, FLOWS_ENRICHED, _DURABLE, start, max_ack_pending)
        return cls(pull, database, store, Slots(progress), unfinished, max_ack_pending // 2)

    async def take(self, messages: list[Msg]) -> None:
        """Add messages to their slots, and write what is complete."""
        self._last_read = time.monotonic()
        for message in messages:
            under_way = self._slots.replayed(message.metadata.sequence.stream)
            if under_way and not await self._write(under_way):
                return
            if await self._in_order.handle(message, self._add):
                message.data = b""  # kept only to be acknowledged
                self._held.append(message)
            self._note_deleted(message.metadata.sequence.stream)
            await asyncio.sleep(0)
        # Beyond what may be in hand, NATS delivers nothing.
        while len(self._held) > self._most_in_hand:
            await finish(self._held.popleft())
        if self._slots.progress.next is None and (planned := self._slots.due(_HOLD_SECONDS)):
            await self._write(planned)

    def _note_deleted(self, sequence: int) -> None:
        """NATS deletes the oldest messages of a stream that is full: the next one has a higher
        number than expected.
        """
        expected, self._expected = self._expected, sequence + 1
        if deleted := sequence - expected:
            log.warning("NATS has deleted %d messages before they were written", deleted)
            self._slots.lose(expected, sequence)
            _LOST.set(self._slots.lost)

    def _add(self, message: Msg) -> None:
        header = IntervalHeader.decode(message.headers, enriched.SCHEMA)
        impossible: dict[str, int] = {}
        batch = enriched.decode(message.data, impossible)
        self._left_out.add(header.node, impossible)
        self._slots.add(message.metadata.sequence.stream, stored_ns(message), header, batch)
        _ROWS.inc(batch.num_rows)

    async def check(self) -> None:
        """Write what has been complete since messages stopped coming.

        Raises as `check_delivers`.
        """
        await check_delivers(self.pull)
        if not await self._in_order.has_all(self.pull):
            return
        under_way = self._slots.replayed(sys.maxsize)
        if under_way and not await self._write(under_way):
            return
        idle_seconds = time.monotonic() - self._last_read
        if planned := self._slots.due(max(0.0, _HOLD_SECONDS - idle_seconds)):
            await self._write(planned)

    async def _write(self, planned: Planned) -> bool:
        """Write the points that lead to `planned`; False if the service stops before that.

        What is about to be written is kept before it is, and that it has been afterwards: between
        the two, whoever goes on writes the very same points again, which changes nothing.
        """
        slots = self._slots
        if slots.progress.next is None:
            await self._keep(msgspec.structs.replace(slots.progress, next=planned))
        chunk: list[str] = []
        for lines in slots.lines(planned):
            chunk += lines
            await asyncio.sleep(0)
            if len(chunk) >= _LINES_AT_ONCE:
                if not await self._database.store("".join(chunk), len(chunk)):
                    return False
                chunk = []
        if not await self._database.store("".join(chunk), len(chunk)):
            return False
        await self._keep(slots.after(planned))
        slots.wrote(planned)
        while self._held and self._held[0].metadata.sequence.stream < planned.resume_from:
            await finish(self._held.popleft())
        await self.unfinished.progress(planned.resume_from)
        return True

    async def _keep(self, progress: Progress) -> None:
        self.kept = progress
        await self._store.save(progress)
