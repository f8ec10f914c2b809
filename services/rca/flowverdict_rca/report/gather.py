"""The verdicts of an incident, and the flows before, during and after it."""

from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import pyarrow as pa
from nats.aio.msg import Msg
from nats.js import JetStreamContext

from flowverdict_contracts import MalformedMessage, enriched, verdicts
from flowverdict_contracts.header import IntervalHeader
from flowverdict_contracts.subjects import FLOWS_ENRICHED, RCA_VERDICTS
from flowverdict_contracts.verdicts import Cause, Verdict, nanoseconds
from flowverdict_rca.batches import pairs_of
from flowverdict_rca.pairs import FIELDS, Endpoint, Pair, PairKey
from flowverdict_rca.ranking import roles_of
from flowverdict_runtime.reading import stored
from flowverdict_runtime.terminal import printable

__all__ = ["PHASES", "Counts", "Incident", "NoIncident", "gather"]

PHASES = ("before", "during", "after")
_BEFORE_NS = 60 * 10**9
_STEP_NS = 2 * 10**9
_MOST_MESSAGES = 5000
"""Of more, as a large cluster has in an hour, only every n-th second's are read."""


class NoIncident(LookupError):
    """There is no such incident on NATS; the message says what there is."""


@dataclass(slots=True)
class Counts:
    """Segments with payload, and how many of them were sent again."""

    sent: int = 0
    again: int = 0

    @property
    def ratio(self) -> float | None:
        """Retransmission ratio, at most 1; None where nothing was sent."""
        return min(1.0, self.again / self.sent) if self.sent else None


@dataclass(slots=True)
class Incident:
    """What a report is about.

    Attributes:
        verdicts: in order, from `opened` on.
        phases: name to start and end, UTC nanoseconds; `after` is missing where it is still open.
        pairs: counts by phase and pair.
        timeline: two seconds' start to counts of the flows that the cause explains, and of others.
        complete: False where the flows are no longer kept, or only a part of them.
        every_seconds: only the intervals of every so many seconds were read, there being many.
    """

    verdicts: list[Verdict]
    phases: dict[str, tuple[int, int]]
    pairs: dict[str, dict[PairKey, Counts]] = field(
        default_factory=lambda: {phase: defaultdict(Counts) for phase in PHASES}
    )
    timeline: dict[int, tuple[Counts, Counts]] = field(
        default_factory=lambda: defaultdict(lambda: (Counts(), Counts()))
    )
    complete: bool = True
    every_seconds: int = 1
    _explained: dict[PairKey, bool] = field(default_factory=dict)

    @property
    def worst(self) -> Verdict:
        """The verdict that rests on the most failing flows; of equals the last."""
        said = [each for each in self.verdicts if each.status != "resolved"]
        return max(enumerate(said), key=lambda each: (each[1].flows.failing, each[0]))[1]

    @property
    def cause(self) -> Cause | None:
        """Who is blamed, None where nothing was singled out."""
        return self.worst.causes[0] if self.worst.causes else None

    def explains(self, src: Endpoint, dst: Endpoint) -> bool:
        """Whether what `src` sends to `dst` is the blamed component's."""
        known = self._explained.get((src, dst))
        if known is None:
            blamed = self.cause and (self.cause.kind, self.cause.name, self.cause.direction)
            known = self._explained[src, dst] = any(
                (component.kind, component.name, direction) == blamed
                for component, direction in roles_of(Pair(src, dst))
            )
        return known

    @property
    def resolved(self) -> Verdict | None:
        """The verdict that resolved it, None where it is open."""
        return next((each for each in self.verdicts if each.status == "resolved"), None)


async def gather(
    jetstream: JetStreamContext, incident_id: str | None, tell: Callable[[str], None]
) -> Incident:
    """What NATS holds of an incident, the newest without an id; `tell` hears what takes long.

    Raises:
        NoIncident: where there is none.
        NatsError: where NATS does not answer.
    """
    incident = Incident(await _verdicts(jetstream, incident_id), {})
    opened, last = incident.verdicts[0], incident.verdicts[-1]
    start = nanoseconds(opened.window.start)
    incident.phases["before"] = (start - _BEFORE_NS, start)
    if incident.resolved is None:
        incident.phases["during"] = (start, nanoseconds(last.window.end))
    else:
        ongoing = [each for each in incident.verdicts if each.status != "resolved"]
        incident.phases["during"] = (start, nanoseconds(ongoing[-1].window.end))
        after = nanoseconds(incident.resolved.window.end)
        incident.phases["after"] = (after, after + _BEFORE_NS)
    await _add_flows(jetstream, incident, tell)
    return incident


async def _verdicts(jetstream: JetStreamContext, incident_id: str | None) -> list[Verdict]:
    found: list[Verdict] = []
    first_stored: dict[str, int] = {}
    async for message in stored(jetstream, RCA_VERDICTS, headers_only=True):
        if known := _incident_of(message):
            # The newest is the one that was spoken of last.
            first_stored[known] = first_stored.pop(known, message.metadata.sequence.stream)
    if not first_stored:
        raise NoIncident("there is no verdict on NATS: no incident has been found so far")
    wanted = list(first_stored)[-1] if incident_id is None else incident_id
    if wanted not in first_stored:
        some = printable(", ".join(list(first_stored)[-5:]))
        raise NoIncident(f"there is no incident {wanted}; the newest are {some}")
    async for message in stored(jetstream, RCA_VERDICTS, since_sequence=first_stored[wanted]):
        if _incident_of(message) == wanted:
            try:
                found.append(verdicts.decode(message.data))
            except MalformedMessage:
                continue
    found.sort(key=lambda each: each.window.end)
    if not any(each.status != "resolved" for each in found):
        raise NoIncident(f"of incident {wanted} only the end is kept")
    return found


def _incident_of(message: Msg) -> str:
    """The incident that a stored verdict is about, from its message id; empty where it has none."""
    return (message.headers or {}).get("Nats-Msg-Id", "").rpartition("/")[0]


async def _add_flows(
    jetstream: JetStreamContext, incident: Incident, tell: Callable[[str], None]
) -> None:
    """Add up the flows from the phases' start to their end."""
    start, end = incident.phases["before"][0], list(incident.phases.values())[-1][1]
    earliest: int | None = None
    async for message in stored(jetstream, FLOWS_ENRICHED, since_ns=start):
        try:
            header = IntervalHeader.decode(message.headers, enriched.SCHEMA)
            middle = (header.start_ns + header.end_ns) // 2
            if earliest is None:
                messages = message.metadata.num_pending + 1
                incident.every_seconds = -(-messages // _MOST_MESSAGES)
                tell(f"reading {messages} messages of flows …")
            earliest = middle if earliest is None else min(earliest, middle)
            is_read = middle // 10**9 % incident.every_seconds == 0
            if start <= middle < end and is_read:
                _add_batch(incident, middle, enriched.decode(message.data))
        except MalformedMessage:
            continue
    incident.complete = earliest is not None and earliest < incident.phases["during"][0]


def _add_batch(incident: Incident, middle: int, batch: pa.RecordBatch) -> None:
    phase = next((n for n, (s, e) in incident.phases.items() if s <= middle < e), None)
    slots = incident.timeline[middle // _STEP_NS * _STEP_NS]
    for row in pairs_of(batch):
        sums = dict(zip(FIELDS, row.sums.tolist(), strict=True))
        added = [slots[0 if incident.explains(row.src, row.dst) else 1]]
        if phase is not None:
            added.append(incident.pairs[phase][row.src, row.dst])
        for each in added:
            each.sent += sums["data_segments_sent"] + sums["syn_retransmits"]
            each.again += sums["retransmitted_segments"]
