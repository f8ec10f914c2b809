"""The judgement of one window: failing pairs, what is behind them, the verdict document."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

import msgspec
import numpy as np

from flowverdict_contracts.timestamps import to_rfc3339
from flowverdict_contracts.verdicts import (
    MOST_NAMED,
    Basis,
    Cause,
    Condition,
    Coverage,
    FailingFlow,
    FlowCounts,
    Severity,
    TimeWindow,
    Verdict,
    VerdictStatus,
)
from flowverdict_flows.components import component_of
from flowverdict_flows.pairs import Numbers
from flowverdict_flows.ratios import CONNECT_RETRANSMISSION_RATIO, RETRANSMISSION_RATIO, Ratio
from flowverdict_rca import summary
from flowverdict_rca.decisions import (
    Decisions,
    PairStatus,
    cannot_connect,
    cannot_look_up,
    decide,
    retransmits,
)
from flowverdict_rca.failures import behind_failures
from flowverdict_rca.known import heard_alone, known_causes, without_aftermath
from flowverdict_rca.mining import Transactions, failure_rules
from flowverdict_rca.passage import Passage, whole
from flowverdict_rca.ranking import Finding, findings
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import Pair, Window

__all__ = ["Judgement", "judge", "verdict"]

_SHOWN_FLOWS = 20

_SUFFIX: dict[Basis, str] = {
    "failures": "",
    "losses": "-losses",
    "latency": "-latency",
    "answers": "-answers",
    "zero_windows": "-receivers",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The status of each pair of a window, and the findings behind the failing ones.

    Attributes:
        aftermath: positions of pairs that would fail, but for what has just changed around them.
        basis: what was judged, as in a verdict.
        usual: of losses, the retransmission ratio of the pairs that no cause covers; of latency,
            the median of what the failing pairs' round trips usually take, in microseconds; of
            answers, of how long those usually take; of zero windows, of how often they occur.
        unsteady: of latency, positions of the pairs whose round trips also vary more than usual.
    """

    decisions: Decisions
    findings: tuple[Finding, ...]
    aftermath: Numbers
    settings: RcaSettings
    basis: Basis = "failures"
    usual: float = 0.0
    unsteady: Numbers = field(default_factory=lambda: np.zeros(0, np.int64))

    @property
    def window(self) -> Window:
        """What was judged."""
        return self.decisions.window

    @property
    def failing(self) -> Numbers:
        """Positions of the failing pairs."""
        return self.decisions.positions(PairStatus.FAIL)


def judge(window: Window, settings: RcaSettings) -> Judgement:
    """Decide which pairs fail, and what is behind it."""
    decisions = decide(window, settings)
    alone = heard_alone(decisions)
    known = tuple(known_causes(decisions, alone))
    decisions, aftermath = without_aftermath(decisions, known, alone)
    known += tuple(behind_failures(decisions, known))
    return Judgement(decisions, tuple(findings(decisions, known)), aftermath, settings)


def verdict(
    incident_id: str,
    opened_ns: int,
    status: VerdictStatus,
    judgement: Judgement,
    causes: tuple[Cause, ...],
    explained: Numbers,
) -> Verdict:
    """The document that says what `judgement` means for one incident.

    `causes` is empty if none stood out; `explained` contains the positions of the
    incident's failing pairs in this window.
    """
    window, decisions = judgement.window, judgement.decisions
    flows = FlowCounts(
        failing=len(judgement.failing),
        ok=len(decisions.positions(PairStatus.OK)),
        undecided=len(decisions.positions(PairStatus.UNDECIDED)),
    )
    pairs = list(decisions.pairs(explained))
    passages = window.passages(explained)
    passage = whole(passages)
    if status == "resolved":
        text = summary.resolved(causes, judgement.basis)
    elif causes and judgement.basis == "losses":
        text = summary.loses(causes[0], decisions.evidence[explained], passage, judgement.usual)
    elif causes and judgement.basis == "latency":
        unsteady = explained[np.isin(explained, judgement.unsteady)]
        text = summary.slow(
            causes[0],
            window.rtt_us[explained],
            judgement.usual,
            window.rtt_variation_us[unsteady],
        )
    elif causes and judgement.basis == "answers":
        text = summary.answers_slowly(
            causes[0], decisions.evidence[explained], window.rtt_us[explained], judgement.usual
        )
    elif causes and judgement.basis == "zero_windows":
        text = summary.reads_slowly(causes[0], decisions.evidence[explained])
    elif causes:
        failed_names: Counter[str] = Counter()
        for each in pairs:
            failed_names.update(each.failed_names)
        text = summary.blamed(
            causes[0],
            decisions.evidence[explained],
            failed_names,
            passage,
            flows,
            judgement.settings,
        )
    else:
        text = summary.undetermined(flows)
    return Verdict(
        id=f"{incident_id}/{window.end_ns}{_SUFFIX[judgement.basis]}",
        incident_id=incident_id,
        status=status,
        opened_at=to_rfc3339(opened_ns),
        window=TimeWindow(start=to_rfc3339(window.start_ns), end=to_rfc3339(window.end_ns)),
        summary=text,
        enough_evidence=bool(causes),
        causes=causes,
        rules=failure_rules(_transactions(decisions), judgement.settings.miner),
        basis=judgement.basis,
        conditions=_conditions(judgement, explained, pairs, causes),
        severity=_severity(causes, len(explained), judgement.basis),
        fail_ratio=judgement.settings.fail_ratio,
        flows=flows,
        failing_flows=tuple(_failing_flow(*each) for each in _worst(pairs, passages)),
        half_open=decisions.half_open,
        coverage=_bounded(window.coverage),
    )


def _bounded(coverage: Coverage) -> Coverage:
    """The same with as many nodes by name as a verdict has room for."""
    names = ("nodes_reporting", "nodes_silent", "nodes_late")
    lists = {name: getattr(coverage, name) for name in names}
    more = {f"more_{name}": max(0, len(each) - MOST_NAMED) for name, each in lists.items()}
    return msgspec.structs.replace(
        coverage, **{name: each[:MOST_NAMED] for name, each in lists.items()}, **more
    )


def _transactions(decisions: Decisions) -> Transactions:
    """The decided pairs as items for rule mining: endpoints and nodes."""
    window = decisions.window
    number_of: dict[str, int] = {}

    def number(item: str) -> int:
        return number_of.setdefault(item, len(number_of))

    items = np.full((len(window.endpoints), 2), -1, np.int64)
    for at, end in enumerate(window.endpoints):
        items[at, 0] = number(str(component_of(end)))
        if end.node:
            items[at, 1] = number(f"node {end.node}")
    decided = np.flatnonzero(decisions.status != PairStatus.UNDECIDED)
    taking_part = np.concatenate([items[window.src[decided]], items[window.dst[decided]]], axis=1)
    flow = np.broadcast_to(np.arange(len(decided))[:, None], taking_part.shape)
    present = taking_part >= 0
    code = np.unique(flow[present] << 32 | taking_part[present])
    fails = decisions.status[decided] == PairStatus.FAIL
    return Transactions(list(number_of), code >> 32, code & 0xFFFFFFFF, fails)


def _severity(causes: Sequence[Cause], failing: int, basis: Basis) -> Severity:
    """Nobody is woken for flows without a cause, for a single one of which the cluster knows no
    more, for a service that has no pods to answer, or for what only long windows show.
    """
    if basis != "failures" or not causes or _has_no_ready_endpoints(causes):
        return "warning"
    return "critical" if failing > 1 or causes[0].reported else "warning"


def _has_no_ready_endpoints(causes: Sequence[Cause]) -> bool:
    return bool(causes and causes[0].reported) and causes[0].kind == "service"


def _conditions(
    judgement: Judgement, explained: Numbers, pairs: Sequence[Pair], causes: Sequence[Cause]
) -> tuple[Condition, ...]:
    evidence, settings = judgement.decisions.evidence[explained], judgement.settings
    named = {str(end) for pair in pairs for end in (pair.src, pair.dst)}
    seen: dict[Condition, bool] = {
        "HIGH_LATENCY": judgement.basis == "latency" and bool(pairs),
        "SLOW_ANSWERS": judgement.basis == "answers" and bool(pairs),
        "HIGH_JITTER": bool(np.isin(explained, judgement.unsteady).any()),
        "HIGH_RETRANSMISSION_RATIO": (judgement.basis == "losses" and bool(pairs))
        or bool(retransmits(evidence, settings).any()),
        "CONNECT_FAILURE": bool(cannot_connect(evidence, settings).any()),
        "DNS_FAILURE": bool(cannot_look_up(evidence, settings).any()),
        "PACKET_DROPS": any(pair.drops for pair in pairs),
        "ZERO_WINDOW": any(pair.counts["zero_windows_received"] for pair in pairs),
        "MTU_MISMATCH": any(pair.counts["path_mtu_reductions"] for pair in pairs),
        "HALF_OPEN": any(each.name in named for each in judgement.decisions.half_open),
        "NODE_SILENT": bool(causes and causes[0].reported) and causes[0].kind == "node",
        "NO_READY_ENDPOINTS": _has_no_ready_endpoints(causes),
    }
    return tuple(name for name, is_seen in seen.items() if is_seen)


def _worst(pairs: Sequence[Pair], passages: Sequence[Passage]) -> list[tuple[Pair, Passage]]:
    def badness(flow: tuple[Pair, Passage]) -> tuple[float, int]:
        pair, _ = flow
        failed = pair.counts["failed_opens"] + pair.counts["dns_unanswered"]
        return -(RETRANSMISSION_RATIO.of(pair.counts) or 0.0), -failed

    return sorted(zip(pairs, passages, strict=True), key=badness)[:_SHOWN_FLOWS]


def _rounded(ratio: Ratio, pair: Pair) -> float | None:
    value = ratio.of(pair.counts)
    return None if value is None else round(value, 4)


def _failing_flow(pair: Pair, passage: Passage) -> FailingFlow:
    shown = set(FailingFlow.__struct_fields__) - {"segments_sent"}
    counts = {name: count for name, count in pair.counts.items() if name in shown}
    return FailingFlow(
        src=str(pair.src),
        dst=str(pair.dst),
        retransmission_ratio=_rounded(RETRANSMISSION_RATIO, pair),
        connect_retransmission_ratio=_rounded(CONNECT_RETRANSMISSION_RATIO, pair),
        rtt_us=pair.rtt_us,
        answer_us=pair.answer_us,
        segments_sent=passage.sent,
        segments_arrived=passage.arrived,
        drop_reasons=dict(Counter(passage.reasons).most_common(MOST_NAMED)),
        failed_names=dict(Counter(pair.failed_names).most_common(MOST_NAMED)),
        dropped_by_node=dict(Counter(passage.dropped).most_common(MOST_NAMED)),
        **counts,
    )
