"""Messages on `rca.verdicts`: what is behind the failing flows, how certain that is, and why.

JSON; the JSON Schema generated from these types is docs/verdict.schema.json.
"""

import inspect
from collections.abc import Iterable
from datetime import datetime
from typing import Annotated, Any, Literal

import msgspec

from flowverdict_contracts import MalformedMessage
from flowverdict_contracts.kernel_reports import KernelCondition

__all__ = [
    "MOST_NAMED",
    "Basis",
    "Cause",
    "Component",
    "ComponentEnd",
    "Condition",
    "Coverage",
    "Direction",
    "EndKind",
    "FailingFlow",
    "FlowCounts",
    "HalfOpen",
    "Kind",
    "NodeLosses",
    "NodeReport",
    "Rule",
    "Severity",
    "TimeWindow",
    "Verdict",
    "VerdictStatus",
    "decode",
    "encode",
    "in_words",
    "json_schema",
    "most_telling",
]

SCHEMA = "rca.verdicts/8"

VerdictStatus = Literal["opened", "ongoing", "resolved"]
EndKind = Literal["pod", "workload", "label", "node", "zone", "service", "external", "unknown"]
Kind = Literal[
    "pod",
    "workload",
    "label",
    "node",
    "zone",
    "link",
    "node_link",
    "workload_link",
    "service",
    "external",
    "unknown",
]
Direction = Literal["sending", "receiving", "both", "unknown"]
Condition = Literal[
    "HIGH_RETRANSMISSION_RATIO",
    "HIGH_LATENCY",
    "HIGH_JITTER",
    "SLOW_ANSWERS",
    "CONNECT_FAILURE",
    "DNS_FAILURE",
    "PACKET_DROPS",
    "RESET",
    "ZERO_WINDOW",
    "MTU_MISMATCH",
    "HALF_OPEN",
    "NODE_SILENT",
    "NO_READY_ENDPOINTS",
    "LINK_DOWN",
    "LINK_FLAP",
    "CONNTRACK_TABLE_FULL",
    "NEIGHBOUR_TABLE_OVERFLOW",
    "SYN_FLOODING",
]
Severity = Literal["critical", "warning"]
Basis = Literal[
    "failures",
    "losses",
    "drops",
    "connects",
    "resets",
    "half_open",
    "zero_windows",
    "latency",
    "jitter",
    "answers",
]

MOST_NAMED = 20
"""How many names a list in a verdict has at most; a number beside it says how many more."""

IncidentId = Annotated[str, msgspec.Meta(pattern=r"^[0-9a-f]{1,64}$(?!\n)")]
VerdictId = Annotated[
    str, msgspec.Meta(pattern=r"^[0-9a-f]{1,64}/[0-9]{1,20}(-[a-z]{1,20})?$(?!\n)")
]
Count = Annotated[int, msgspec.Meta(ge=0, le=1 << 53)]

_LINKS = ("link", "node_link", "workload_link")

_FIRST_YEAR, _LAST_YEAR = 1970, 2261


class _Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    pass


def in_words(kind: Kind, name: str) -> str:
    """A component as it is called in a sentence."""
    words = {
        "link": "the link",
        "node_link": "the link between nodes",
        "workload_link": "the link between workloads",
        "unknown": "address",
    }
    return f"{words.get(kind, kind)} {name}"


class ComponentEnd(_Record, frozen=True, kw_only=True):
    """Something with a name of its own: what a component is, or one end of a link.

    Attributes:
        namespace: of a pod, workload or service, else empty.
        name: as in Kubernetes, without the namespace; or an address.
    """

    kind: EndKind
    namespace: str = ""
    name: str

    def __str__(self) -> str:
        return f"{self.namespace}/{self.name}" if self.namespace else self.name


class Component(_Record, frozen=True, kw_only=True):
    """Something that can be at fault.

    Attributes:
        kind: `link` is the path between two endpoints, `node_link` that between two nodes,
            `workload_link` that between the pods of two workloads.
        name: for people: `namespace/pod`, a node's name, an address; for a link `A <-> B`, or
            `A -> B` if it fails this way only.
        ends: the same as separate fields, for programs: two for a link, in that order, else one.
    """

    kind: Kind
    name: str
    ends: tuple[ComponentEnd, ...]

    def __post_init__(self) -> None:
        if len(self.ends) != (2 if self.kind in _LINKS else 1):
            raise ValueError(f"a {self.kind} has {len(self.ends)} ends")

    def __str__(self) -> str:
        return in_words(self.kind, self.name)


class Cause(Component, frozen=True, kw_only=True):
    """A component, and how well blaming it explains the failing flows.

    Attributes:
        node: the node it runs on, empty if that does not apply.
        addresses: its addresses, the first of them if there are many.
        more_addresses: how many others.
        direction: whether the flows it sends, those it receives, or both fail; `unknown` if the
            collector that counts the other way is silent.
        score: F-measure with beta 0.5 of `precision` and `explains` (van Rijsbergen 1979), 0 to 1.
        precision: share of its flows that fail; confidence of the rule cause -> FAIL.
        explains: share of the failing flows that are its own; confidence of the rule FAIL -> cause.
        p_value: probability that so many failing flows are its own by chance (hypergeometric).
        alternatives: components with exactly the same flows, which cannot be told apart from it.
        more_alternatives: how many others.
        reported: what the cluster itself reports about it, in words; empty if nothing.
        candidates: the pods on the network of a node, as `NAMESPACE/NAME`, if only flows to its own
            addresses fail: it may be one of them. It is not known whose those flows are.
        more_candidates: how many others.
        service_addresses: of the services whose calls fail because of it, as those of which it is
            not known which pod behind the service was tried; the first of them if there are many.
    """

    node: str
    addresses: tuple[str, ...]
    direction: Direction
    score: float
    precision: float
    explains: float
    p_value: float
    alternatives: tuple[Component, ...] = ()
    more_addresses: Count = 0
    more_alternatives: Count = 0
    reported: str = ""
    candidates: tuple[str, ...] = ()
    more_candidates: Count = 0
    service_addresses: tuple[str, ...] = ()


class Rule(_Record, frozen=True, kw_only=True):
    """An association rule over the window's flows (Agrawal and Srikant, VLDB 1994).

    Items are components (`pod default/pod-a`, `node worker0`), conditions, and the status `OK` or
    `FAIL`.
    """

    antecedents: tuple[str, ...]
    consequents: tuple[str, ...]
    support: float
    confidence: float
    lift: float
    leverage: float
    p_value: float


class TimeWindow(_Record, frozen=True, kw_only=True):
    """The time that was judged; ISO 8601, UTC, `end` exclusive."""

    start: str
    end: str


class FlowCounts(_Record, frozen=True, kw_only=True):
    """Directed pairs of endpoints in the window; `undecided` sent too little to be judged.

    If losses are below the threshold, or round trips long, the pairs that show it are the failing
    ones.
    """

    failing: Count
    ok: Count
    undecided: Count


class FailingFlow(_Record, frozen=True, kw_only=True):
    """A directed pair of endpoints that fails, and its counts; they are named as in `flows.raw`.

    Attributes:
        retransmission_ratio: `retransmitted_data_segments / data_segments_sent`, at most 1; null if
            no data was sent.
        connect_retransmission_ratio: `(retransmitted_syns + retransmitted_synacks) / (opens +
            failed_opens)`; null if no attempt ended.
        rtt_us: smoothed RTT in microseconds, 0 if unknown.
        rtt_variation_us: how much round trips vary, in microseconds: their smoothed mean deviation
            (RFC 6298), 0 if unknown.
        answer_us: how long `dst` took to answer `src` on average, in microseconds, 0 if that is not
            known; the round trip is part of it.
        segments_sent: by `src` in the whole window, retransmissions and pure ACKs included.
        segments_arrived: how many of them `dst` counted; null if its end is not seen. The two ends
            are not read at the same moment.
        failed_names: the names whose lookups by `src` at `dst` went unanswered or returned an error
            other than NXDOMAIN, with how many did; the twenty that failed most.
        drop_reasons: packets that `src` sent and nodes' kernels dropped, by the kernel's own name
            of the reason (enum skb_drop_reason), OTHER for rarer ones.
        dropped_by_node: packets that `src` sent and a node's kernel dropped, by node, of those that
            dropped most. What did not arrive and no kernel dropped was lost on the way between
            them.
    """

    src: str
    dst: str
    retransmission_ratio: float | None
    connect_retransmission_ratio: float | None
    data_segments_sent: Count
    retransmitted_data_segments: Count
    retransmitted_syns: Count
    retransmitted_synacks: Count
    opens: Count
    failed_opens: Count
    refused_opens: Count
    timed_out_opens: Count
    unreachable_opens: Count
    dns_answers: Count
    dns_failures: Count
    dns_unanswered: Count
    rtt_us: Count
    rtt_variation_us: Count = 0
    answer_us: Count = 0
    resets_received: Count = 0
    segments_sent: Count
    segments_arrived: Count | None
    failed_names: dict[str, Count] = {}
    drop_reasons: dict[str, Count] = {}
    dropped_by_node: dict[str, Count] = {}


class HalfOpen(_Record, frozen=True, kw_only=True):
    """An endpoint that answers connection requests which never complete.

    Attributes:
        name: the endpoint.
        peers: how many other endpoints sent requests that got no further.
        retransmitted_synacks: SYN-ACK segments retransmitted to them in the window.
    """

    name: str
    peers: Count
    retransmitted_synacks: Count


class NodeReport(_Record, frozen=True, kw_only=True):
    """Lines of a node's kernel log that say the same, in the last two minutes.

    Attributes:
        count: how many.
        line: the newest, without its time.
    """

    node: str
    condition: KernelCondition
    count: Count
    line: Annotated[str, msgspec.Meta(max_length=200)]


class NodeLosses(_Record, frozen=True, kw_only=True):
    """What was not counted on a node in the window; each as in `Coverage`."""

    node: str
    lost_flow_updates: Count
    lost_sockets: Count
    skipped_runs: Count
    lost_messages: Count


class Coverage(_Record, frozen=True, kw_only=True):
    """How complete the data behind the verdict is.

    Attributes:
        nodes_reporting: nodes whose collector sent something in the window.
        nodes_silent: nodes that did in the last ten minutes, but not in the window.
        nodes_late: nodes whose clock is more than five seconds behind that of NATS, which dates
            what they count.
        more_nodes_reporting, more_nodes_silent, more_nodes_late: how many others, beyond the names.
        lost_flow_updates: counts lost because a kernel's flow map was full.
        lost_sockets: sockets not tracked because a kernel's socket map was full.
        skipped_runs: events that a kernel skipped, because it was just counting another; the next
            one of the same connection usually makes up for it.
        lost_messages: messages of collectors that never came, known a minute later.
        rows_late: rows that arrived after their window was judged.
        by_node: these losses by node, of those that lost most.
    """

    nodes_reporting: tuple[str, ...]
    nodes_silent: tuple[str, ...]
    nodes_late: tuple[str, ...]
    more_nodes_reporting: Count = 0
    more_nodes_silent: Count = 0
    more_nodes_late: Count = 0
    lost_flow_updates: Count
    lost_sockets: Count
    skipped_runs: Count = 0
    lost_messages: Count = 0
    rows_late: Count
    by_node: tuple[NodeLosses, ...] = ()


class Verdict(_Record, frozen=True, kw_only=True):
    """One judgement of one incident.

    Attributes:
        schema: name and version of this document's schema.
        id: unique; also the message id, so a verdict is stored once.
        incident_id: the same from `opened` to `resolved`.
        cluster: which cluster this is about, if the RCA worker was told (FLOWVERDICT_CLUSTER).
        opened_at: end of the window in which the incident was found.
        summary: one sentence that a person can act on.
        enough_evidence: False if flows fail but no cause stands out, or the cause is withheld;
            `causes` is then empty.
        causes: best first. The first is the verdict, the others fit less well.
        undecided_between: if the cause is withheld, the pods and nodes that fit equally well.
        nodes_needed: the silent nodes whose flows may tell them apart; empty if it is not withheld.
        basis: what was judged: flows that fail, in a window of seconds; or in a longer one losses,
            most of them too low to make a flow fail, packets that kernels drop, connection attempts
            that fail, most of them too few to make a flow fail, connections that are reset,
            requests that never complete, how often receivers have no room, how long round trips
            take, how much they vary, or how long servers take to answer.
        conditions: what was seen. HALF_OPEN alone never makes a flow fail.
        severity: `warning` if no cause stands out, or if the cause needs nobody at night: losses
            below the threshold, or latency, for example. Within an incident it only rises.
        fail_ratio: the threshold: a flow fails above this retransmission ratio.
        half_open: endpoints with connection requests that never completed, worst first.
        kernel_log: what the kernels of the cause's nodes reported, where collectors may read it.
    """

    schema: Literal["rca.verdicts/8"] = "rca.verdicts/8"
    id: VerdictId
    incident_id: IncidentId
    cluster: str = ""
    status: VerdictStatus
    opened_at: str
    window: TimeWindow
    summary: str
    enough_evidence: bool
    causes: tuple[Cause, ...]
    undecided_between: tuple[Component, ...] = ()
    nodes_needed: tuple[str, ...] = ()
    rules: tuple[Rule, ...]
    basis: Basis = "failures"
    conditions: tuple[Condition, ...]
    severity: Severity
    fail_ratio: float
    flows: FlowCounts
    failing_flows: tuple[FailingFlow, ...]
    half_open: tuple[HalfOpen, ...] = ()
    kernel_log: tuple[NodeReport, ...] = ()
    coverage: Coverage


def encode(verdict: Verdict) -> bytes:
    """The message body."""
    return msgspec.json.encode(verdict)


def decode(body: bytes) -> Verdict:
    """The verdict in a message body.

    Raises:
        MalformedMessage: if it is not a verdict, or has another schema version.
    """
    try:
        verdict = msgspec.json.decode(body, type=Verdict)
        for text in (verdict.opened_at, verdict.window.start, verdict.window.end):
            _check_time(text)
        if not verdict.id.startswith(f"{verdict.incident_id}/"):
            raise ValueError(f"{verdict.id} is no verdict on incident {verdict.incident_id}")
    except (msgspec.MsgspecError, ValueError) as error:
        raise MalformedMessage(f"not a verdict: {error}") from None
    return verdict


def most_telling(verdicts: Iterable[Verdict]) -> Verdict | None:
    """The verdict that shows an incident best, None if there is none: of those while it was open,
    the one with the most failing flows, then with the longest times if it is about them, else with
    the highest ratios, then the first.
    """

    def told(verdict: Verdict) -> tuple[int, float]:
        flows = verdict.failing_flows
        if "HIGH_LATENCY" in verdict.conditions:
            return verdict.flows.failing, float(sum(flow.rtt_us for flow in flows))
        if verdict.basis == "jitter":
            return verdict.flows.failing, float(sum(flow.rtt_variation_us for flow in flows))
        if "SLOW_ANSWERS" in verdict.conditions:
            return verdict.flows.failing, float(sum(flow.answer_us for flow in flows))
        ratios = (
            (flow.retransmission_ratio or 0.0) + (flow.connect_retransmission_ratio or 0.0)
            for flow in flows
        )
        return verdict.flows.failing, sum(ratios)

    open_ = [each for each in verdicts if each.status != "resolved"]
    return max(open_, key=told, default=None)


def _check_time(text: str) -> None:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None or not _FIRST_YEAR <= found.year <= _LAST_YEAR:
        raise ValueError(f"{text} is not a zoned time from {_FIRST_YEAR} to {_LAST_YEAR}")


def json_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of a verdict."""
    schema = msgspec.json.schema(Verdict)
    for described in schema["$defs"].values():
        described["description"] = inspect.cleandoc(described["description"])
    whole = {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
    plain: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(whole))
    return plain


if __name__ == "__main__":
    print(msgspec.json.format(msgspec.json.encode(json_schema()), indent=2).decode())
