"""The sentence a person reads at 3 a.m."""

from collections import Counter
from collections.abc import Mapping, Sequence

from flowverdict_contracts.verdicts import Cause, Component, FlowCounts
from flowverdict_flows.pairs import Numbers
from flowverdict_flows.ratios import RETRANSMISSION_RATIO
from flowverdict_rca.decisions import passes_only_small
from flowverdict_rca.passage import Passage
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import COUNTS

__all__ = [
    "CHECK_LOSS",
    "DIRECTION",
    "alternatives",
    "blamed",
    "capital",
    "loses",
    "percent",
    "placed",
    "undetermined",
    "withheld",
]

CHECK_LOSS = {
    "pod": "Check its interface, its CPU limit and its neighbours on the node.",
    "workload": "Check its last rollout and what its pods have in common.",
    "label": "Check what its pods have in common that others do not: a version, its limits.",
    "node": "Check the node's interfaces, drops, conntrack table and softirq load.",
    "zone": "Check what connects its nodes to each other and to other zones.",
    "link": "Check network policies and the path between the two.",
    "node_link": "Check the cables, switches and MTU between the two nodes.",
    "workload_link": "Check network policies between the two, and what else only they share.",
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
    "workload_link": "Check which port is called and whether anything listens there.",
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
_CHECK_UNANSWERED = "Check network policies, firewalls and routes: packets {} are being discarded."
_LEAST_LOST, _SHOWN_SHARE, _SHOWN_PART = 10, 0.002, 0.1
"""Fewer segments, a smaller share of those sent, or of those lost, are not worth a sentence: the
two ends are not read at the same moment."""

_SHOWN_NAMES = 3
_AFTER_RECEIPT = ("SOCKET_RCVBUFF", "SOCKET_BACKLOG")
"""Reasons for dropping what counts as received."""

DIRECTION = {"sending": " that it sends", "receiving": " sent to it", "both": "", "unknown": ""}


def blamed(
    cause: Cause,
    evidence: Numbers,
    failed_names: Mapping[str, int],
    passage: Passage | None,
    flows: FlowCounts,
    settings: RcaSettings,
) -> str:
    """What is to blame, on what evidence, where segments are lost, and what to check.

    `evidence` has a row of `COUNTS` for each failing pair that the cause explains; `failed_names`
    are the names that they could not look up, and how often; `passage` is what became of the
    segments of all of them, None if they do not lose data.
    """
    counts = dict(zip(COUNTS, evidence.sum(axis=0).tolist(), strict=True))
    loses_data = passage is not None
    small = passes_only_small(evidence, settings)
    stuck = loses_data and bool(2 * small.sum() > len(small))
    found = _symptoms(counts, loses_data, settings)
    found += ["connections open, but only small packets get through"] if stuck else []
    symptoms = " and ".join(found) or "they fail"
    others = "1 other flow is" if flows.ok == 1 else f"{flows.ok} other flows are"
    rest = f"while {others} fine" if flows.ok else "and no flow is known to be fine"
    if cause.reported:
        symptoms += f"; {cause.reported}"
    parts = [
        f"{placed(cause)} is behind {len(evidence)} of {flows.failing} failing flows"
        f"{DIRECTION[cause.direction]}: {symptoms}, {rest}."
    ]
    parts += _lost(passage) if passage is not None and not cause.reported else []
    parts += _not_looked_up(failed_names) if _lookups(counts, settings) else []
    parts += alternatives(cause)
    if cause.direction == "unknown":
        parts.append("Which way it fails is unknown: no collector is heard that counts the other.")
    parts.append(_advice(cause, counts, loses_data, settings))
    if not cause.reported and (stuck or counts["path_mtu_reductions"]):
        parts.append(_CHECK_MTU)
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
        f"{placed(cause)} loses more than usual: "
        f"{percent(RETRANSMISSION_RATIO.of(counts) or 0.0)} of the data segments of {count} {those}"
        f"{DIRECTION[cause.direction]} are retransmitted, against {usual} elsewhere."
    ]
    parts += _lost(passage)
    parts += alternatives(cause)
    parts.append(CHECK_LOSS[cause.kind])
    return " ".join(parts)


def placed(cause: Cause) -> str:
    """A cause and its node, as a sentence begins."""
    place = f" on node {cause.node}" if cause.node and cause.kind != "node" else ""
    return f"{capital(str(cause))}{place}"


def alternatives(cause: Cause) -> list[str]:
    """Sentences about what else it may be."""
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
        where = "to it" if len(cause.ends) == 1 else "between the two"
        advice.append(_CHECK_UNANSWERED.format(where))
    if _lookups(counts, settings):
        advice.append(_CHECK_DNS)
    if not advice or loses_data:
        advice.insert(0, CHECK_LOSS[cause.kind])
    return " ".join(advice)


def withheld(
    flows: FlowCounts, explained: int, between: Sequence[Component], needed: Sequence[str]
) -> str:
    """What only nodes that are silent can tell apart."""
    suspects = capital(", ".join(map(str, between)))
    silent = ("node", "it is") if len(needed) == 1 else ("nodes", "they are")
    return (
        f"{flows.failing} of {flows.failing + flows.ok} flows fail."
        f" {suspects} or what connects them is behind {explained} of those. Which of"
        f" these, {silent[0]} {_shown(needed)} can tell, but {silent[1]} silent."
    )


def undetermined(flows: FlowCounts, unheard: Sequence[str]) -> str:
    """Flows fail, but no cause stands out; perhaps since some nodes are not heard."""
    missing = f" Nodes that are not heard may tell: {_shown(unheard)}." if unheard else ""
    return (
        f"{flows.failing} of {flows.failing + flows.ok} flows fail, but there is not enough"
        " evidence to name a cause: no pod, node or link is involved in most of the failing flows"
        " and in few of the others. If nearly all fail, check what they share."
        f"{missing}"
    )


def _shown(names: Sequence[str]) -> str:
    more = len(names) - _SHOWN_NAMES
    return ", ".join(names[:_SHOWN_NAMES]) + (f" and {more} more" if more > 0 else "")


def percent(ratio: float) -> str:
    """A ratio for display: 0.42%, 4.2%, 5%, 42%."""
    if ratio >= 0.1:
        return f"{100 * ratio:.0f}%"
    return f"{100 * ratio:.2g}%" if ratio < 0.01 else f"{100 * ratio:.1f}".removesuffix(".0") + "%"


def capital(text: str) -> str:
    """The same, as a sentence begins."""
    return text[0].upper() + text[1:]
