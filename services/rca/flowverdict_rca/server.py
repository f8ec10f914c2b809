"""The RCA worker's life: enriched rows to windows, windows to verdicts."""

import asyncio
import contextlib
import logging

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from nats.js.api import AckPolicy, ConsumerConfig, DeliverPolicy
from nats.js.errors import NotFoundError
from prometheus_client import Counter, Gauge, Histogram

from flowverdict_contracts import MalformedMessage, enriched, verdicts
from flowverdict_contracts.header import IntervalHeader
from flowverdict_contracts.subjects import FLOWS_ENRICHED, RCA_VERDICTS, SUBJECT_VERDICTS
from flowverdict_rca.incidents import Incidents
from flowverdict_rca.judgement import judge
from flowverdict_rca.panes import Panes, WindowData
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.state import State, StateStore
from flowverdict_runtime.asking import check_nats
from flowverdict_runtime.connection import (
    connected,
    ensure_streams,
    publish_until_stored,
)
from flowverdict_runtime.consumer import MALFORMED, lag_watched, reject
from flowverdict_runtime.retry import PASSING, retry
from flowverdict_runtime.service import CannotRun, Context, Service

__all__ = ["SERVICE"]

log = logging.getLogger(__name__)

_DURABLE = "rca"
_STREAMS = (FLOWS_ENRICHED, RCA_VERDICTS)
_PART = "consumer"
_IDLE_CHECK = 5

_ROWS = Counter("flowverdict_rca_rows_total", "Flow rows taken in.")
_WINDOWS = Counter("flowverdict_rca_windows_total", "Windows judged.")
_FAILED_WINDOWS = Counter(
    "flowverdict_rca_windows_failed_total", "Windows that the worker failed to judge."
)
_VERDICTS = Counter("flowverdict_rca_verdicts_total", "Verdicts published.", ["status"])
_JUDGED_UNTIL = Gauge(
    "flowverdict_rca_judged_until_seconds", "End of the last window judged, as a Unix time."
)
_OPEN = Gauge("flowverdict_rca_open_incidents", "Incidents that are open now.")
_JUDGING = Histogram("flowverdict_rca_judge_seconds", "Time it took to judge a window.")


class Worker:
    """Panes, incidents and where they stand in the stream, together."""

    def __init__(
        self, jetstream: JetStreamContext, context: Context, settings: RcaSettings
    ) -> None:
        self._jetstream = jetstream
        self._context = context
        self._settings = settings
        self._store: StateStore | None = None
        self._subscription: JetStreamContext.PullSubscription | None = None

    async def open(self) -> JetStreamContext.PullSubscription:
        """Take up the kept state and read on from where it stands.

        Raises:
            CannotRun: where another worker has taken over.
        """
        if self._subscription is not None:
            with contextlib.suppress(*PASSING):
                await self._subscription.unsubscribe()
        await ensure_streams(self._jetstream, _STREAMS, self._settings.stream_replicas)
        created = str((await self._jetstream.stream_info(FLOWS_ENRICHED)).created)
        store, kept = await StateStore.open(self._jetstream, self._settings.stream_replicas)
        self._check_alone(store)
        self._store = store
        self._created = created
        if kept is not None and kept.stream_created != created:
            log.warning("FLOWS_ENRICHED is a new stream: reading it from the start")
            kept = State(1, 0, (), kept.judged_until_ns, kept.incidents, created)
        self._incidents = Incidents(self._settings, kept.incidents if kept else ())
        self._panes = Panes(
            self._settings,
            kept.judged_until_ns if kept else 0,
            kept.seen_until if kept else 0,
            kept.too_late if kept else (),
        )
        self._held: list[tuple[int, Msg]] = []
        start = kept.resume_from if kept else 1
        log.info("reading from sequence %d", start)
        self._subscription = await self._subscribe(start)
        return self._subscription

    async def check_alone(self) -> None:
        """Raises CannotRun where another worker has saved, NotFoundError without a consumer."""
        assert self._subscription is not None
        await self._subscription.consumer_info()
        self._check_alone((await StateStore.open(self._jetstream))[0])

    def _check_alone(self, stored: StateStore) -> None:
        if self._store is not None and stored.revision > self._store.revision:
            raise CannotRun("another RCA worker is judging; this one stops")

    async def _subscribe(self, start: int) -> JetStreamContext.PullSubscription:
        # The kept state says where to read from, not what was acknowledged; the consumer is there
        # so that its lag can be seen.
        with contextlib.suppress(NotFoundError):
            await self._jetstream.delete_consumer(FLOWS_ENRICHED, _DURABLE)
        config = ConsumerConfig(
            durable_name=_DURABLE,
            deliver_policy=DeliverPolicy.BY_START_SEQUENCE,
            opt_start_seq=start,
            ack_policy=AckPolicy.EXPLICIT,
            ack_wait=3600,
            max_ack_pending=-1,
        )
        return await self._jetstream.pull_subscribe(
            "", durable=_DURABLE, stream=FLOWS_ENRICHED, config=config
        )

    async def take(self, message: Msg) -> None:
        """Add one enriched message to its pane."""
        try:
            header = IntervalHeader.decode(message.headers, enriched.SCHEMA)
            header.check_not_ahead(int(message.metadata.timestamp.timestamp() * 1e9))
            batch = enriched.decode(message.data)
            sequence = message.metadata.sequence.stream
            self._panes.add(header, batch, sequence)
        except MalformedMessage as error:
            await reject(message, error)
            return
        except Exception as error:  # a fault of ours must not stop the judging
            log.exception("cannot take a message")
            await reject(message, MalformedMessage(f"it cannot be taken: {error!r}"))
            return
        message.data = b""  # held until it is judged, for its acknowledgement only
        self._held.append((sequence, message))
        _ROWS.inc(batch.num_rows)

    async def judge_complete_windows(self) -> None:
        """Publish what complete windows say, keep the state, then acknowledge what it rests on."""
        judged = False
        for window in self._panes.windows():
            if not await self._judge(window):
                return  # stopping, with a verdict that NATS did not take: judged again next time
            judged = True
        if not judged:
            return
        state = State(
            resume_from=self._panes.resume_from,
            seen_until=self._panes.last_sequence,
            too_late=self._panes.too_late,
            judged_until_ns=self._panes.judged_until_ns,
            incidents=self._incidents.known,
            stream_created=self._created,
        )
        if not await retry(self._context, "state", lambda: self._save(state), give_up_seconds=5):
            return
        _JUDGED_UNTIL.set(state.judged_until_ns / 1e9)
        for sequence, message in self._held:
            if sequence < state.resume_from:
                with contextlib.suppress(*PASSING):
                    await message.ack()
        self._held = [each for each in self._held if each[0] >= state.resume_from]

    async def _save(self, state: State) -> bool:
        assert self._store is not None
        await self._store.save(state)
        return True

    async def _judge(self, window: WindowData) -> bool:
        """Publish a window's verdicts; False where NATS did not take one."""
        try:
            with _JUDGING.time():
                judgement = await asyncio.to_thread(judge, window, self._settings)
                said = await asyncio.to_thread(list, self._incidents.judge(judgement))
        except Exception:
            _FAILED_WINDOWS.inc()
            log.exception("cannot judge a window, passing it over")
            return True
        _WINDOWS.inc()
        _OPEN.set(sum(bool(each.opened_ns) for each in self._incidents.known))
        for verdict in said:
            headers = {"Nats-Msg-Id": verdict.id, "Flowverdict-Schema": verdicts.SCHEMA}
            body = verdicts.encode(verdict)
            if not await publish_until_stored(
                self._jetstream, self._context, SUBJECT_VERDICTS, body, headers
            ):
                return False
            _VERDICTS.labels(verdict.status).inc()
            level = logging.DEBUG if verdict.status == "ongoing" else logging.INFO
            log.log(
                level,
                "%s: %s",
                verdict.status,
                verdict.summary,
                extra={"incident_id": verdict.incident_id},
            )
        return True


async def run(settings: RcaSettings, context: Context) -> None:
    """Judge every window until the service is to stop."""
    async with connected(settings, "rca", context, _STREAMS) as jetstream:
        if jetstream is None:
            return
        worker = Worker(jetstream, context, settings)
        MALFORMED.labels(FLOWS_ENRICHED)  # a series from the start
        subscription, idle = await retry(context, _PART, worker.open), 0
        async with lag_watched(FLOWS_ENRICHED, lambda: subscription):
            while subscription is not None and not context.stopping.is_set():
                try:
                    if idle >= _IDLE_CHECK:
                        idle = 0
                        await worker.check_alone()
                    for message in await subscription.fetch(64, timeout=1):
                        await worker.take(message)
                        await asyncio.sleep(0)
                    context.health.ready(_PART)
                    idle = 0
                except TimeoutError:
                    idle += 1
                    continue
                except PASSING as error:
                    reason = f"NATS does not deliver: {error or type(error).__name__}"
                    context.health.waiting(_PART, reason)
                    await context.pause(1)
                    # Unsaved panes are read again from the stream.
                    subscription = await retry(context, _PART, worker.open)
                    continue
                await worker.judge_complete_windows()


async def check(settings: RcaSettings) -> int:
    """Print whether NATS is there; 0 where it is."""
    return await check_nats(settings)


SERVICE = Service(
    name="rca",
    purpose="Judges which pod, node, link or service is behind failing flows.",
    settings=RcaSettings,
    run=run,
    check=check,
)
