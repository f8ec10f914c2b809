"""One window judged: its failing pairs, what is behind them, and the verdict's document."""

from collections.abc import Sequence
from dataclasses import dataclass

from flowverdict_contracts.verdicts import (
    Cause,
    FailingFlow,
    FlowCounts,
    Verdict,
    Window,
    moment,
)
from flowverdict_contracts.verdicts import (
    Status as VerdictStatus,
)
from flowverdict_rca import wording
from flowverdict_rca.mining import failure_rules
from flowverdict_rca.pairs import Pair, Status, decide
from flowverdict_rca.panes import WindowData
from flowverdict_rca.ranking import Finding, findings, transaction
from flowverdict_rca.settings import RcaSettings

__all__ = ["Judgement", "judge", "verdict"]

_SHOWN_FLOWS = 20


@dataclass(frozen=True, slots=True)
class Judgement:
    """A window's pairs by status, and the findings behind the failing ones."""

    window: WindowData
    failing: tuple[Pair, ...]
    ok: tuple[Pair, ...]
    undecided: int
    findings: tuple[Finding, ...]
    settings: RcaSettings


def judge(window: WindowData, settings: RcaSettings) -> Judgement:
    """Decide which pairs fail, and what is behind it."""
    by_status: dict[Status, list[Pair]] = {status: [] for status in Status}
    for panes in window.pairs:
        status, evidence = decide(panes, settings)
        by_status[status].append(evidence)
    failing, ok = by_status[Status.FAIL], by_status[Status.OK]
    return Judgement(
        window=window,
        failing=tuple(failing),
        ok=tuple(ok),
        undecided=len(by_status[Status.UNDECIDED]),
        findings=tuple(findings(failing, ok, window.addresses)),
        settings=settings,
    )


def verdict(
    incident_id: str,
    opened_ns: int,
    status: VerdictStatus,
    judgement: Judgement,
    causes: tuple[Cause, ...],
    explained: Sequence[Pair],
) -> Verdict:
    """The document that says what `judgement` means for one incident.

    `causes` are empty where nothing could be singled out; `explained` are the incident's failing
    pairs in this window.
    """
    flows = FlowCounts(
        failing=len(judgement.failing), ok=len(judgement.ok), undecided=judgement.undecided
    )
    if status == "resolved":
        text = wording.resolved(causes)
    elif causes:
        text = wording.summary(causes[0], explained, flows)
    else:
        text = wording.undetermined(flows)
    transactions = [transaction(pair, True) for pair in judgement.failing]
    transactions += [transaction(pair, False) for pair in judgement.ok]
    end = judgement.window.end_ns
    return Verdict(
        id=f"{incident_id}/{end}",
        incident_id=incident_id,
        status=status,
        opened_at=moment(opened_ns),
        window=Window(start=moment(judgement.window.start_ns), end=moment(end)),
        summary=text,
        enough_evidence=bool(causes),
        causes=causes,
        rules=failure_rules(transactions),
        conditions=_conditions(explained, judgement.settings),
        flows=flows,
        failing_flows=tuple(_failing_flow(pair) for pair in _worst(explained)),
        coverage=judgement.window.coverage,
    )


def _conditions(pairs: Sequence[Pair], settings: RcaSettings) -> tuple[str, ...]:
    seen = {
        "HIGH_RETRANSMISSION_RATIO": any(pair.retransmits(settings) for pair in pairs),
        "CONNECT_FAILURE": any(pair.connects_fail(settings) for pair in pairs),
        "PACKET_DROPS": any(pair.dropped for pair in pairs),
    }
    return tuple(name for name, is_seen in seen.items() if is_seen)


def _worst(pairs: Sequence[Pair]) -> list[Pair]:
    return sorted(pairs, key=lambda pair: -pair.retransmission_ratio)[:_SHOWN_FLOWS]


def _failing_flow(pair: Pair) -> FailingFlow:
    return FailingFlow(
        src=pair.src.name,
        dst=pair.dst.name,
        retransmission_ratio=round(pair.retransmission_ratio, 4),
        data_segments_sent=pair.segments,
        retransmitted_segments=pair.retransmitted_segments,
        opens=pair.opens,
        failed_opens=pair.failed_opens,
        rtt_us=pair.rtt_us,
    )
