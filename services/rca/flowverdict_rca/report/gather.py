"""The verdicts of an incident, and the flows before, during and after it."""

import contextlib
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
from nats.js import JetStreamContext

from flowverdict_contracts import MalformedMessage, enriched, verdicts
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.subjects import FLOWS_ENRICHED, RCA_VERDICTS
from flowverdict_contracts.timestamps import from_rfc3339
from flowverdict_contracts.verdicts import Cause, Verdict, most_telling
from flowverdict_flows.components import is_part, takes_part
from flowverdict_flows.endpoint import Endpoint
from flowverdict_flows.pairs import EndpointPairs, Numbers, PairSums
from flowverdict_rca.report.measure import COUNTED, FIELDS, Counts, Measure, measure_of
from flowverdict_runtime.stored_messages import newest_messages, stored_messages
from flowverdict_runtime.terminal import printable

__all__ = ["PHASES", "NoIncident", "PairKey", "ReportedIncident", "gather"]

PHASES = ("before", "during", "after")
_BEFORE_NS = 60 * 10**9
_STEP_NS = 2 * 10**9
_MAX_MESSAGES = 5000
"""If there are more, as in an hour of a large cluster, only every nth second is read."""


class NoIncident(LookupError):
    """There is no such incident in NATS; the message lists those that exist."""


PairKey = tuple[Endpoint, Endpoint]
"""Who sends, and to whom."""


@dataclass(slots=True)
class ReportedIncident:
    """What a report is about.

    Attributes:
        verdicts: in order, from `opened` on.
        phases: name to start and end, UTC nanoseconds; `after` is missing if it is still open.
        pairs: counts by phase and pair.
        timeline: start of a 2 s step to counts of the flows the cause explains, and of the others.
        complete: False if some or all of the flows have expired.
        every_seconds: if there are many flows, only one in this many seconds was read; else 1.
    """

    verdicts: list[Verdict]
    phases: dict[str, tuple[int, int]]
    pairs: dict[str, dict[PairKey, Counts]] = field(default_factory=dict)
    timeline: dict[int, tuple[Counts, Counts]] = field(default_factory=dict)
    complete: bool = True
    every_seconds: int = 1

    @property
    def worst(self) -> Verdict:
        """The verdict that the report is about."""
        found = most_telling(self.verdicts)
        assert found is not None  # an incident has been opened
        return found

    @property
    def measure(self) -> Measure:
        """What the pictures show."""
        return measure_of(self.worst)

    @property
    def cause(self) -> Cause | None:
        """What is blamed; None if nothing stood out."""
        return self.worst.causes[0] if self.worst.causes else None

    def explains(self, src: Endpoint, dst: Endpoint) -> bool:
        """Whether the flow from `src` to `dst` belongs to the blamed component."""
        if self.cause is None:
            return False
        if len(self.cause.ends) == 1 and self.cause.direction in ("sending", "receiving"):
            end = src if self.cause.direction == "sending" else dst
            return is_part(end, self.cause.ends[0])
        return takes_part(self.cause, {src}, {dst})

    @property
    def resolved(self) -> Verdict | None:
        """The verdict that resolved it; None if it is open."""
        return next((each for each in self.verdicts if each.status == "resolved"), None)


async def gather(
    jetstream: JetStreamContext, incident_id: str | None, tell: Callable[[str], None]
) -> ReportedIncident:
    """What NATS has on an incident, by default the newest; `tell` is called before slow steps.

    Raises:
        NoIncident: if there is none.
        NatsError: if NATS does not answer.
    """
    incident = ReportedIncident(await _verdicts(jetstream, incident_id), {})
    opened, last = incident.verdicts[0], incident.verdicts[-1]
    start = from_rfc3339(opened.window.start)
    if opened.basis != "failures":  # the window before showed it, too
        start -= from_rfc3339(opened.window.end) - start
    incident.phases["before"] = (start - _BEFORE_NS, start)
    if incident.resolved is None:
        incident.phases["during"] = (start, from_rfc3339(last.window.end))
    else:
        ongoing = [each for each in incident.verdicts if each.status != "resolved"]
        incident.phases["during"] = (start, from_rfc3339(ongoing[-1].window.end))
        after = from_rfc3339(incident.resolved.window.end)
        incident.phases["after"] = (after, after + _BEFORE_NS)
    await _add_flows(jetstream, incident, tell)
    return incident


async def _verdicts(jetstream: JetStreamContext, incident_id: str | None) -> list[Verdict]:
    """Those about an incident, in order; read from the newest back to the one that opened it."""
    found: list[Verdict] = []
    incidents: dict[str, None] = {}
    wanted = incident_id
    async for message in newest_messages(jetstream, RCA_VERDICTS):
        known = message.headers.get("Nats-Msg-Id", "").rpartition("/")[0]
        if not known:
            continue
        incidents.setdefault(known)
        wanted = wanted or known
        if known != wanted:
            continue
        with contextlib.suppress(MalformedMessage):
            found.append(verdicts.decode(message.data))
            if found[-1].status == "opened":
                break
    if not incidents:
        raise NoIncident("there is no verdict on NATS: no incident has been found so far")
    if wanted not in incidents:
        newest = printable(", ".join(reversed(list(incidents)[:5])))
        raise NoIncident(f"there is no incident {wanted}; the newest are {newest}")
    found.sort(key=lambda each: each.window.end)
    if not any(each.status != "resolved" for each in found):
        raise NoIncident(f"only the end of incident {wanted} is still stored")
    return found


class _Sums:
    """Sums by phase and pair, and over time."""

    def __init__(self, incident: ReportedIncident) -> None:
        self._incident = incident
        self._pairs = EndpointPairs()
        self._explained: dict[int, bool] = {}
        self._phases = {phase: PairSums(len(FIELDS), np.int64) for phase in incident.phases}
        self._timeline: dict[int, PairSums[np.int64]] = defaultdict(
            lambda: PairSums(len(FIELDS), np.int64)
        )

    def add(self, middle_ns: int, batch: pa.RecordBatch) -> None:
        """Add the rows of an interval whose middle is `middle_ns`."""
        rows = self._pairs.group(batch)
        rtt_us, vary_us = rows.largest("rtt_us"), rows.largest("rtt_variation_us")
        added = np.column_stack([rows.table(COUNTED), rtt_us, vary_us, rtt_us > 0])
        for phase, (start, end) in self._incident.phases.items():
            if start <= middle_ns < end:
                self._phases[phase].add(rows.numbers, added)
        others = np.array([not self._explains(number) for number in rows.numbers.tolist()], int)
        step = self._timeline[middle_ns // _STEP_NS * _STEP_NS]
        for which in (0, 1):
            step.add(np.array([which]), added[others == which].sum(axis=0, keepdims=True))

    def _explains(self, number: int) -> bool:
        known = self._explained.get(number)
        if known is None:
            known = self._explained[number] = self._incident.explains(*self._pairs.pair(number))
        return known

    def fill_incident(self) -> None:
        """Copy the sums to the incident."""
        for phase, sums in self._phases.items():
            seen = np.flatnonzero(sums.values.any(axis=1)).tolist()
            self._incident.pairs[phase] = {
                self._pairs.pair(number): _counts(sums.values[number]) for number in seen
            }
        for start_ns, sums in self._timeline.items():
            sums.reach(1)
            both = (_counts(sums.values[0]), _counts(sums.values[1]))
            self._incident.timeline[start_ns] = both


def _counts(sums: Numbers) -> Counts:
    return dict(zip(FIELDS, sums.tolist(), strict=True))


async def _add_flows(
    jetstream: JetStreamContext, incident: ReportedIncident, tell: Callable[[str], None]
) -> None:
    """Add up the flows from the phases' start to their end."""
    start, end = incident.phases["before"][0], list(incident.phases.values())[-1][1]
    earliest: int | None = None
    sums = _Sums(incident)
    last = (await jetstream.stream_info(FLOWS_ENRICHED)).state.last_seq
    async for message in stored_messages(jetstream, FLOWS_ENRICHED, since_ns=start):
        try:
            header = IntervalHeader.decode(message.headers, enriched.SCHEMA)
            middle = (header.start_ns + header.end_ns) // 2
            if earliest is None:
                messages = last - message.sequence + 1
                incident.every_seconds = -(-messages // _MAX_MESSAGES)
                tell(f"reading {messages} flow messages …")
            earliest = middle if earliest is None else min(earliest, middle)
            is_read = middle // 10**9 % incident.every_seconds == 0
            if start <= middle < end and is_read:
                sums.add(middle, enriched.decode(message.data))
        except MalformedMessage:
            continue
    sums.fill_incident()
    incident.complete = earliest is not None and earliest < incident.phases["during"][0]
