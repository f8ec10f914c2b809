"""What a report's pictures show of each pair: its retransmission ratio, or its round trips."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from flowverdict_contracts.verdicts import Verdict
from flowverdict_flows.ratios import RETRANSMISSION_RATIO
from flowverdict_rca.summary import milliseconds, percent

__all__ = ["COUNTED", "FIELDS", "Counts", "Measure", "measure_of"]

COUNTED = (*RETRANSMISSION_RATIO.fields, "answers", "answers_us")
FIELDS = (*COUNTED, "rtt_us", "rtt_samples")
"""What is summed for each pair: counts, the RTT of each interval, and how many had one."""

Counts = Mapping[str, int]
"""Sums by `FIELDS`."""


@dataclass(frozen=True, slots=True)
class Measure:
    """What is shown.

    Attributes:
        name: as a heading.
        unit: of the numbers in the matrices.
        of: its value; None if the counts have none.
        shown: a value as text, and `short` as in a matrix.
        sentence: a value and what it is of, as text.
        threshold: what is above it is shown in red.
    """

    name: str
    unit: str
    of: Callable[[Counts], float | None]
    shown: Callable[[float], str]
    short: Callable[[float], str]
    sentence: Callable[[float, Counts], str]
    threshold: float


def _mean_rtt_us(counts: Counts) -> float | None:
    return counts["rtt_us"] / counts["rtt_samples"] if counts["rtt_samples"] else None


def _mean_answer_us(counts: Counts) -> float | None:
    return counts["answers_us"] / counts["answers"] if counts["answers"] else None


def _times(
    name: str, what: str, of: Callable[[Counts], float | None], shown_us: list[int]
) -> Measure:
    return Measure(
        name=name,
        unit="milliseconds",
        of=of,
        shown=milliseconds,
        short=lambda us: f"{us / 1000:.0f}" if us >= 1000 else "<1",
        sentence=lambda us, _: f"{what} of {milliseconds(us)}",
        threshold=median(shown_us or [0]) / 2,
    )


def _retransmitted(_: float, counts: Counts) -> str:
    resent, sent = counts["retransmitted_data_segments"], counts["data_segments_sent"]
    return f"{resent} of {sent} data segments retransmitted"


def measure_of(verdict: Verdict) -> Measure:
    """What the verdict is about; if none of its flows is above its threshold, red is what is above
    half of what they have.
    """
    flows = verdict.failing_flows
    if "HIGH_LATENCY" in verdict.conditions:
        shown_us = [each.rtt_us for each in flows]
        return _times("Round-trip time", "round trips", _mean_rtt_us, shown_us)
    if "SLOW_ANSWERS" in verdict.conditions:
        shown_us = [each.answer_us for each in flows]
        return _times("Time to answer", "answers", _mean_answer_us, shown_us)
    ratios = [each.retransmission_ratio or 0.0 for each in flows]
    is_low = bool(flows) and 0 < max(ratios) <= verdict.fail_ratio
    return Measure(
        name="Retransmission ratio",
        unit="percent",
        of=RETRANSMISSION_RATIO.of,
        shown=percent,
        short=_percent_in_a_cell,
        sentence=_retransmitted,
        threshold=median(ratios) / 2 if is_low else verdict.fail_ratio,
    )


def _percent_in_a_cell(ratio: float) -> str:
    if ratio == 0 or ratio >= 0.01:
        return f"{100 * ratio:.0f}"
    return f"{100 * ratio:.1f}" if ratio >= 0.001 else "<0.1"
