"""The judgement of one window: failing pairs, what is behind them, the verdict document."""

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass, field
from typing import get_args

import msgspec
import numpy as np

from flowverdict_contracts.timestamps import to_rfc3339
from flowverdict_contracts.verdicts import (
    MOST_NAMED,
    Basis,
    Cause,
    Component,
    Condition,
    Coverage,
    FailingFlow,
    FlowCounts,
    HalfOpen,
    Severity,
    TimeWindow,
    Verdict,
    VerdictStatus,
)
from flowverdict_flows.pairs import Numbers
from flowverdict_flows.ratios import CONNECT_RETRANSMISSION_RATIO, RETRANSMISSION_RATIO, Ratio
from flowverdict_rca import measured_summary, summary
from flowverdict_rca.comparable import comparable
from flowverdict_rca.conditions import conditions_of_pairs
from flowverdict_rca.decisions import Decisions, Floats, PairStatus, decide, retransmits
from flowverdict_rca.failures import behind_failures
from flowverdict_rca.kernel_logs import conditions_of, in_words, reports_about
from flowverdict_rca.known import heard_alone, known_causes, without_aftermath
from flowverdict_rca.passage import Passage, whole
from flowverdict_rca.ranking import Finding, findings
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.transactions import rules_of
from flowverdict_rca.window import Pair, Window
from flowverdict_rca.withheld import unless_withheld

__all__ = ["Judgement", "judge", "verdict"]

_SHOWN_FLOWS = 20

_SUFFIX: dict[Basis, str] = {
    "failures": "",
    "losses": "-losses",
    "drops": "-drops",
    "connects": "-connects",
    "resets": "-resets",
    "half_open": "-requests",
    "zero_windows": "-receivers",
    "latency": "-latency",
    "jitter": "-jitter",
    "answers": "-answers",
}


@dataclass(frozen=True, slots=True)
class Judgement:
    """The status of each pair of a window, and the findings behind the failing ones.

    Attributes:
        aftermath: positions of pairs that would fail, but for what has just changed around them.
        basis: what was judged, as in a verdict.
        usual: of losses, the retransmission ratio of the pairs that no cause covers; of what is
            measured, the median of what is usual for the failing pairs.
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


def judge(window: Window, settings: RcaSettings, limits: Floats | None = None) -> Judgement:
    """Decide which pairs fail, and what is behind it.

    `limits` are the retransmission ratios above which each pair fails; the threshold, if not given.
    """
    if limits is None:
        limits = np.full(len(window.src), settings.fail_ratio)
    decisions = decide(window, settings, limits)
    alone = heard_alone(decisions)
    known = tuple(known_causes(decisions, alone))
    decisions, aftermath = without_aftermath(decisions, known, alone)
    compared = comparable(decisions, settings)
    known += tuple(behind_failures(compared, known))
    found = unless_withheld(findings(compared, known), window)
    return Judgement(decisions, found, aftermath, settings)


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
    between, needed = _withheld(judgement, explained) if not causes else ((), ())
    if status == "resolved":
        text = measured_summary.resolved(causes, judgement.basis)
    elif not causes and needed:
        text = summary.withheld(flows, len(explained), between, needed)
    elif not causes:
        text = summary.undetermined(flows, window.coverage.nodes_silent)
    elif judgement.basis == "failures":
        text = _behind_failures(causes[0], judgement, explained, passage, flows)
    else:
        text = _above_normal(causes[0], judgement, explained, passage)
    conditions = conditions_of_pairs(
        decisions, judgement.basis, judgement.unsteady, judgement.settings
    )
    reports = reports_about(causes, window.endpoints, window.facts.kernel_log)
    return Verdict(
        id=f"{incident_id}/{window.end_ns}{_SUFFIX[judgement.basis]}",
        incident_id=incident_id,
        status=status,
        opened_at=to_rfc3339(opened_ns),
        window=TimeWindow(start=to_rfc3339(window.start_ns), end=to_rfc3339(window.end_ns)),
        summary=text + (in_words(reports) if status != "resolved" else ""),
        enough_evidence=bool(causes),
        causes=causes,
        undecided_between=between[:MOST_NAMED],
        nodes_needed=needed[:MOST_NAMED],
        rules=rules_of(decisions, conditions, judgement.settings.miner),
        basis=judgement.basis,
        conditions=_conditions(
            {name: bool(mask[explained].any()) for name, mask in conditions.items()}
            | conditions_of(reports),
            {str(end) for pair in pairs for end in (pair.src, pair.dst)},
            decisions.half_open,
            causes,
        ),
        severity=_severity(causes, len(explained), judgement.basis),
        fail_ratio=judgement.settings.fail_ratio,
        flows=flows,
        failing_flows=tuple(_failing_flow(*each) for each in _worst(pairs, passages)),
        half_open=decisions.half_open,
        kernel_log=reports,
        coverage=_bounded(window.coverage),
    )


def _withheld(
    judgement: Judgement, explained: Numbers
) -> tuple[tuple[Component, ...], tuple[str, ...]]:
    for each in judgement.findings:
        if each.needed and np.array_equal(each.explained, explained):
            return each.between, each.needed
    return (), ()


def _behind_failures(
    cause: Cause, judgement: Judgement, explained: Numbers, passage: Passage, flows: FlowCounts
) -> str:
    failed_names: Counter[str] = Counter()
    for each in explained.tolist():
        failed_names.update(judgement.window.failed_names.get(each, {}))
    decisions, settings = judgement.decisions, judgement.settings
    evidence = decisions.evidence[explained]
    sums, limit = (
        evidence.sum(axis=0, keepdims=True),
        decisions.limits[explained].min(keepdims=True),
    )
    return summary.blamed(
        cause,
        evidence,
        failed_names,
        passage if retransmits(sums, limit, settings) else None,
        flows,
        settings,
    )


def _above_normal(cause: Cause, judgement: Judgement, explained: Numbers, passage: Passage) -> str:
    window, usual = judgement.window, judgement.usual
    evidence, rtt_us = judgement.decisions.evidence[explained], window.rtt_us[explained]
    if judgement.basis == "latency":
        unsteady = explained[np.isin(explained, judgement.unsteady)]
        return measured_summary.slow(cause, rtt_us, usual, window.rtt_variation_us[unsteady])
    if judgement.basis == "jitter":
        vary_us = window.rtt_variation_us[explained]
        return measured_summary.varies(cause, rtt_us, vary_us, usual)
    if judgement.basis == "answers":
        return measured_summary.answers_slowly(cause, evidence, rtt_us, usual)
    if judgement.basis == "zero_windows":
        return measured_summary.reads_slowly(cause, evidence)
    if judgement.basis == "connects":
        return measured_summary.failed_connects(cause, evidence, usual)
    if judgement.basis == "resets":
        return measured_summary.resets(cause, evidence, usual)
    if judgement.basis == "half_open":
        return measured_summary.half_open(cause, judgement.decisions.half_open, usual)
    if judgement.basis == "drops":
        return measured_summary.drops(cause, evidence, passage.dropped, passage.reasons, usual)
    return summary.loses(cause, evidence, passage, usual)


def _bounded(coverage: Coverage) -> Coverage:
    """The same with as many nodes by name as a verdict has room for."""
    names = ("nodes_reporting", "nodes_silent", "nodes_late")
    lists = {name: getattr(coverage, name) for name in names}
    more = {f"more_{name}": max(0, len(each) - MOST_NAMED) for name, each in lists.items()}
    return msgspec.structs.replace(
        coverage, **{name: each[:MOST_NAMED] for name, each in lists.items()}, **more
    )


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
    of_pairs: dict[Condition, bool],
    named: Set[str],
    half_open: Sequence[HalfOpen],
    causes: Sequence[Cause],
) -> tuple[Condition, ...]:
    """What was seen, in the order of the type."""
    seen = of_pairs | {
        "HALF_OPEN": of_pairs.get("HALF_OPEN", False)
        or any(each.name in named for each in half_open),
        "NODE_SILENT": bool(causes and causes[0].reported) and causes[0].kind == "node",
        "NO_READY_ENDPOINTS": _has_no_ready_endpoints(causes),
    }
    return tuple(name for name in get_args(Condition) if seen.get(name))


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
        rtt_variation_us=pair.rtt_variation_us,
        answer_us=pair.answer_us,
        segments_sent=passage.sent,
        segments_arrived=passage.arrived,
        drop_reasons=dict(Counter(passage.reasons).most_common(MOST_NAMED)),
        failed_names=dict(Counter(pair.failed_names).most_common(MOST_NAMED)),
        dropped_by_node=dict(Counter(passage.dropped).most_common(MOST_NAMED)),
        **counts,
    )
