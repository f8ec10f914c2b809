"""Open incidents as metrics: the cause, its score, and which flows it explains."""

import itertools
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.verdicts import Cause, ComponentEnd, Verdict, decode, encode

__all__ = ["EXPLAINS_LABELS", "FORGET_SECONDS", "INCIDENT_LABELS", "STALE_SECONDS", "Incidents",
           "KeptIncident", "explained"]  # fmt: skip

STALE_SECONDS = 120.0
"""An incident without a verdict for this long is stale: the RCA worker is gone."""
FORGET_SECONDS = 6 * 3600.0
"""A stale incident is shown for this long, since nobody has said that it is over."""
_OTHERS_SECONDS = 600.0
"""Or until the RCA worker has been there again for this long and has not mentioned it."""

_MAX_OPEN = 1000
_MAX_LINK_ADDRESSES = 8

INCIDENT_LABELS = (
    "incident_id",
    "cause_kind",
    "cause_namespace",
    "cause_name",
    "cause_node",
    "direction",
)
RULE_LABELS = ("incident_id", "antecedents", "consequents")
EXPLAINS_LABELS = (
    "incident_id", "by", "src_ip", "src_namespace", "src_pod", "src_workload", "src_node",
    "src_zone", "dst_ip", "dst_namespace", "dst_pod", "dst_workload", "dst_node", "dst_zone",
)  # fmt: skip


def _flow_labels(component_end: ComponentEnd, end: str) -> dict[str, str]:
    """Labels of the flows that have a component at their `end` ("src", "dst")."""
    kind, namespace, name = component_end.kind, component_end.namespace, component_end.name
    if kind in ("node", "zone"):
        return {f"{end}_{kind}": name}
    if kind in ("pod", "workload"):
        return {f"{end}_namespace": namespace, f"{end}_{kind}": name}
    return {f"{end}_ip": name}


def explained(cause: Cause) -> list[dict[str, str]]:
    """Sets of labels; a flow that matches every label of one set is explained by `cause`.

    Each also has a label `by`, the joined names of the others, which inhibits flow alerts.
    """
    ends = {"sending": ("src",), "receiving": ("dst",)}.get(cause.direction, ("src", "dst"))
    if cause.kind == "node_link":
        # A link has no direction, so both ways count as explained.
        sets = [
            _flow_labels(src, "src") | _flow_labels(dst, "dst")
            for src, dst in itertools.permutations(cause.ends)
        ]
    elif cause.kind == "link":
        # Its ends may be pods, services, nodes or addresses; their addresses are known in any case.
        addresses = cause.addresses[:_MAX_LINK_ADDRESSES]
        sets = [{"src_ip": a, "dst_ip": b} for a, b in itertools.permutations(addresses, 2)]
    elif cause.kind in ("service", "label"):
        sets = [{f"{end}_ip": address} for end in ends for address in cause.addresses]
    else:
        sets = [_flow_labels(cause.ends[0], end) for end in ends]
    labelled = (
        {"by": "+".join(n for n in labels if not n.endswith("namespace")), **labels}
        for labels in sets
    )
    return [dict(pairs) for pairs in dict.fromkeys(tuple(each.items()) for each in labelled)]


@dataclass(frozen=True, slots=True)
class _Open:
    verdict: Verdict
    summary: str
    received: float

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
    """

    verdict: bytes
    summary: str
    age_seconds: float


class Incidents(Collector):
    """The currently open incidents; a collector for a `prometheus_client` registry.

    Attributes:
        next_sequence: number of the next verdict to read from its stream; 0 if that is not known.
    """

    def __init__(self) -> None:
        self.next_sequence = 0
        self._open: dict[str, _Open] = {}
        self._last_window: dict[str, tuple[str, float]] = {}
        self._heard = self._heard_since = -STALE_SECONDS
        self._lock = threading.Lock()

    def kept(self) -> list[KeptIncident]:
        """The open incidents, to go on from."""
        now = time.monotonic()
        with self._lock:
            return [
                KeptIncident(encode(each.verdict), each.summary, now - each.received)
                for each in self._open.values()
            ]

    def restore(self, kept: Iterable[KeptIncident]) -> None:
        """Go on from there, but for what has been heard since.

        Raises:
            ValueError: if another version kept them.
        """
        now = time.monotonic()
        try:
            known = [_Open(decode(e.verdict), e.summary, now - e.age_seconds) for e in kept]
        except MalformedMessage as error:
            raise ValueError(str(error)) from None
        with self._lock:
            for each in known:
                name = each.verdict.incident_id
                if name not in self._last_window:
                    self._open[name] = each
                    self._last_window[name] = each.verdict.window.end, each.received

    def add(self, verdict: Verdict) -> None:
        """Add a verdict; one older than the last is ignored."""
        now = time.monotonic()
        with self._lock:
            if now - self._heard > STALE_SECONDS:
                self._heard_since = now
            self._heard = now
            self._drop_stale(now)
            last, _ = self._last_window.get(verdict.incident_id, ("", 0.0))
            if verdict.window.end < last:
                return
            self._last_window[verdict.incident_id] = (verdict.window.end, now)
            if verdict.status == "resolved":
                self._open.pop(verdict.incident_id, None)
                return
            known = self._open.get(verdict.incident_id)
            if known is None and len(self._open) >= _MAX_OPEN:
                return
            # The figures in a summary change; as a label, each change would be a new series.
            same = known is not None and _same_cause(known.verdict, verdict)
            summary = known.summary if known is not None and same else verdict.summary
            self._open[verdict.incident_id] = _Open(verdict, summary, now)

    def _drop_stale(self, now: float) -> None:
        oldest = now - FORGET_SECONDS
        if now - self._heard < STALE_SECONDS and now - self._heard_since > _OTHERS_SECONDS:
            oldest = now - _OTHERS_SECONDS
        self._open = {i: each for i, each in self._open.items() if each.received > oldest}
        self._last_window = {i: each for i, each in self._last_window.items() if each[1] > oldest}

    def collect(self) -> Iterator[Metric]:
        """The metrics, for a scrape."""
        with self._lock:
            self._drop_stale(time.monotonic())
            incidents = list(self._open.values())
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
            active.add_metric(_labels(each), 1)
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


def _labels(incident: _Open) -> list[str]:
    verdict, cause = incident.verdict, incident.cause
    if cause is None:
        return [verdict.incident_id, "", "", "", "", ""]
    if len(cause.ends) == 1:
        namespace, name = cause.ends[0].namespace, cause.ends[0].name
    else:
        namespace, name = "", cause.name
    return [
        verdict.incident_id,
        cause.kind,
        namespace,
        name,
        cause.node,
        cause.direction,
    ]
