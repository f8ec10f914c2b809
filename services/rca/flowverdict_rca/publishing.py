"""Publishes verdicts, whatever NATS takes of them."""

import logging

import msgspec
from nats.js import JetStreamContext
from prometheus_client import Counter

from flowverdict_contracts import verdicts
from flowverdict_contracts.subjects import SUBJECT_VERDICTS
from flowverdict_contracts.verdicts import Verdict
from flowverdict_runtime.context import Context
from flowverdict_runtime.streams import TooLarge, publish_until_stored

__all__ = ["Publishing"]

log = logging.getLogger(__name__)

_VERDICTS = Counter("flowverdict_rca_verdicts_total", "Verdicts published.", ["status"])
_TOO_LARGE = Counter(
    "flowverdict_rca_verdicts_too_large_total",
    "Verdicts left out because they exceed the limits of NATS even without their details.",
)


class Publishing:
    """Publishes verdicts until they are stored.

    Args:
        jetstream: where to.
        context: of the service.
        cluster: which cluster they are about; empty if that is not known.
    """

    def __init__(self, jetstream: JetStreamContext, context: Context, cluster: str) -> None:
        self._jetstream = jetstream
        self._context = context
        self._cluster = cluster

    async def publish(self, published: list[Verdict]) -> bool:
        """Publish and log verdicts; False if the service is stopping and NATS did not store one."""
        for verdict in published:
            named = msgspec.structs.replace(verdict, cluster=self._cluster)
            if not await self._store(named):
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

    async def _store(self, verdict: Verdict) -> bool:
        """Publish a verdict, without its details if NATS does not take it with them."""
        headers = {"Nats-Msg-Id": verdict.id, "Flowverdict-Schema": verdicts.SCHEMA}
        brief = msgspec.structs.replace(
            verdict, rules=(), failing_flows=(), half_open=(), causes=verdict.causes[:1]
        )
        for each in (verdict, brief):
            try:
                return await publish_until_stored(
                    self._jetstream, self._context, SUBJECT_VERDICTS, verdicts.encode(each), headers
                )
            except TooLarge as error:
                log.warning("a verdict is too large, leaving out its details: %s", error)
        _TOO_LARGE.inc()
        return True
