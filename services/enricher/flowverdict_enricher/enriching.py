"""Raw messages to enriched ones, with all that has to be known for that."""

import contextlib
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import replace

import pyarrow as pa
from nats.aio.msg import Msg
from nats.js import JetStreamContext
from prometheus_client import Counter

from flowverdict_contracts import MalformedMessage, enriched, raw_records
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.raw_records import RawMessage
from flowverdict_contracts.subjects import FLOWS_RAW, SUBJECT_ENRICHED
from flowverdict_enricher.clocks import Clocks
from flowverdict_enricher.connections import Connections, Resolved
from flowverdict_enricher.directory import Directory
from flowverdict_enricher.enrich import Learnt, enrich
from flowverdict_enricher.host_pods import Hosted
from flowverdict_enricher.local_hops import LocalHops
from flowverdict_enricher.records import Records
from flowverdict_enricher.reports import Reports
from flowverdict_runtime.consumer import consume_each
from flowverdict_runtime.context import Context
from flowverdict_runtime.left_out import LeftOut
from flowverdict_runtime.streams import TooLarge, publish_until_stored

__all__ = ["Enriching"]

_ROWS = Counter("flowverdict_enricher_rows_total", "Flow rows enriched.")
_ENDS = Counter(
    "flowverdict_enricher_ends_total", "Flow endpoints by the kind they were resolved to.", ["kind"]
)
_SERVICE_ROWS = Counter(
    "flowverdict_enricher_service_rows_total",
    "Flow rows with a service's address, by whether it is known which pod answered.",
    ["backend"],
)

_OTHERS_SECONDS = 1.5
"""How long to wait for what other nodes report about the same time."""
_MOST_HEARD = 10_000


class Enriching:
    """Enriches the messages that this enricher gets, and learns from all of them."""

    def __init__(self, context: Context, directory: Directory) -> None:
        self._context = context
        self._directory = directory
        self._connections = Connections(directory)
        self._local_hops = LocalHops()
        self._reports = Reports()
        self._clocks = Clocks()
        self._left_out = LeftOut()
        self._heard: OrderedDict[str, None] = OrderedDict()  # ids of messages

    async def all_of(self, jetstream: JetStreamContext) -> None:
        """Enrich every message until the service stops."""

        async def handle(message: Msg) -> bool:
            return await self._enrich(jetstream, message)

        await consume_each(jetstream, self._context, FLOWS_RAW, "enricher", handle)

    async def hear(self, message: Msg) -> None:
        """Learn from what a node has just published, whichever enricher will enrich it."""
        with contextlib.suppress(MalformedMessage):  # counted by whoever enriches it
            raw = _read(message)
            self._learn(raw)
            self._heard[raw.header.message_id] = None
            if len(self._heard) > _MOST_HEARD:
                self._heard.popitem(last=False)
            await self._reports.add(raw.header)

    def _learn(self, raw: RawMessage) -> None:
        self._directory.host_pods.learn(raw)
        self._connections.learn(raw.header, raw.records)
        self._local_hops.learn(raw.header, raw.records)

    async def _enrich(self, jetstream: JetStreamContext, message: Msg) -> bool:
        raw = _read(message)
        header = raw.header
        if header.message_id not in self._heard:  # published while this was not connected
            self._learn(raw)
        records = self._local_hops.marked(header, raw.records)
        resolved, hosted = self._resolve(header, records, raw.owners)
        if resolved.missing or hosted.missing:
            await self._reports.complete(header.end_ns, _OTHERS_SECONDS)
            resolved, hosted = self._resolve(header, records, raw.owners)
        header = self._clocks.dated(header, message)
        batch, kinds = enrich(
            resolved.records, self._directory, (header.start_ns, header.end_ns), header.node,
            learnt=Learnt(resolved.services, hosted.names), dns_names=raw.names,
        )  # fmt: skip
        if not await self._publish(jetstream, header, batch):
            return False
        _ROWS.inc(batch.num_rows)
        _SERVICE_ROWS.labels("known").inc(sum(map(len, resolved.services.values())))
        _SERVICE_ROWS.labels("unknown").inc(resolved.unknown)
        self._left_out.add(header.node, raw.impossible)
        for kind, count in kinds.items():
            _ENDS.labels(kind).inc(count)
        return True

    def _resolve(
        self, header: IntervalHeader, records: Records, owners: Mapping[int, str]
    ) -> tuple[Resolved, Hosted]:
        """Who answers calls to services; and which pods are at the nodes' addresses."""
        resolved = self._connections.resolve(header, records)
        return resolved, self._directory.host_pods.find(header, resolved.records, owners)

    async def _publish(
        self, jetstream: JetStreamContext, header: IntervalHeader, batch: pa.RecordBatch
    ) -> bool:
        """Publish a batch, in two halves if NATS does not take it whole; False if the service is
        stopping.
        """
        body = enriched.encode(batch)
        try:
            return await publish_until_stored(
                jetstream, self._context, SUBJECT_ENRICHED, body, header.encode(enriched.SCHEMA)
            )
        except TooLarge:
            half = batch.num_rows // 2
            if not half:
                raise
        first, last = (
            enriched.piece_of(batch, *rows) for rows in ((0, half), (half, batch.num_rows))
        )
        rest = replace(
            header,
            piece=header.piece + half,
            lost_flow_updates=0,
            lost_sockets=0,
            skipped_runs=0,
            kernel_reports=(),
        )
        return await self._publish(jetstream, header, first) and await self._publish(
            jetstream, rest, last
        )


def _read(message: Msg) -> RawMessage:
    """As `raw_records.read`, of a message on the subject of its node."""
    raw = raw_records.read(message.headers, message.data)
    if message.subject != f"flows.raw.{raw.header.node}":
        raise MalformedMessage(f"a message from node {raw.header.node} on {message.subject}")
    return raw
