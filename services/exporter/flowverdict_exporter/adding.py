"""Adds up every enriched message once, also over `kill -9`."""

import asyncio
import logging
import time
import uuid

from nats.aio.msg import Msg
from nats.js import JetStreamContext
from prometheus_client import Counter, Gauge

from flowverdict_contracts import enriched
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.subjects import FLOWS_ENRICHED
from flowverdict_exporter.incidents import Incidents
from flowverdict_exporter.kept import Kept, KeptStore, Position
from flowverdict_exporter.lookups import Lookups
from flowverdict_exporter.nodes import Nodes
from flowverdict_exporter.series import PairSeries
from flowverdict_exporter.services import Services
from flowverdict_runtime.consumer import check_delivers, finish
from flowverdict_runtime.context import CannotRun, Context
from flowverdict_runtime.kept_state import InOrder, after_acknowledged, pull_from_sequence
from flowverdict_runtime.left_out import LeftOut
from flowverdict_runtime.retry import TRANSIENT_ERRORS
from flowverdict_runtime.streams import ensure_streams
from flowverdict_runtime.unfinished import Unfinished

__all__ = ["Adding", "Totals"]

log = logging.getLogger(__name__)

_DURABLE = "exporter"
_KEEP_SECONDS = 15.0

_ROWS = Counter("flowverdict_exporter_rows_total", "Flow rows added to the totals.")
_KEPT = Gauge(
    "flowverdict_exporter_kept_timestamp_seconds",
    "When the totals were last kept in NATS, as a Unix timestamp; what follows is read again after "
    "a restart.",
)


class Totals:
    """The sums by pair and node, up to which message of FLOWS_ENRICHED they go, and the incidents.

    Sums that were kept are lower than what was last shown, until the messages since then are added
    again; so they are not shown until then.

    Attributes:
        series: the sums by pair.
        nodes: the sums by node.
        lookups: the sums by looked up name.
        services: the addresses behind each service; not kept, since every flow tells them again.
        incidents: open ones, and those of the last days.
        position: up to where the sums go.
        owner: tells this exporter from any other.
        restored: set once it is known what was kept.
    """

    def __init__(
        self,
        series: PairSeries,
        nodes: Nodes,
        lookups: Lookups,
        services: Services,
        incidents: Incidents,
    ) -> None:
        self.series = series
        self.nodes = nodes
        self.lookups = lookups
        self.services = services
        self.incidents = incidents
        self.position = Position(0, "")
        self.owner = uuid.uuid4().hex
        self.restored = asyncio.Event()
        self._left_out = LeftOut()
        self._shown_from = 0
        for each in (nodes, lookups):
            each.is_shown = lambda: self.is_complete

    def text(self, openmetrics: bool) -> str:
        """The metrics by pair, as `PairSeries.text`."""
        return self.series.text(openmetrics) if self.is_complete else ""

    @property
    def is_complete(self) -> bool:
        """Whether they are no lower than those that were shown before a restart."""
        return self.restored.is_set() and self.position.next_sequence >= self._shown_from

    def restore(self, position: Position, kept: Kept | None, last_sequence: int) -> None:
        """Go on from what was kept, when the stream's last message was `last_sequence`.

        Raises:
            ValueError: if another version with other labels kept it.
        """
        if kept is not None:
            self.series.restore(kept.sums)
            self.nodes.restore(kept.nodes)
            self.lookups.restore(kept.lookups)
            try:
                self.incidents.restore(kept.incidents, kept.past_incidents)
            except ValueError as error:  # their next verdicts will tell
                log.warning("cannot go on from the open incidents that were kept: %s", error)
            self.incidents.next_sequence = kept.next_verdict
        self.position = position
        self._shown_from = last_sequence + 1

    def kept(self) -> Kept:
        """What has been added up, to go on from."""
        # The number first: a verdict that comes in between is read twice rather than never.
        next_verdict = self.incidents.next_sequence
        open_now, past = self.incidents.kept()
        sums = (self.series.kept(), self.nodes.kept())
        return Kept(*sums, open_now, next_verdict, self.lookups.kept(), past)

    def add(self, message: Msg) -> None:
        """Add a message's rows, unless they have been.

        Raises:
            MalformedMessage: if it cannot be read.
        """
        sequence = message.metadata.sequence.stream
        if sequence < self.position.next_sequence:
            return
        self.position = Position(sequence + 1, self.position.stream_created)
        header = IntervalHeader.decode(message.headers, enriched.SCHEMA)
        impossible: dict[str, int] = {}
        batch = enriched.decode(message.data, impossible)
        self._left_out.add(header.node, impossible)
        self.series.add(batch)
        self.nodes.add(header)
        self.lookups.add(batch)
        self.services.add(batch)
        _ROWS.inc(batch.num_rows)

    def all_read(self) -> None:
        """There are no further messages, so whatever was shown has been added."""
        self._shown_from = 0


class Adding:
    """How the exporter handles messages, and when it keeps what it has added up.

    Attributes:
        pull: where the messages come from.
        unfinished: which of them it died of.
    """

    def __init__(
        self,
        pull: JetStreamContext.PullSubscription,
        totals: Totals,
        store: KeptStore,
        unfinished: Unfinished,
    ) -> None:
        self.pull = pull
        self.unfinished = unfinished
        self._totals = totals
        self._store = store
        self._in_order = InOrder(unfinished)
        self._keeping: asyncio.Task[None] | None = None
        self._keep_next = time.monotonic() + _KEEP_SECONDS

    @classmethod
    async def open(
        cls, jetstream: JetStreamContext, context: Context, totals: Totals, before: "Adding | None"
    ) -> "Adding":
        """Go on from memory, else from what was kept, else from where an exporter was before.

        Raises:
            CannotRun: if another exporter has taken over from `before`, or starts at the same time.
            Unavailable: if the stream or its consumer cannot be had; the message says why.
            NatsError: if NATS does not answer.
        """
        await ensure_streams(jetstream, [FLOWS_ENRICHED], context.streams)
        info = await jetstream.stream_info(FLOWS_ENRICHED)
        created, last = str(info.created), info.state.last_seq
        if before is not None:
            await before.close()
        store = await KeptStore.open(jetstream, context.streams.stream_replicas, totals.owner)
        is_restored = True
        if before is not None:
            if store.is_anothers:
                raise CannotRun("another exporter is already running; stopping")
        elif not await _restore(store, totals, last):
            is_restored = False
            start = await after_acknowledged(jetstream, FLOWS_ENRICHED, _DURABLE)
            totals.position = Position(start, created)
        totals.restored.set()
        if totals.position.stream_created != created:
            log.warning("FLOWS_ENRICHED is a new stream: reading it from the start")
            totals.position = Position(1, created)
        if totals.position.next_sequence > last + 1:
            log.warning("NATS has lost the last messages of FLOWS_ENRICHED")
            totals.position = Position(last + 1, created)
        if totals.position.next_sequence > last:
            totals.all_read()
        await store.claim(None if is_restored else totals.position)
        _KEPT.set_to_current_time()
        start = totals.position.next_sequence
        unfinished = before.unfinished if before else await Unfinished.open(store.bucket, start)
        log.info("reading from sequence %d", start)
        pull = await pull_from_sequence(
            jetstream, FLOWS_ENRICHED, _DURABLE, start, context.streams.max_ack_pending
        )
        return cls(pull, totals, store, unfinished)

    async def check(self) -> None:
        """Raises as `check_delivers`; if it does not, everything may have been read."""
        await check_delivers(self.pull)
        if await self._in_order.has_all(self.pull):
            self._totals.all_read()

    async def take(self, messages: list[Msg]) -> None:
        """Add messages and acknowledge them, and keep the totals if it is time to."""
        for message in messages:
            if await self._in_order.handle(message, self._totals.add):
                await finish(message)
                if not message.metadata.num_pending:
                    self._totals.all_read()
            await asyncio.sleep(0)
        if self._keeping is not None and self._keeping.done():
            keeping, self._keeping = self._keeping, None
            await keeping
        if self._keeping is None and time.monotonic() >= self._keep_next:
            self._keep_next = time.monotonic() + _KEEP_SECONDS
            kept = self._totals.kept()
            self._keeping = asyncio.create_task(self._keep(self._totals.position, kept))

    async def _keep(self, position: Position, kept: Kept) -> None:
        try:
            body = await asyncio.to_thread(kept.encode)
            await self._store.save(position, body)
            await self.unfinished.progress(position.next_sequence)
            _KEPT.set_to_current_time()
        except TRANSIENT_ERRORS as error:
            log.warning("cannot keep the totals in NATS: %s", error or type(error).__name__)

    async def close(self) -> None:
        """Wait until nothing is being kept any more."""
        if self._keeping is not None:
            await asyncio.wait([self._keeping])


async def _restore(store: KeptStore, totals: Totals, last: int) -> bool:
    """Go on from what was kept; False if nothing was that this version can go on from."""
    found = await store.load()
    if found is None:
        return False
    try:
        totals.restore(*found, last)
    except ValueError as error:
        log.warning("cannot go on from the totals that were kept: %s", error)
        return False
    return True
