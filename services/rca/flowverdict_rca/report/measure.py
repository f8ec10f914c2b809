"""What a report's pictures show of each pair: its retransmission ratio, or what is above normal."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from statistics import median

from flowverdict_contracts.verdicts import Verdict
from flowverdict_flows.ratios import RETRANSMISSION_RATIO
from flowverdict_rca.measured_summary import milliseconds
from flowverdict_rca.summary import percent
from flowverdict_rca.window import DROPS_BEFORE_RECEIPT

__all__ = ["COUNTED", "FIELDS", "Counts", "Measure", "measure_of"]

_CONNECTIONS = ("opens", "resets_received")
COUNTED = (
    *RETRANSMISSION_RATIO.fields,
    "answers",
    "answers_us",
    *_CONNECTIONS,
    "failed_opens",
    "segments_sent",
    *DROPS_BEFORE_RECEIPT,
)
FIELDS = (*COUNTED, "rtt_us", "rtt_variation_us", "rtt_samples")
"""What is summed for each pair: counts, the RTT of each interval and how much it varied, and how
many intervals had one.
"""

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


def _mean(total: str, samples: str) -> Callable[[Counts], float | None]:
    return lambda counts: counts[total] / counts[samples] if counts[samples] else None


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


def _reset_share(counts: Counts) -> float | None:
    opens, reset = (counts[name] for name in _CONNECTIONS)
    return reset / max(opens, reset) if reset or opens else None


def _failed_share(counts: Counts) -> float | None:
    opens, failed = counts["opens"], counts["failed_opens"]
    return failed / (opens + failed) if opens or failed else None


def _dropped(counts: Counts) -> int:
    return sum(counts[name] for name in DROPS_BEFORE_RECEIPT)


def _dropped_share(counts: Counts) -> float | None:
    return _dropped(counts) / counts["segments_sent"] if counts["segments_sent"] else None


def _share(
    name: str,
    of: Callable[[Counts], float | None],
    sentence: Callable[[float, Counts], str],
    threshold: float,
) -> Measure:
    return Measure(name, "percent", of, percent, _percent_in_a_cell, sentence, threshold)


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
        return _times("Round-trip time", "round trips", _mean("rtt_us", "rtt_samples"), shown_us)
    if verdict.basis == "jitter":
        shown_us = [each.rtt_variation_us for each in flows]
        return _times(
            "Variation of the round-trip time",
            "a variation",
            _mean("rtt_variation_us", "rtt_samples"),
            shown_us,
        )
    if "SLOW_ANSWERS" in verdict.conditions:
        shown_us = [each.answer_us for each in flows]
        return _times("Time to answer", "answers", _mean("answers_us", "answers"), shown_us)
    if verdict.basis == "resets":
        shares = [each.resets_received / max(each.opens, each.resets_received, 1) for each in flows]
        said = "{resets_received} connections reset, {opens} opened"
        return _share(
            "Share of connections reset", _reset_share, lambda _, counts: said.format(**counts),
            median(shares or [0]) / 2,
        )  # fmt: skip
    if verdict.basis == "connects":
        shares = [each.failed_opens / max(each.opens + each.failed_opens, 1) for each in flows]
        said = "{failed_opens} connection attempts failed, {opens} succeeded"
        return _share(
            "Share of connection attempts that fail", _failed_share,
            lambda _, counts: said.format(**counts), median(shares or [0]) / 2,
        )  # fmt: skip
    if verdict.basis == "drops":
        shares = [sum(each.dropped_by_node.values()) / max(each.segments_sent, 1) for each in flows]
        return _share(
            "Share of packets dropped", _dropped_share,
            lambda _, counts: f"{_dropped(counts)} of {counts['segments_sent']} packets dropped",
            median(shares or [0]) / 2,
        )  # fmt: skip
    ratios = [each.retransmission_ratio or 0.0 for each in flows]
    is_low = bool(flows) and 0 < max(ratios) <= verdict.fail_ratio
    threshold = median(ratios) / 2 if is_low else verdict.fail_ratio
    return _share("Retransmission ratio", RETRANSMISSION_RATIO.of, _retransmitted, threshold)


def _percent_in_a_cell(ratio: float) -> str:
    if ratio == 0 or ratio >= 0.01:
        return f"{100 * ratio:.0f}"
    return f"{100 * ratio:.1f}" if ratio >= 0.001 else "<0.1"
