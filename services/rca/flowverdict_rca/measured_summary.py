"""The sentence about what is above normal."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from flowverdict_contracts.verdicts import Basis, Cause, HalfOpen
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.summary import (
    CHECK_LOSS,
    DIRECTION,
    alternatives,
    capital,
    percent,
    placed,
)
from flowverdict_rca.window import COUNTS, DROPS_BEFORE_RECEIPT

__all__ = [
    "answers_slowly",
    "drops",
    "failed_connects",
    "half_open",
    "milliseconds",
    "reads_slowly",
    "resets",
    "resolved",
    "slow",
    "varies",
]

_CHECK_SLOW = {
    "pod": "Check its CPU limit, the load of its node and what shapes its traffic.",
    "workload": "Check its CPU limits, its last rollout and what its pods have in common.",
    "label": "Check the CPU limits of its pods and what else they have in common.",
    "node": "Check the node's load, softirqs and the queues of its interfaces.",
    "zone": "Check the load of what connects its nodes to each other and to other zones.",
    "link": "Check the route between the two and what shapes traffic on it.",
    "node_link": "Check the route between the two nodes, its load and its queues.",
    "workload_link": "Check what only the two share: a proxy, a route, what shapes their traffic.",
    "service": "Check the load of its pods and of the nodes that they are on.",
    "external": "It is outside the cluster: check the egress path and the remote side.",
    "unknown": "Nothing in the cluster has this address: find out what does.",
}
_CHECK_ANSWERS = {
    "pod": "Check its CPU limit, its threads and connection pools, and what it waits for.",
    "workload": "Check its CPU limits, its last rollout and what its pods wait for.",
    "label": "Check what its pods have in common that others do not, and what they wait for.",
    "node": "Check the node's load: its CPU, its memory and its disks.",
    "zone": "Check what its servers share, such as storage, and their load.",
    "service": "Check the load of its pods and what all of them wait for.",
    "external": "It is outside the cluster: ask whoever runs it.",
    "unknown": "Nothing in the cluster has this address: find out what does.",
}
_CHECK_RESETS = "Check what closes them: restarts, limits, idle timeouts, proxies between the two."
_CHECK_ATTEMPTS = "Check whether each of its pods runs and listens, its backlog and its limits."
_CHECK_REQUESTS = (
    "Check who sends them, as a flood or a scan, and whether its answers leave the cluster."
)
_RECOVERED = "{} has recovered: its flows are no longer failing."
_RESOLVED: dict[Basis, str] = {
    "drops": "packets of {} are no longer dropped.",
    "connects": "attempts to connect to {} fail no more often than usual.",
    "resets": "connections of {} are no longer reset.",
    "half_open": "connection requests to {} complete again.",
    "zero_windows": "{} has recovered: it reads what it is sent.",
    "jitter": "the round trips of {} vary no more than usual.",
    "latency": "no slow round trips are measured at {} any more.",
    "answers": "{} has recovered: it answers as fast as usual.",
}
_SHOWN_NODES = 3


def slow(cause: Cause, rtt_us: Numbers, usual_us: float, variation_us: Numbers) -> str:
    """What makes round trips take longer than usual.

    `rtt_us` are those of the pairs that show it, `usual_us` what they usually take, and
    `variation_us` how much those vary that vary more than usual.
    """
    parts = [
        f"{placed(cause)} is slow: the round trips of {len(rtt_us)} flows"
        f"{DIRECTION[cause.direction]} take {milliseconds(_median(rtt_us))}, usually"
        f" {milliseconds(usual_us)}."
    ]
    if len(variation_us):
        parts.append(f"They also vary more than usual, by {milliseconds(_median(variation_us))}.")
    parts += alternatives(cause)
    parts.append(_CHECK_SLOW[cause.kind])
    return " ".join(parts)


def varies(cause: Cause, rtt_us: Numbers, vary_us: Numbers, usual_us: float) -> str:
    """What makes round trips vary more than usual, though they do not take longer.

    `rtt_us` are those of the pairs that show it, `vary_us` how much those vary, `usual_us` how much
    they usually do.
    """
    parts = [
        f"{placed(cause)} has high jitter: the round trips of {_several(len(rtt_us), 'flow')}"
        f"{DIRECTION[cause.direction]} vary by {milliseconds(_median(vary_us))}, usually by"
        f" {milliseconds(usual_us)}, and take {milliseconds(_median(rtt_us))}."
    ]
    return " ".join([*parts, *alternatives(cause), _CHECK_SLOW[cause.kind]])


def answers_slowly(cause: Cause, evidence: Numbers, rtt_us: Numbers, usual_us: float) -> str:
    """What answers later than usual, though the way to it is not slow.

    `evidence` has a row of `COUNTS` for each pair that shows it, `rtt_us` are their round trips,
    `usual_us` is what their answers usually take.
    """
    counts = dict(zip(COUNTS, evidence.T.tolist(), strict=True))
    us = [
        total / count for total, count in zip(counts["answers_us"], counts["answers"], strict=True)
    ]
    callers = "caller" if len(us) == 1 else "callers"
    parts = [
        f"{placed(cause)} answers late: its answers to {len(us)} {callers} take"
        f" {milliseconds(_median(us))}, usually {milliseconds(usual_us)}, though round"
        f" trips take {milliseconds(_median(rtt_us))}."
    ]
    parts += alternatives(cause)
    if full := sum(counts["zero_windows_received"]):
        times = "once" if full == 1 else f"{full} times"
        parts.append(f"Its receive buffers were full {times}: it reads too slowly.")
    parts.append(_CHECK_ANSWERS[cause.kind])
    return " ".join(parts)


def reads_slowly(cause: Cause, evidence: Numbers) -> str:
    """What does not read what it is sent; `evidence` has a row of `COUNTS` for each pair."""
    counts = dict(zip(COUNTS, evidence.sum(axis=0).tolist(), strict=True))
    senders = "sender" if len(evidence) == 1 else "senders"
    full, sent = counts["zero_windows_received"], counts["data_segments_sent"]
    parts = [
        f"{placed(cause)} reads too slowly: {len(evidence)} {senders} found its receive buffers"
        f" full {full} times, in {sent} segments."
    ]
    parts += alternatives(cause)
    parts.append(_CHECK_ANSWERS[cause.kind])
    return " ".join(parts)


def drops(
    cause: Cause,
    evidence: Numbers,
    by_node: Mapping[str, int],
    reasons: Mapping[str, int],
    usual: float,
) -> str:
    """Whose packets kernels drop.

    `evidence` has a row of `COUNTS` for each pair that shows it, `by_node` says how many packets
    which node's kernel dropped, `reasons` why; `usual` are those normally dropped, of 1,000.
    """
    counts = dict(zip(COUNTS, evidence.sum(axis=0).tolist(), strict=True))
    dropped = sum(counts[name] for name in DROPS_BEFORE_RECEIPT)
    places = " and ".join(
        f"{count} by the kernel of node {node}"
        for node, count in Counter(by_node).most_common(_SHOWN_NODES)
    )
    parts = [
        f"Packets of {cause} are dropped: {dropped} of {counts['segments_sent']} in"
        f" {_several(len(evidence), 'flow')}{DIRECTION[cause.direction]}, usually"
        f" {_usually(usual)}; {places}."
    ]
    reason, count = Counter(reasons).most_common(1)[0] if reasons else ("OTHER", 0)
    if reason != "OTHER" and 2 * count >= dropped:
        parts.append(f"The kernel's reason is {reason}.")
    return " ".join([*parts, *alternatives(cause), CHECK_LOSS[cause.kind]])


def failed_connects(cause: Cause, evidence: Numbers, usual: float) -> str:
    """Whose connection attempts fail in part.

    `evidence` has a row of `COUNTS` for each pair that shows it; `usual` are the attempts that
    normally fail, of 1,000.
    """
    counts = dict(zip(COUNTS, evidence.sum(axis=0).tolist(), strict=True))
    failed = counts["failed_opens"]
    kinds = {"refused": "were refused", "timed_out": "timed out", "unreachable": "found no route"}
    some = [f"{count} {kind}" for name, kind in kinds.items() if (count := counts[f"{name}_opens"])]
    parts = [
        f"{placed(cause)} has failing connection attempts: {failed} of {failed + counts['opens']}"
        f" in {_several(len(evidence), 'flow')}{DIRECTION[cause.direction]}, usually"
        f" {_usually(usual)}."
    ]
    parts += [f"{' and '.join(some)}."] if some else []
    return " ".join([*parts, *alternatives(cause), _CHECK_ATTEMPTS])


def resets(cause: Cause, evidence: Numbers, usual: float) -> str:
    """Whose connections are reset.

    `evidence` has a row of `COUNTS` for each pair that shows it; `usual` are the connections that
    are normally reset, of 1,000.
    """
    counts = dict(zip(COUNTS, evidence.sum(axis=0).tolist(), strict=True))
    reset, opens = counts["resets_received"] - counts["refused_opens"], counts["opens"]
    peers = _several(len(evidence), "peer")
    doing = {
        "receiving": f"{placed(cause)} resets connections: {reset} with {peers}",
        "sending": f"Connections of {placed(cause)} are reset: {reset} by {peers}",
    }
    those = f"Connections of {cause} are reset: {reset} in {_several(len(evidence), 'flow')}"
    parts = [
        f"{doing.get(cause.direction, those)}, while {opens} were opened; usually"
        f" {_usually(usual)} of them are."
    ]
    return " ".join([*parts, *alternatives(cause), _CHECK_RESETS])


def half_open(cause: Cause, servers: Iterable[HalfOpen], usual: float) -> str:
    """Who is sent connection requests that never complete.

    `servers` are those that answer them, `usual` is how many answers are normally repeated.
    """
    own = next((each for each in servers if each.name == cause.name), None)
    often = (
        f"it repeated its answer {own.retransmitted_synacks} times, to"
        f" {_several(own.peers, 'address')}"
        if own
        else "its pods repeated their answers to many"
    )
    parts = [
        f"{placed(cause)} is sent connection requests that never complete: {often}; usually"
        f" {f'{usual:.0f} times' if usual else 'never'}."
    ]
    return " ".join([*parts, *alternatives(cause), _CHECK_REQUESTS])


def _usually(of_thousand: float) -> str:
    return percent(of_thousand / 1000) if of_thousand else "none"


def _several(count: int, thing: str) -> str:
    plural = f"{thing}es" if thing.endswith("s") else f"{thing}s"
    return f"{count} {thing if count == 1 else plural}"


def _median(values: Numbers | Sequence[float]) -> float:
    return float(np.median(values)) if len(values) else 0.0


def milliseconds(microseconds: float) -> str:
    """A time for display: 0.42 ms, 4.2 ms, 420 ms."""
    return f"{float(f'{microseconds / 1000:.2g}'):g} ms"


def resolved(causes: Sequence[Cause], basis: Basis) -> str:
    """The flows of the blamed component no longer fail or are slow, or it is gone."""
    if not causes:
        return "The flows that failed without a clear cause have recovered."
    return capital(_RESOLVED.get(basis, _RECOVERED).format(causes[0]))
