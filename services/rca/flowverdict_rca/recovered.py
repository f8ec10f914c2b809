"""Where a worker without a saved state begins: at what it said last.

Its state may be lost, or another version's. Without this, flows of up to an hour would be judged
again, and an incident that ended meanwhile would stay open for whoever heard of it.
"""

from dataclasses import dataclass

from nats.js import JetStreamContext
from nats.js.errors import NotFoundError

from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.subjects import RCA_VERDICTS
from flowverdict_contracts.timestamps import from_rfc3339
from flowverdict_contracts.verdicts import Verdict, decode
from flowverdict_rca.incident import Incident
from flowverdict_runtime.stored_messages import newest_messages

__all__ = ["Recovered", "recovered"]

_LAST_NS = 600 * 10**9
"""An open incident has a verdict with each of its windows, which take half a minute at most."""


@dataclass(frozen=True, slots=True)
class Recovered:
    """What the last verdicts tell.

    Attributes:
        watermark_ns: end of the last window that had a verdict; 0 without one.
        incidents: those that are open.
    """

    watermark_ns: int
    incidents: tuple[Incident, ...]


async def recovered(jetstream: JetStreamContext) -> Recovered:
    """Read the verdicts of the last ten minutes in which there were any.

    Raises:
        NatsError: if JetStream does not answer.
    """
    last: dict[str, Verdict] = {}
    newest_ns = watermark_ns = 0
    try:
        async for message in newest_messages(jetstream, RCA_VERDICTS):
            newest_ns = newest_ns or message.stored_ns
            if newest_ns - message.stored_ns > _LAST_NS:
                break
            try:
                verdict = decode(message.data)
            except MalformedMessage:
                continue
            watermark_ns = max(watermark_ns, from_rfc3339(verdict.window.end))
            last.setdefault(verdict.incident_id, verdict)
    except NotFoundError:
        return Recovered(0, ())
    still_open = (each for each in last.values() if each.status != "resolved")
    return Recovered(watermark_ns, tuple(map(_incident, still_open)))


def _incident(verdict: Verdict) -> Incident:
    return Incident(
        id=verdict.incident_id,
        causes=verdict.causes,
        flows=frozenset(),
        opened_ns=from_rfc3339(verdict.opened_at),
        basis=verdict.basis,
        severity=verdict.severity,
    )
