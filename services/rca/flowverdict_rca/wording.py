"""The sentence a person reads at 3 a.m."""

from collections.abc import Sequence

from flowverdict_contracts.verdicts import Cause, FlowCounts
from flowverdict_rca.pairs import Pair

__all__ = ["resolved", "summary", "undetermined"]

_LOOK_AT = {
    "pod": "Look at its interface, its CPU limit and its neighbours on the node.",
    "workload": "Look at its last rollout and what its pods have in common.",
    "node": "Look at the node's interfaces, drops, conntrack table and softirq load.",
    "link": "Look at network policies and the path between the two.",
    "node_link": "Look at the cables, switches and MTU between the two nodes.",
    "service": "Look at its endpoints and at the rules that translate its address.",
    "external": "It is outside the cluster: look at the way out and at that side.",
    "unknown": "Nothing in the cluster has this address: find out who does.",
}
_DIRECTION = {"sending": " that it sends", "receiving": " sent to it", "both": ""}


def summary(cause: Cause, explained: Sequence[Pair], flows: FlowCounts) -> str:
    """Who is to blame, on what evidence, and where to look."""
    where = f" on node {cause.node}" if cause.node and cause.kind != "node" else ""
    sent = sum(pair.segments for pair in explained)
    again = sum(pair.retransmitted_segments for pair in explained)
    parts = [
        f"{_capital(str(cause))}{where} is behind {len(explained)} of {flows.failing} failing flows"
        f"{_DIRECTION[cause.direction]}: {_percent(again, sent)} of the segments are sent again, "
        f"while {flows.ok} other flows are fine."
    ]
    if cause.alternatives:
        others = ", ".join(map(str, cause.alternatives))
        parts.append(f"The same flows would fail for {others}.")
    parts.append(_LOOK_AT[cause.kind])
    return " ".join(parts)


def undetermined(flows: FlowCounts) -> str:
    """Flows fail, and nothing singles out a cause."""
    return (
        f"{flows.failing} of {flows.failing + flows.ok} flows fail, and there is not enough"
        " evidence to name a cause: no pod, node or link takes part in most of the failing flows"
        " and in few of the others. Where nearly all fail, look at what they share."
    )


def resolved(causes: Sequence[Cause]) -> str:
    """What was said to be the cause no longer fails."""
    if not causes:
        return "The flows that failed without a clear cause have recovered."
    return f"{_capital(str(causes[0]))} has recovered: its flows are no longer failing."


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.0f} %" if whole else "all"
