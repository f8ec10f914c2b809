"""Incidents as metrics: the cause, its score, and which flows it explains."""

import math
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.verdicts import Cause, Verdict, decode, encode
from flowverdict_exporter.incident_labels import (
    EXPLAINS_LABELS,
    INCIDENT_LABELS,
    explained,
    labels_of,
)
from flowverdict_exporter.past_incidents import PastIncident, PastIncidents

__all__ = ["FORGET_SECONDS", "STALE_SECONDS", "Incidents", "KeptIncident"]

STALE_SECONDS = 120.0
"""An incident without a verdict for this long is stale: the RCA worker is gone."""
FORGET_SECONDS = 7 * 86400.0
"""A stale incident is shown for this long, since nobody has said that it is over."""
_OTHERS_SECONDS = 600.0
"""Or until the RCA worker has been there again for this long and has not mentioned it, or NATS has
lost its store so long ago: the RCA worker's state was there, too.
"""

_MAX_OPEN = 1000

RULE_LABELS = ("incident_id", "antecedents", "consequents")


@dataclass(frozen=True, slots=True)
class _Open:
    verdict: Verdict
    summary: str
    received: float
    most_failing: int

    @property
    def cause(self) -> Cause | None:
        return self.verdict.causes[0] if self.verdict.causes else None


@dataclass(frozen=True, slots=True)
class _Number:
    """A gauge with one series for each open incident."""

    name: str
    meaning: str
    of: Callable[[_Open], float]


_NUMBERS = (
    _Number(
        "flowverdict_incident_stale",
        "1 if nothing has been heard of the incident for two minutes: the RCA worker is gone, and "
        "nobody knows whether it goes on.",
        lambda each: float(time.monotonic() - each.received > STALE_SECONDS),
    ),
    _Number(
        "flowverdict_incident_score",
        "How well the cause explains the failing flows, 0 to 1.",
        lambda each: each.cause.score if each.cause else 0.0,
    ),
    _Number(
        "flowverdict_incident_critical",
        "1 if the incident is worth waking somebody, 0 if it is a warning.",
        lambda each: float(each.verdict.severity == "critical"),
    ),
    _Number(
        "flowverdict_incident_explains_ratio",
        "Share of the failing flows that the cause explains.",
        lambda each: each.cause.explains if each.cause else 0.0,
    ),
    _Number(
        "flowverdict_incident_failing_flows",
        "Directed pairs of endpoints that failed in the last window.",
        lambda each: each.verdict.flows.failing,
    ),
    _Number(
        "flowverdict_incident_opened_timestamp_seconds",
        "When the incident was opened, as a Unix timestamp.",
        lambda each: datetime.fromisoformat(each.verdict.opened_at).timestamp(),
    ),
)


_MEASURES = ("support", "confidence", "lift")


def _same_cause(one: Verdict, other: Verdict) -> bool:
    names = [[(c.kind, c.name) for c in each.causes[:1]] for each in (one, other)]
    return names[0] == names[1]


@dataclass(frozen=True, slots=True)
class KeptIncident:
    """An open incident, to go on from.

    Attributes:
        verdict: the last on it, as on NATS.
        summary: as it is shown.
        age_seconds: since it was received.
        most_failing: the most flows that failed in one of its windows.
    """

    verdict: bytes
    summary: str
    age_seconds: float
    most_failing: int = 0


class Incidents(Collector):
    """The open and the resolved incidents; a collector for a `prometheus_client` registry.

    Open ones are shown once all verdicts have been read: the last one may resolve them.

    Attributes:
        next_sequence: number of the next verdict to read from its stream.
    """

    def __init__(self) -> None:
        self.next_sequence = 1
        self._is_read = False
        self._open: dict[str, _Open] = {}
        self._last_window: dict[str, tuple[str, float]] = {}
        self._heard = self._heard_since = -math.inf
        self._renewed = math.inf
        self._past = PastIncidents()
        self._lock = threading.Lock()

    def kept(self) -> tuple[list[KeptIncident], list[PastIncident]]:
        """The open and the resolved incidents, to go on from."""
        now = time.monotonic()
        with self._lock:
            still_open = [
                KeptIncident(
                    encode(each.verdict), each.summary, now - each.received, each.most_failing
                )
                for each in self._open.values()
            ]
            return still_open, self._past.kept()

    def restore(self, kept: Iterable[KeptIncident], past: Iterable[PastIncident]) -> None:
        """Go on from there, but for what has been heard since.

        Raises:
            ValueError: if another version kept the open ones; then only the others are restored.
        """
        now = time.monotonic()
        with self._lock:
            self._past.restore(past)
        try:
            known = [
                _Open(decode(e.verdict), e.summary, now - e.age_seconds, e.most_failing)
                for e in kept
            ]
        except MalformedMessage as error:
            raise ValueError(str(error)) from None
        with self._lock:
            for each in known:
                name = each.verdict.incident_id
                if name not in self._last_window:
                    self._open[name] = each
                    self._last_window[name] = each.verdict.window.end, each.received

    def caught_up(self) -> None:
        """All verdicts there are have been added."""
        self._is_read = True

    def renewed(self) -> None:
        """The stream of verdicts is a new one."""
        self._renewed = time.monotonic()

    def add(self, verdict: Verdict, age_seconds: float = 0.0) -> None:
        """Add a verdict; one from before the last is ignored.

        Args:
            verdict: what was published.
            age_seconds: how long ago, by a clock that may be wrong: what comes once all had been
                read is new.
        """
        heard = time.monotonic() - (0 if self._is_read else age_seconds)
        with self._lock:
            if heard - self._heard > STALE_SECONDS:
                self._heard_since = heard
            self._heard = max(heard, self._heard)
            oldest = self._oldest(heard)
            self._open = {i: each for i, each in self._open.items() if each.received > oldest}
            self._last_window = {
                i: each for i, each in self._last_window.items() if each[1] > oldest
            }
            last, _ = self._last_window.get(verdict.incident_id, ("", 0.0))
            if verdict.window.end < last:
                return
            self._last_window[verdict.incident_id] = (verdict.window.end, heard)
            known = self._open.get(verdict.incident_id)
            if verdict.status == "resolved":
                self._open.pop(verdict.incident_id, None)
                self._past.add(verdict, known.most_failing if known is not None else None)
                return
            if known is None and len(self._open) >= _MAX_OPEN:
                return
            # The figures in a summary change; as a label, each change would be a new series.
            same = known is not None and _same_cause(known.verdict, verdict)
            summary = known.summary if known is not None and same else verdict.summary
            before = known.most_failing if known is not None else 0
            most_failing = max(before, verdict.flows.failing)
            self._open[verdict.incident_id] = _Open(verdict, summary, heard, most_failing)

    def _oldest(self, now: float) -> float:
        """When an incident must have been heard of to be still taken for open at `now`."""
        if now - self._heard < STALE_SECONDS and now - self._heard_since > _OTHERS_SECONDS:
            return now - _OTHERS_SECONDS
        if now - self._renewed > _OTHERS_SECONDS:
            return max(now - FORGET_SECONDS, self._renewed)
        return now - FORGET_SECONDS

    def collect(self) -> Iterator[Metric]:
        """The metrics, for a scrape."""
        with self._lock:
            oldest = self._oldest(time.monotonic())
            shown = self._open.values() if self._is_read else ()
            incidents = [each for each in shown if each.received > oldest]
            past = list(self._past.families())
        if self._is_read:
            yield GaugeMetricFamily(
                "flowverdict_open_incidents",
                "Incidents that are open; not there until all verdicts have been read.",
                value=len(incidents),
            )
        active = GaugeMetricFamily(
            "flowverdict_incident_active",
            "1 for each open incident, labelled with its cause; empty if none was identified.",
            labels=INCIDENT_LABELS,
        )
        explains = GaugeMetricFamily(
            "flowverdict_incident_explains",
            "1 for each set of labels whose flows an open incident explains.",
            labels=EXPLAINS_LABELS,
        )
        info = GaugeMetricFamily(
            "flowverdict_incident_info",
            "1 for each open incident; the summary of its first verdict with this cause.",
            labels=["incident_id", "summary"],
        )
        for each in incidents:
            active.add_metric(labels_of(each.verdict), 1)
            info.add_metric([each.verdict.incident_id, each.summary], 1)
            for labels in explained(each.cause) if each.cause else ():
                full = {"incident_id": each.verdict.incident_id, **labels}
                explains.add_metric([full.get(name, "") for name in EXPLAINS_LABELS], 1)
        yield active
        yield info
        yield explains
        for measure in _MEASURES:
            family = GaugeMetricFamily(
                f"flowverdict_incident_rule_{measure}",
                f"The {measure} of each association rule behind an open incident.",
                labels=RULE_LABELS,
            )
            for each in incidents:
                sides = {
                    (", ".join(rule.antecedents), ", ".join(rule.consequents)): rule
                    for rule in each.verdict.rules
                }
                for both, rule in sides.items():
                    family.add_metric((each.verdict.incident_id, *both), getattr(rule, measure))
            yield family
        for number in _NUMBERS:
            family = GaugeMetricFamily(number.name, number.meaning, labels=["incident_id"])
            for each in incidents:
                family.add_metric([each.verdict.incident_id], number.of(each))
            yield family
        yield from past
