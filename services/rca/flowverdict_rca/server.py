"""The RCA worker: groups enriched rows into windows and publishes verdicts on them."""

import asyncio
import contextlib
import logging
from collections.abc import Callable
from dataclasses import dataclass

import msgspec
import pandas as pd
from nats.aio.msg import Msg
from nats.errors import MaxPayloadError
from nats.js import JetStreamContext
from prometheus_client import Counter, Gauge, Histogram

from flowverdict_contracts import enriched
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.subjects import FLOWS_ENRICHED, RCA_VERDICTS
from flowverdict_contracts.verdicts import Verdict
from flowverdict_rca.detectors.history import detector_of
from flowverdict_rca.lease import lease
from flowverdict_rca.panes import Panes
from flowverdict_rca.publishing import Publishing
from flowverdict_rca.recovered import recovered
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.state import State, StateStore
from flowverdict_rca.window import Window
from flowverdict_rca.window_judge import WindowJudge
from flowverdict_runtime.consumer import check_delivers, consume
from flowverdict_runtime.context import CannotRun, Context
from flowverdict_runtime.kept_state import InOrder, pull_from_sequence
from flowverdict_runtime.left_out import LeftOut
from flowverdict_runtime.lifecycle import Service
from flowverdict_runtime.nats_connection import connected
from flowverdict_runtime.one_shot import check_nats
from flowverdict_runtime.retry import TRANSIENT_ERRORS, retry
from flowverdict_runtime.stored_messages import stored_ns
from flowverdict_runtime.streams import ensure_streams
from flowverdict_runtime.unfinished import Unfinished

__all__ = ["SERVICE"]

log = logging.getLogger(__name__)

_DURABLE = "rca"
_STREAMS = (FLOWS_ENRICHED, RCA_VERDICTS)

_ROWS = Counter("flowverdict_rca_rows_total", "Flow rows read.")
_WINDOWS = Counter("flowverdict_rca_windows_total", "Windows judged.")
_FAILED_WINDOWS = Counter(
    "flowverdict_rca_windows_failed_total", "Windows that the worker failed to judge."
)
_WATERMARK = Gauge(
    "flowverdict_rca_watermark_timestamp_seconds",
    "End of the last window judged, as a Unix timestamp.",
)
_OPEN = Gauge("flowverdict_rca_open_incidents", "Incidents that are currently open.")
_JUDGING = Histogram("flowverdict_rca_judge_seconds", "Time taken to judge a window.")
_FAIL_RATIO = Gauge(
    "flowverdict_fail_ratio",
    "The threshold: a flow fails above this retransmission ratio (FLOWVERDICT_FAIL_RATIO).",
)


@dataclass(frozen=True, slots=True)
class _Kept:
    """What a worker goes on from."""

    store: StateStore
    state: State
    unfinished: Unfinished


class Judging:
    """How the worker handles messages: panes and incidents, and their position in the stream.

    A message is acknowledged once the state that includes it is saved.

    Attributes:
        pull: where the messages come from.
        unfinished: which of them the worker died of.
    """

    def __init__(
        self,
        jetstream: JetStreamContext,
        context: Context,
        settings: RcaSettings,
        pull: JetStreamContext.PullSubscription,
        kept: _Kept,
    ) -> None:
        state = kept.state
        self.pull = pull
        self.unfinished = kept.unfinished
        self._jetstream = jetstream
        self._context = context
        self._publishing = Publishing(jetstream, context, settings.cluster)
        self.store = kept.store
        self._stream_created = state.stream_created
        self._judge = WindowJudge(settings, state.incidents)
        self._panes = Panes(
            settings, state.watermark_ns, state.seen_until, state.too_late,
            heard=state.heard, gaps=state.gaps,
        )  # fmt: skip
        self._panes.follow(state.runs)
        self._learning: asyncio.Task[None] | None = None
        self._held: list[tuple[int, Msg]] = []
        self._in_order = InOrder(kept.unfinished)
        self._left_out = LeftOut()

    @classmethod
    async def open(
        cls,
        jetstream: JetStreamContext,
        context: Context,
        settings: RcaSettings,
        before: "Judging | None",
    ) -> "Judging":
        """Load the saved state and continue reading from its position.

        Raises:
            CannotRun: if another worker has taken over from `before`, or starts at the same time.
        """
        await ensure_streams(jetstream, _STREAMS, context.streams)
        info = await jetstream.stream_info(FLOWS_ENRICHED)
        created, last = str(info.created), info.state.last_seq
        store, state = await StateStore.open(jetstream, context.streams.stream_replicas)
        if before is not None:
            before.check_only_worker(store)
            before.store = store  # what this one saves is not another's
        if state is None:
            known = await recovered(jetstream)
            state = State(1, last, (), known.watermark_ns, known.incidents, created)
            log.info("no saved state: going on with %d open incidents", len(known.incidents))
        elif state.stream_created != created:
            log.warning("FLOWS_ENRICHED is a new stream: reading it from the start")
            state = State(1, 0, (), state.watermark_ns, state.incidents, created, runs=state.runs)
        elif state.resume_from > last + 1:
            log.warning("NATS has lost the last messages of FLOWS_ENRICHED")
            state = State(
                last + 1, last, (), state.watermark_ns, state.incidents, created, runs=state.runs
            )
        elif state.seen_until > last:
            state = msgspec.structs.replace(state, seen_until=last)
        await store.announce(settings.fail_ratio)
        await store.save(state)  # whoever else is running stops now, at its next save
        log.info("reading from sequence %d", state.resume_from)
        pull = await pull_from_sequence(
            jetstream, FLOWS_ENRICHED, _DURABLE, state.resume_from, context.streams.max_ack_pending
        )
        unfinished = before.unfinished if before else await store.unfinished(state.resume_from)
        kept = _Kept(store, state, unfinished)
        judging = cls(jetstream, context, settings, pull, kept)
        judging._judge.expect(await store.normal())
        return judging

    def check_only_worker(self, stored: StateStore) -> None:
        """Raises CannotRun if another worker has saved its state since."""
        if stored.revision > self.store.revision:
            raise CannotRun("another RCA worker is already running; stopping")

    async def check(self) -> None:
        """Raises CannotRun if another worker has saved, NotFoundError without a consumer."""
        await check_delivers(self.pull)
        self.check_only_worker((await StateStore.open(self._jetstream))[0])

    async def take(self, messages: list[Msg]) -> None:
        """Add messages to their panes, and judge the windows that are complete."""
        for message in messages:
            if await self._in_order.handle(message, self._add):
                message.data = b""  # kept only to be acknowledged
                self._held.append((message.metadata.sequence.stream, message))
            await asyncio.sleep(0)
        # Beyond what may be in hand, NATS delivers nothing; what was read is read again by the
        # saved state, not for want of an acknowledgement.
        most = self._context.streams.max_ack_pending // 2
        await self._acknowledge(self._held[: max(0, len(self._held) - most)])
        await self._judge_complete_windows()

    def _add(self, message: Msg) -> None:
        header = IntervalHeader.decode(message.headers, enriched.SCHEMA)
        header.check_not_ahead(stored_ns(message))
        impossible: dict[str, int] = {}
        batch = enriched.decode(message.data, impossible)
        self._left_out.add(header.node, impossible)
        self._panes.add(header, batch, message.metadata.sequence.stream, stored_ns(message))
        _ROWS.inc(batch.num_rows)

    async def _judge_complete_windows(self) -> None:
        """Publish verdicts on complete windows, save the state, then acknowledge its messages."""
        judged = False
        windows = self._panes.windows()
        # With 100,000 pairs, a window takes half a second to be made.
        while window := await asyncio.to_thread(next, windows, None):
            if not await self._publish(self._judge.judge, window):
                return  # stopping, with a verdict that NATS did not store: judged again next time
            long_window = self._panes.long_window
            if long_window and not await self._publish(self._judge.judge_long, long_window):
                return
            self._learn()
            judged = True
        if not judged:
            return
        state = State(
            resume_from=self._panes.resume_from,
            seen_until=self._panes.last_sequence,
            too_late=self._panes.too_late,
            watermark_ns=self._panes.watermark_ns,
            incidents=self._judge.known,
            stream_created=self._stream_created,
            heard=self._panes.heard,
            gaps=self._panes.gaps,
            runs=self._panes.runs,
        )
        if not await retry(self._context, "state", lambda: self._save(state), give_up_seconds=5):
            return
        await self.unfinished.progress(state.resume_from)
        _WATERMARK.set(state.watermark_ns / 1e9)
        until = self._panes.judged_until
        await self._acknowledge([each for each in self._held if each[0] < until])

    async def _acknowledge(self, held: list[tuple[int, Msg]]) -> None:
        if not held:
            return
        for _, message in held:
            with contextlib.suppress(*TRANSIENT_ERRORS):
                await message.ack()
        done = {sequence for sequence, _ in held}
        self._held = [each for each in self._held if each[0] not in done]

    async def _save(self, state: State) -> bool:
        try:
            await self.store.save(state)
        except MaxPayloadError:
            # After a restart, nodes that are silent now are found silent anew, and what was lost
            # meanwhile is not known.
            await self.store.save(msgspec.structs.replace(state, heard={}, gaps={}, runs=()))
        return True

    def _learn(self) -> None:
        """Learn what is normal, beside everything else, if it is time to."""
        tables = self._judge.to_learn_from()
        if tables and (self._learning is None or self._learning.done()):
            self._learning = asyncio.create_task(self._learn_from(tables))

    async def _learn_from(self, tables: list[pd.DataFrame]) -> None:
        try:
            normal = await asyncio.to_thread(self._judge.learn, tables)
            await self.store.save_normal(normal)
        except TRANSIENT_ERRORS:
            pass  # saved the next time
        except Exception:
            log.exception("cannot learn what is normal")

    async def _publish(self, judge: Callable[[Window], list[Verdict]], window: Window) -> bool:
        """Judge a window and publish the verdicts; False if NATS did not store one."""
        try:
            with _JUDGING.time():
                published = await asyncio.to_thread(judge, window)
        except Exception:
            _FAILED_WINDOWS.inc()
            log.exception("cannot judge a window, skipping it")
            return True
        _WINDOWS.inc()
        _OPEN.set(sum(each.is_open for each in self._judge.known))
        return await self._publishing.publish(published)


async def run(settings: RcaSettings, context: Context) -> None:
    """Judge every window until the service stops."""
    detector_of(settings)  # tells what is missing before anything is read
    _FAIL_RATIO.set(settings.fail_ratio)
    async with connected(settings, "rca", context, _STREAMS) as jetstream:
        if jetstream is None:
            return

        async def subscribe(before: Judging | None) -> Judging:
            return await Judging.open(jetstream, context, settings, before)

        async with lease(jetstream, context) as held:
            if held:
                await consume(jetstream, context, FLOWS_ENRICHED, subscribe)


async def check(settings: RcaSettings) -> int:
    """Print whether NATS is available; returns 0 if it is.

    Raises:
        CannotRun: if the detector that is set needs what is missing.
    """
    detector_of(settings)
    return await check_nats(settings)


SERVICE = Service(
    name="rca",
    purpose="Judges which pod, node, link or service is behind failing flows.",
    settings=RcaSettings,
    run=run,
    check=check,
)
