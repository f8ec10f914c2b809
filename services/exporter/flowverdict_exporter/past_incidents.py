"""Resolved incidents as metrics, for as long as verdicts are kept."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric

from flowverdict_contracts.subjects import RCA_VERDICTS, STREAMS
from flowverdict_contracts.verdicts import Verdict
from flowverdict_exporter.incident_labels import INCIDENT_LABELS, labels_of

__all__ = ["MOST_PAST_INCIDENTS", "PastIncident", "PastIncidents"]

MOST_PAST_INCIDENTS = 500
_KEPT_SECONDS = STREAMS[RCA_VERDICTS].max_age or 0.0


@dataclass(frozen=True, slots=True)
class PastIncident:
    """An incident that is over.

    Attributes:
        labels: the values of `INCIDENT_LABELS`, with its last cause.
        opened: Unix time.
        resolved: Unix time.
        score: of its last cause; None if it had none.
        failing_flows: the most that failed in one of its windows; None if only its end was heard.
    """

    labels: tuple[str, ...]
    opened: float
    resolved: float
    score: float | None
    failing_flows: int | None


class PastIncidents:
    """The latest 500 of the last thirty days."""

    def __init__(self) -> None:
        self._past: dict[str, PastIncident] = {}

    def add(self, verdict: Verdict, failing_flows: int | None) -> None:
        """Add an incident, given the verdict that resolved it."""
        self.restore(
            [
                PastIncident(
                    tuple(labels_of(verdict)),
                    datetime.fromisoformat(verdict.opened_at).timestamp(),
                    datetime.fromisoformat(verdict.window.end).timestamp(),
                    verdict.causes[0].score if verdict.causes else None,
                    failing_flows,
                )
            ]
        )

    def kept(self) -> list[PastIncident]:
        """All of them, to go on from."""
        return list(self._past.values())

    def restore(self, kept: Iterable[PastIncident]) -> None:
        """Add those that were kept."""
        oldest = time.time() - _KEPT_SECONDS
        for each in kept:
            self._past.setdefault(each.labels[0], each)
        recent = (item for item in self._past.items() if item[1].resolved > oldest)
        latest = sorted(recent, key=lambda item: item[1].resolved)[-MOST_PAST_INCIDENTS:]
        self._past = dict(latest)

    def families(self) -> Iterator[Metric]:
        """The metrics, for a scrape."""
        oldest = time.time() - _KEPT_SECONDS
        resolved = GaugeMetricFamily(
            "flowverdict_resolved_incident_timestamp_seconds",
            "When an incident was resolved, as a Unix timestamp, labelled with its last cause: the "
            f"latest {MOST_PAST_INCIDENTS} of the last thirty days.",
            labels=INCIDENT_LABELS,
        )
        opened = _by_incident(
            "opened_timestamp_seconds", "when it had been opened, as a Unix timestamp."
        )
        score = _by_incident(
            "score", "how well its last cause explained the failing flows, 0 to 1."
        )
        failing = _by_incident(
            "failing_flows",
            "the most directed pairs of endpoints that failed in a window.",
        )
        for each in self._past.values():
            if each.resolved <= oldest:
                continue
            name = each.labels[:1]
            resolved.add_metric(each.labels, each.resolved)
            opened.add_metric(name, each.opened)
            if each.score is not None:
                score.add_metric(name, each.score)
            if each.failing_flows is not None:
                failing.add_metric(name, each.failing_flows)
        yield from (resolved, opened, score, failing)


def _by_incident(name: str, meaning: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(
        f"flowverdict_resolved_incident_{name}",
        f"Of a resolved incident: {meaning}",
        labels=["incident_id"],
    )
