"""The sentence a person reads at 3 a.m."""

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np

from flowverdict_contracts.verdicts import Basis, Cause, FlowCounts
from flowverdict_flows.pairs import Numbers
from flowverdict_flows.ratios import RETRANSMISSION_RATIO
from flowverdict_rca.decisions import retransmits
from flowverdict_rca.passage import Passage
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import COUNTS

__all__ = [
    "answers_slowly",
    "blamed",
    "loses",
    "percent",
    "reads_slowly",
    "resolved",
    "slow",
    "undetermined",
]

_CHECK_LOSS = {
    "pod": "Check its interface, its CPU limit and its neighbours on the node.",
    "workload": "Check its last rollout and what its pods have in common.",
    "label": "Check what its pods have in common that others do not: a version, its limits.",
    "node": "Check the node's interfaces, drops, conntrack table and softirq load.",
    "zone": "Check what connects its nodes to each other and to other zones.",
    "link": "Check network policies and the path between the two.",
    "node_link": "Check the cables, switches and MTU between the two nodes.",
    "service": "Check its endpoints and the rules that translate its address.",
    "external": "It is outside the cluster: check the egress path and the remote side.",
    "unknown": "Nothing in the cluster has this address: find out what does.",
}
_CHECK_REFUSED = {
    "pod": "Check that its process is running and listens on that port.",
    "workload": "Check that its pods are ready and listen on that port.",
    "label": "Check that its pods are ready and listen on that port.",
    "node": "Check that what should listen on this node is running.",
    "zone": "Check that its nodes are up and what should listen on them is running.",
    "link": "Check which port is called and whether anything listens there.",
    "node_link": "Check which ports are called and whether anything listens there.",
    "service": "Check that it has ready endpoints and that its target port is right.",
    "external": "It is outside the cluster: check that the remote side listens on that port.",
    "unknown": "Nothing in the cluster has this address: find out what should listen there.",
}
_CHECK_DNS = "Check that its DNS servers run, and that they reach the servers that they ask."
_CHECK_UNREACHABLE = "Check that it is up, and the routes to it."
_CHECK_MTU = "Check the MTU of every interface and tunnel on the way."
_CHECK_REPORTED = {
    "node": "Check whether the node is up and what connects it to the others.",
    "service": "Check why its pods are not ready: kubectl describe and logs of what it selects.",
}
_CHECK_UNANSWERED = (
    "Check network policies, firewalls and routes: packets to it are being discarded."
)
_CHECK_SLOW = {
    "pod": "Check its CPU limit, the load of its node and what shapes its traffic.",
    "workload": "Check its CPU limits, its last rollout and what its pods have in common.",
    "label": "Check the CPU limits of its pods and what else they have in common.",
    "node": "Check the node's load, softirqs and the queues of its interfaces.",
    "zone": "Check the load of what connects its nodes to each other and to other zones.",
    "link": "Check the route between the two and what shapes traffic on it.",
    "node_link": "Check the route between the two nodes, its load and its queues.",
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
_LEAST_LOST, _SHOWN_SHARE, _SHOWN_PART = 10, 0.002, 0.1
"""Fewer segments, a smaller share of those sent, or of those lost, are not worth a sentence: the
two ends are not read at the same moment."""

_SHOWN_NAMES = 3
_AFTER_RECEIPT = ("SOCKET_RCVBUFF", "SOCKET_BACKLOG")
"""Reasons for dropping what counts as received."""

_DIRECTION = {"sending": " that it sends", "receiving": " sent to it", "both": "", "unknown": ""}


def blamed(
    cause: Cause,
    evidence: Numbers,
    failed_names: Mapping[str, int],
    passage: Passage,
    flows: FlowCounts,
    settings: RcaSettings,
) -> str:
    """What is to blame, on what evidence, where segments are lost, and what to check.

    `evidence` has a row of `COUNTS` for each failing pair that the cause explains; `failed_names`
    are the names that they could not look up, and how often; `passage` is what became of the
    segments of all of them.
    """
    sums = evidence.sum(axis=0, keepdims=True)
    counts = dict(zip(COUNTS, sums[0].tolist(), strict=True))
    loses_data = bool(retransmits(sums, settings)[0])
    symptoms = " and ".join(_symptoms(counts, loses_data, settings)) or "they fail"
    others = "flow is" if flows.ok == 1 else "flows are"
    if cause.reported:
        symptoms += f"; {cause.reported}"
    parts = [
        f"{_placed(cause)} is behind {len(evidence)} of {flows.failing} failing flows"
        f"{_DIRECTION[cause.direction]}: {symptoms}, while {flows.ok} other {others} fine."
    ]
    parts += _lost(passage) if loses_data and not cause.reported else []
    parts += _not_looked_up(failed_names) if _lookups(counts, settings) else []
    parts += _alternatives(cause)
    if cause.direction == "unknown":
        parts.append("Which way it fails is unknown: no collector is heard that counts the other.")
    parts.append(_advice(cause, counts, loses_data, settings))
    return " ".join(parts)


def loses(cause: Cause, evidence: Numbers, passage: Passage, usual_ratio: float) -> str:
    """What loses more than usual, though not enough to make its flows fail.

    `evidence` has a row of `COUNTS` for each pair that shows it, `passage` is what became of the
    segments of all of them; `usual_ratio` is that of the flows that the cause has nothing to do
    with.
    """
    counts = dict(zip(COUNTS, evidence.sum(axis=0).tolist(), strict=True))
    count = len(evidence)
    those = "flow" if count == 1 else "flows"
    usual = "none" if not usual_ratio else percent(usual_ratio)
    parts = [
        f"{_placed(cause)} loses more than usual: "
        f"{percent(RETRANSMISSION_RATIO.of(counts) or 0.0)} of the data segments of {count} {those}"
        f"{_DIRECTION[cause.direction]} are retransmitted, against {usual} elsewhere."
    ]
    parts += _lost(passage)
    parts += _alternatives(cause)
    parts.append(_CHECK_LOSS[cause.kind])
    return " ".join(parts)


def slow(cause: Cause, rtt_us: Numbers, usual_us: float, variation_us: Numbers) -> str:
    """What makes round trips take longer than usual.

    `rtt_us` are those of the pairs that show it, `usual_us` what they usually take, and
    `variation_us` how much those vary that vary more than usual.
    """
    median = float(np.median(rtt_us)) if len(rtt_us) else 0.0
    parts = [
        f"{_placed(cause)} is slow: the round trips of {len(rtt_us)} flows"
        f"{_DIRECTION[cause.direction]} take {milliseconds(median)}, usually"
        f" {milliseconds(usual_us)}."
    ]
    if len(variation_us):
        parts.append(
            f"They also vary more than usual, by {milliseconds(float(np.median(variation_us)))}."
        )
    parts += _alternatives(cause)
    parts.append(_CHECK_SLOW[cause.kind])
    return " ".join(parts)


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
        f"{_placed(cause)} answers late: its answers to {len(us)} {callers} take"
        f" {milliseconds(float(np.median(us)))}, usually {milliseconds(usual_us)}, though round"
        f" trips take {milliseconds(float(np.median(rtt_us)))}."
    ]
    parts += _alternatives(cause)
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
        f"{_placed(cause)} reads too slowly: {len(evidence)} {senders} found its receive buffers"
        f" full {full} times, in {sent} segments."
    ]
    parts += _alternatives(cause)
    parts.append(_CHECK_ANSWERS[cause.kind])
    return " ".join(parts)


def milliseconds(microseconds: float) -> str:
    """A time for display: 0.42 ms, 4.2 ms, 420 ms."""
    return f"{float(f'{microseconds / 1000:.2g}'):g} ms"


def _placed(cause: Cause) -> str:
    place = f" on node {cause.node}" if cause.node and cause.kind != "node" else ""
    return f"{_capital(str(cause))}{place}"


def _alternatives(cause: Cause) -> list[str]:
    found = []
    if cause.alternatives:
        others = ", ".join(map(str, cause.alternatives))
        found.append(f"The evidence fits {others} equally well.")
    if cause.candidates:
        pods = ", ".join(cause.candidates)
        more = f" and {cause.more_candidates} more" if cause.more_candidates else ""
        found.append(f"It may be one of the pods on the node's network: {pods}{more}.")
    return found


def _lost(passage: Passage) -> list[str]:
    """Where what did not arrive was lost."""
    if passage.arrived is None:
        return ["One end is not seen, so it is unknown where they are lost."]
    if passage.lost < max(_LEAST_LOST, _SHOWN_SHARE * passage.sent) or not passage.credible:
        return []
    places = [
        (count, f"{count} were dropped by the kernel of node {node}")
        for node, count in sorted(passage.dropped.items())
    ]
    places.append((passage.lost_on_the_way, f"{passage.lost_on_the_way} were lost on the way"))
    shown = [words for count, words in places if count >= _SHOWN_PART * passage.lost]
    dropped = sum(passage.dropped.values())
    if not shown:
        shown = [f"{dropped} were dropped by the kernels of {len(passage.dropped)} nodes"]
    found = [f"Of {passage.sent} segments, {passage.lost} did not arrive: {' and '.join(shown)}."]
    before_receipt = {
        name: count for name, count in passage.reasons.items() if name not in _AFTER_RECEIPT
    }
    reason = max(before_receipt, key=before_receipt.__getitem__, default="OTHER")
    if reason != "OTHER" and 2 * before_receipt[reason] >= dropped >= _SHOWN_PART * passage.lost:
        found.append(f"The kernel's reason is {reason}.")
    return found


def _go_unanswered(counts: dict[str, int], settings: RcaSettings) -> bool:
    syns = counts["retransmitted_syns"]
    return syns >= settings.min_retransmissions and syns > counts["opens"] + counts["failed_opens"]


def _symptoms(counts: dict[str, int], loses_data: bool, settings: RcaSettings) -> list[str]:
    """What is wrong with flows whose counts add up to `counts`, in words."""
    found = []
    ratio = RETRANSMISSION_RATIO.of(counts)
    if loses_data and ratio is not None:
        found.append(f"{percent(ratio)} of the data segments are retransmitted")
    failed, attempts = counts["failed_opens"], counts["failed_opens"] + counts["opens"]
    if failed >= settings.min_retransmissions:
        kinds = {
            "refused": ("are refused", counts["refused_opens"]),
            "timed out": ("time out", counts["timed_out_opens"]),
            "unreachable": ("find no route to it", counts["unreachable_opens"]),
        }
        of_all = [words for words, count in kinds.values() if count == failed]
        some = [f"{count} {kind}" for kind, (_, count) in kinds.items() if count]
        how = of_all[0] if of_all else f"fail ({', '.join(some)})" if some else "fail"
        found.append(f"{failed} of {attempts} connection attempts {how}")
    elif _go_unanswered(counts, settings):
        syns = counts["retransmitted_syns"]
        found.append(f"connection requests go unanswered ({syns} SYN segments retransmitted)")
    elif not found and counts["retransmitted_syns"]:
        syns = counts["retransmitted_syns"]
        found.append(f"{syns} SYN segments are retransmitted in {attempts} connection attempts")
    found += _lookups(counts, settings)
    if counts["path_mtu_reductions"]:
        found.append("the path MTU has become smaller")
    return found


def _lookups(counts: dict[str, int], settings: RcaSettings) -> list[str]:
    answers, unanswered = counts["dns_answers"], counts["dns_unanswered"]
    failures = counts["dns_failures"]
    found = []
    if unanswered >= settings.min_retransmissions:
        found.append(f"{unanswered} of {answers + unanswered} DNS lookups are not answered")
    if failures >= settings.min_retransmissions and 2 * failures > answers:
        found.append(f"{failures} of {answers} answers to DNS lookups are errors")
    return found


def _not_looked_up(failed: Mapping[str, int]) -> list[str]:
    """Which lookups failed, most often first; nothing if their names are not known."""
    if not failed:
        return []
    most = Counter(failed).most_common(_SHOWN_NAMES)
    named = ", ".join(f"{name} ({count})" for name, count in most)
    more = len(failed) - _SHOWN_NAMES
    return [f"Lookups that failed: {named}{f' and {more} more names' if more > 0 else ''}."]


def _advice(cause: Cause, counts: dict[str, int], loses_data: bool, settings: RcaSettings) -> str:
    if cause.reported:
        return _CHECK_REPORTED[cause.kind]
    advice = []
    failed, refused = counts["failed_opens"], counts["refused_opens"]
    unreachable = counts["unreachable_opens"]
    if refused >= settings.min_retransmissions and 2 * refused > failed:
        advice.append(_CHECK_REFUSED[cause.kind])
    elif unreachable >= settings.min_retransmissions and 2 * unreachable > failed:
        advice.append(_CHECK_UNREACHABLE)
    elif failed >= settings.min_retransmissions or _go_unanswered(counts, settings):
        advice.append(_CHECK_UNANSWERED)
    if _lookups(counts, settings):
        advice.append(_CHECK_DNS)
    if not advice or loses_data:
        advice.insert(0, _CHECK_LOSS[cause.kind])
    if counts["path_mtu_reductions"]:
        advice.append(_CHECK_MTU)
    return " ".join(advice)


def undetermined(flows: FlowCounts) -> str:
    """Flows fail, but no cause stands out."""
    return (
        f"{flows.failing} of {flows.failing + flows.ok} flows fail, but there is not enough"
        " evidence to name a cause: no pod, node or link is involved in most of the failing flows"
        " and in few of the others. If nearly all fail, check what they share."
    )


def resolved(causes: Sequence[Cause], basis: Basis) -> str:
    """The flows of the blamed component no longer fail or are slow, or it is gone."""
    if not causes:
        return "The flows that failed without a clear cause have recovered."
    if basis == "latency":
        return f"No slow round trips are measured at {causes[0]} any more."
    if basis == "answers":
        return f"{_capital(str(causes[0]))} has recovered: it answers as fast as usual."
    if basis == "zero_windows":
        return f"{_capital(str(causes[0]))} has recovered: it reads what it is sent."
    return f"{_capital(str(causes[0]))} has recovered: its flows are no longer failing."


def percent(ratio: float) -> str:
    """A ratio for display: 0.42%, 4.2%, 5%, 42%."""
    if ratio >= 0.1:
        return f"{100 * ratio:.0f}%"
    return f"{100 * ratio:.2g}%" if ratio < 0.01 else f"{100 * ratio:.1f}".removesuffix(".0") + "%"


def _capital(text: str) -> str:
    return text[0].upper() + text[1:]
