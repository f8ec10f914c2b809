"""Publishes what the kernel counted, interval by interval, each message exactly once.

The kernel swaps its maps; the one that no longer changes is read, published, and emptied only once
NATS has stored all of it. How far that got is kept in the kernel, too (`progress`).
"""

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from nats.js import JetStreamContext
from prometheus_client import Counter, Gauge

from flowverdict_collector import progress
from flowverdict_collector.intervals import Intervals
from flowverdict_collector.kernel import FlowMaps
from flowverdict_collector.names import LookedUpNames
from flowverdict_collector.owners import Owners
from flowverdict_collector.progress import Progress
from flowverdict_contracts.byte_columns import pack
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.kernel_reports import KernelReport
from flowverdict_contracts.raw import MOST_RECORDS, RECORD_BYTES, SCHEMA
from flowverdict_contracts.subjects import raw_subject
from flowverdict_runtime.context import Context
from flowverdict_runtime.streams import TooLarge, publish_until_stored

__all__ = ["REQUIRED_MAPS", "Publisher"]

log = logging.getLogger(__name__)

REQUIRED_MAPS = {"flows_even", "flows_odd", "active_flows", "lost", "progress"}
"""The kernel maps that a publisher reads."""

_SKIPPED_AT_ONCE = 512

_SCHEMA_NAME, _, _SCHEMA_NUMBER = SCHEMA.partition("/")

_FLOWS = Counter("flowverdict_collector_flows_total", "Flow records published.")
_INTERVALS = Counter("flowverdict_collector_intervals_total", "Intervals published.")
_LOST = Counter(
    "flowverdict_collector_lost_total", "Items that did not fit in the kernel maps.", ["what"]
)
_INTERVAL = Gauge(
    "flowverdict_collector_interval_seconds",
    "Length of the last interval; grows while NATS is unavailable and the kernel keeps counting.",
)
_DRAIN = Gauge("flowverdict_collector_drain_seconds", "Time the last drain of the kernel map took.")


class Publisher:
    """Publishes the intervals of one set of kernel maps.

    Args:
        node: Kubernetes name of the node.
        maps: map name to descriptor.
        counted: returns those of packed records, of the given size, that are counted here.
        drain: the program that counts what the others left, if they leave anything.
        skipped_runs: returns how many events the kernel has skipped since it runs the programs.
        kernel_reports: returns what its log has said since the last call.

    Attributes:
        is_new: whether no collector has published from these maps before.
    """

    def __init__(
        self,
        node: str,
        maps: Mapping[str, int],
        counted: Callable[[bytes, int], bytes],
        drain: int | None = None,
        skipped_runs: Callable[[], int] = lambda: 0,
        kernel_reports: Callable[[], tuple[KernelReport, ...]] = tuple,
    ) -> None:
        self._node = node
        self._counted = counted
        self._skipped_runs = skipped_runs
        self._kernel_reports = kernel_reports
        self._reported: tuple[KernelReport, ...] = ()
        self._flows = FlowMaps(maps, drain)
        self._progress_map = maps["progress"]
        self._progress = progress.load(self._progress_map)
        self._intervals = Intervals(self._progress.end_ns, self._progress.ended_at_ns)
        self._records = _Records(self._flows)
        self._names = LookedUpNames(maps)
        self._owners = Owners(maps)
        self._part_records = MOST_RECORDS
        self.is_new = not self._progress.run_id
        if self.is_new:
            self._save(
                Progress(
                    run_id=secrets.randbits(48) or 1,
                    end_ns=self._intervals.end_ns,
                    ended_at_ns=self._intervals.ended_at_ns,
                    schema=int(_SCHEMA_NUMBER),
                )
            )
        # A collector that was killed may have swapped the maps and not come further.
        self._is_swapped = not self._progress.parts and self._flows.count() > 0

    @property
    def run_id(self) -> str:
        """Identifies these maps' messages."""
        return f"{self._progress.run_id:012x}"

    @property
    def _schema(self) -> int:
        """That of the records, by their size: what began in one version may go on in the next."""
        is_ours = self._flows.record_bytes == RECORD_BYTES
        return int(_SCHEMA_NUMBER) if is_ours else self._progress.schema

    async def publish(self, jetstream: JetStreamContext, context: Context) -> bool:
        """Publish the interval that was left behind or, if there is none, the one that ends now.

        False if the service is stopping and NATS has not stored all of it. While NATS is
        unavailable this does not return, and the kernel keeps counting.
        """
        await asyncio.to_thread(self._end_interval)
        now = self._progress
        while now.stored < now.parts:
            part = await asyncio.to_thread(self._next_part)
            counted = self._counted(part, self._flows.record_bytes)
            names, owners = b"", b""
            if self._schema == int(_SCHEMA_NUMBER):  # what an earlier version counted has its own
                names, owners = await asyncio.to_thread(self._texts_of, counted)
            header = replace(
                self._header(now),
                names_bytes=len(names),
                owners_bytes=len(owners),
                is_packed=True,
            )
            headers = header.encode(f"{_SCHEMA_NAME}/{self._schema}")
            packed = pack(counted, self._flows.record_bytes)
            subject, body = raw_subject(self._node), packed + names + owners
            try:
                if not await publish_until_stored(jetstream, context, subject, body, headers):
                    self._records.put_back(part)
                    return False
            except TooLarge as error:
                if now.part_records > 1:
                    log.warning("%s: sending fewer records in a message", error)
                    self._records.put_back(part)
                    now = _in_smaller_parts(now, await asyncio.to_thread(self._flows.count))
                    self._part_records = now.part_records
                    self._save(now)
                    continue
                log.error("left out: %s", error)
                _LOST.labels("records_too_large").inc()
            else:
                _FLOWS.inc(len(counted) // self._flows.record_bytes)
            now = replace(now, stored=now.stored + 1)
            self._save(now)
        await asyncio.to_thread(self._flows.discard)
        self._names.published_until(now.ended_at_ns)
        self._save(replace(now, sequence=now.sequence + now.parts, parts=0, stored=0))
        _INTERVALS.inc()
        _INTERVAL.set((now.end_ns - now.start_ns) / 1e9)
        return True

    async def publish_all(self, jetstream: JetStreamContext, context: Context) -> bool:
        """Publish everything that was counted, though nothing counts any longer; see `publish`."""
        was_left = self._is_swapped or self._progress.parts > 0
        stored = await self.publish(jetstream, context)
        return stored and (not was_left or await self.publish(jetstream, context))

    def unpublished(self) -> int:
        """Records that NATS has not stored, including what was counted since."""
        stored = self._progress.stored * self._progress.part_records
        waiting = self._flows.count() if self._progress.parts else 0
        return max(0, waiting - stored) + self._flows.count(active=True)

    def _texts_of(self, records: bytes) -> tuple[bytes, bytes]:
        record_bytes = self._flows.record_bytes
        return self._names.of(records, record_bytes), self._owners.of(records, record_bytes)

    def _save(self, now: Progress) -> None:
        progress.store(self._progress_map, now)
        self._progress = now

    def _end_interval(self) -> None:
        """Let the interval end now, unless there is one that was left behind."""
        if self._progress.parts:
            return
        began = time.monotonic()
        if not self._is_swapped:
            self._flows.swap()
        self._is_swapped = False
        self._save(self._interval(self._flows.count()))
        self._records = _Records(self._flows)
        self._reported = self._kernel_reports()
        _DRAIN.set(time.monotonic() - began)

    def _next_part(self) -> bytes:
        now = self._progress
        return self._records.next(now.stored * now.part_records, now.part_records)

    def _interval(self, records: int) -> Progress:
        """The interval that ends now, with that many records."""
        before, lost, skipped = self._progress, self._flows.lost(), self._skipped_runs()
        start_ns, end_ns = self._intervals.next()
        now = replace(
            before,
            start_ns=start_ns,
            end_ns=end_ns,
            ended_at_ns=self._intervals.ended_at_ns,
            parts=max(1, -(-records // self._part_records)),
            stored=0,
            part_records=self._part_records,
            lost_flow_updates=lost.flow_updates,
            lost_sockets=lost.sockets,
            newly_lost_flow_updates=lost.flow_updates - before.lost_flow_updates,
            newly_lost_sockets=lost.sockets - before.lost_sockets,
            skipped_runs=skipped,
            # Another version of the programs begins at 0.
            newly_skipped_runs=max(0, skipped - before.skipped_runs),
        )
        _LOST.labels("flow_updates").inc(now.newly_lost_flow_updates)
        _LOST.labels("sockets").inc(now.newly_lost_sockets)
        return now

    def _header(self, now: Progress) -> IntervalHeader:
        """The header of the next message to store."""
        is_first = now.stored == 0
        return IntervalHeader(
            node=self._node,
            run_id=self.run_id,
            sequence=now.sequence + now.stored + 1,
            start_ns=now.start_ns,
            end_ns=now.end_ns,
            part=now.stored + 1,
            parts=now.parts,
            lost_flow_updates=now.newly_lost_flow_updates if is_first else 0,
            lost_sockets=now.newly_lost_sockets if is_first else 0,
            skipped_runs=now.newly_skipped_runs if is_first else 0,
            kernel_reports=self._reported if is_first else (),
        )


class _Records:
    """The records of an interval, read part by part: all of them would take too much memory."""

    def __init__(self, flows: FlowMaps) -> None:
        self._batches = flows.read()
        self._record_bytes = flows.record_bytes
        self._at = 0
        self._read = b""

    def next(self, first: int, count: int) -> bytes:
        """As many of the records from the number `first` on, at most; those before are skipped."""
        while self._at < first and self._take(min(first - self._at, _SKIPPED_AT_ONCE)):
            pass
        return self._take(count)

    def put_back(self, records: bytes) -> None:
        """Return to before what was taken last."""
        self._at -= len(records) // self._record_bytes
        self._read = records + self._read

    def _take(self, count: int) -> bytes:
        size, parts = count * self._record_bytes, [self._read]
        available = len(self._read)
        while available < size and (batch := next(self._batches, None)) is not None:
            parts.append(batch)
            available += len(batch)
        joined = b"".join(parts)
        taken, self._read = joined[:size], joined[size:]
        self._at += len(taken) // self._record_bytes
        return taken


def _in_smaller_parts(now: Progress, records: int) -> Progress:
    """An interval of which NATS did not take the next part, with half as many records in each.

    What is stored counts as twice as many parts, but has no more sequence numbers.
    """
    part_records = now.part_records // 2
    stored = now.stored * now.part_records // part_records
    return replace(
        now,
        part_records=part_records,
        parts=max(stored + 1, -(-records // part_records)),
        stored=stored,
        sequence=max(0, now.sequence + now.stored - stored),
    )
