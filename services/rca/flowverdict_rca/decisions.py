"""Whether each pair of a window is OK or FAIL."""

from collections.abc import Iterator
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
import numpy.typing as npt
from scipy.special import pdtr

from flowverdict_contracts.verdicts import HalfOpen
from flowverdict_flows.half_open import half_open
from flowverdict_flows.pairs import Numbers, ratios_of
from flowverdict_flows.ratios import RETRANSMISSION_RATIO
from flowverdict_rca.facts import LEAVING
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.shares import LOST_TO_SHOW, Share, connects, lookups
from flowverdict_rca.window import COUNTS, Pair, Window, lost_segments, total

__all__ = [
    "Decisions",
    "PairStatus",
    "cannot_connect",
    "cannot_look_up",
    "decide",
    "passes_only_small",
    "retransmits",
]

_SHOWN_HALF_OPEN = 20
_BY_CHANCE = 0.05
_QUIET = 4
"""A pair that sends less than a quarter of its mean rate has gone quiet, unless all do."""

_SMALL_BYTES = 1000
"""What a connection can have sent without a full segment."""

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


class PairStatus(IntEnum):
    """The decision on a pair."""

    UNDECIDED = 0
    OK = 1
    FAIL = 2


@dataclass(frozen=True, slots=True)
class Decisions:
    """The pairs of a window with the status of each.

    Attributes:
        status: a `PairStatus` for each pair.
        evidence: the counts that decided it, shape (pairs, `COUNTS`).
        limits: the retransmission ratio above which each pair fails.
        half_open: endpoints with connection requests that never completed, worst first.
    """

    window: Window
    status: Numbers
    evidence: Numbers
    limits: Floats
    half_open: tuple[HalfOpen, ...]

    @classmethod
    def of_all_panes(cls, window: Window, status: Numbers, settings: RcaSettings) -> "Decisions":
        """Decisions that everything in the window is the evidence for."""
        limits = np.full(len(status), settings.fail_ratio)
        half_open = _half_open(window, settings)
        return cls(window, status, window.counts, limits, half_open)

    def positions(self, status: PairStatus) -> Numbers:
        """Positions of the pairs with this status."""
        return np.flatnonzero(self.status == status)

    def pairs(self, positions: Numbers) -> Iterator[Pair]:
        """The pairs at `positions`, as objects."""
        window = self.window
        for at in positions.tolist():
            yield Pair(
                window.endpoints[window.src[at]],
                window.endpoints[window.dst[at]],
                dict(zip(COUNTS, self.evidence[at].tolist(), strict=True)),
                int(window.rtt_us[at]),
                int(window.rtt_variation_us[at]),
                window.failed_names.get(at, {}),
            )


def retransmits(evidence: Numbers, limits: Floats, settings: RcaSettings) -> Mask:
    """Whether the retransmission ratio is above its limit, on more than a few segments, most of
    which were lost.
    """
    lost = lost_segments(evidence)
    enough = (lost >= settings.min_retransmissions) & (
        2 * lost > total(evidence, "retransmitted_data_segments")
    )
    # A pair that sent no data has no ratio: comparing NaN gives False.
    return enough & (ratios_of(RETRANSMISSION_RATIO, evidence, COUNTS) > limits)


def passes_only_small(evidence: Numbers, settings: RcaSettings) -> Mask:
    """Whether connections open, but each loses data and hardly any arrives: large packets are lost,
    as where a tunnel's MTU is too small and nobody is told (RFC 2923, 2.1).
    """
    opens = total(evidence, "opens")
    enough = (opens >= settings.min_retransmissions) & (lost_segments(evidence) >= opens)
    connected = 2 * total(evidence, "retransmitted_syns") < opens
    passes: Mask = total(evidence, "bytes_acked") < _SMALL_BYTES * opens
    return enough & connected & passes


def cannot_connect(evidence: Numbers, settings: RcaSettings) -> Mask:
    """Whether most of its own connection attempts fail, or their SYNs go unanswered."""
    failed, unanswered = connects(evidence, settings)
    return failed.is_too_many() | unanswered.is_too_many()


def cannot_look_up(evidence: Numbers, settings: RcaSettings) -> Mask:
    """Whether DNS lookups go unanswered, more often than a flow may lose segments, or most fail."""
    unanswered, failed = lookups(evidence, settings)
    return unanswered.is_too_many() | failed.is_too_many()


def _attempts(counts: Numbers, settings: RcaSettings) -> tuple[Share, ...]:
    return *connects(counts, settings), *lookups(counts, settings)


def _may_fail_to_look_up(
    window: Window, fails: Mask, evidence: Numbers, settings: RcaSettings
) -> Mask:
    """Which pairs may look up as badly as those that fail to."""
    found = np.zeros(len(fails), np.bool_)
    both = zip(lookups(evidence, settings), lookups(window.counts, settings), strict=True)
    for own, of_all in both:
        found |= of_all.may_be_as_bad(own.of(fails & own.is_too_many()))
    return found


def decide(window: Window, settings: RcaSettings, limits: Floats) -> Decisions:
    """The status of each pair, and the evidence for it.

    `limits` are the retransmission ratios above which each pair fails.

    No more past panes are used than necessary: a failing flow sends less, so a healthy past would
    outweigh it. A pair fails as soon as the newest panes show it. It is OK if the newest pane alone
    has enough segments, or if the whole window does and the pair has not just gone quiet alone. But
    if other pairs fail, it takes as many segments as would show what those lose. Attempts to
    connect or look up count only if they fail more often than chance explains, where whom they ask
    answers others well.
    """
    panes = window.panes
    status = np.full(panes.shape[1], PairStatus.UNDECIDED, np.int64)
    evidence = np.zeros(panes.shape[1:], np.int64)
    undecided = np.ones(panes.shape[1], np.bool_)
    usual = [each.at(window.dst) for each in _attempts(window.counts, settings)]
    for number, pane in enumerate(panes):
        evidence[undecided] += pane[undecided]
        fails = retransmits(evidence, limits, settings)
        for attempts, of_all in zip(_attempts(evidence, settings), usual, strict=True):
            fails |= attempts.is_too_many() & ~attempts.is_chance(of_all)
        status[undecided & fails] = PairStatus.FAIL
        undecided &= ~fails
        if number == 0:
            is_ok = undecided & (_delivered(evidence) >= settings.min_segments)
            status[is_ok] = PairStatus.OK
            undecided &= ~is_ok
    enough = _delivered(evidence) >= settings.min_segments
    status[undecided & enough & ~_went_quiet(panes, undecided)] = PairStatus.OK
    would_not_show = _may_lose_as_much(window, status, evidence, limits, settings)
    would_not_show |= _may_fail_to_look_up(window, status == PairStatus.FAIL, evidence, settings)
    status[(status == PairStatus.OK) & would_not_show] = PairStatus.UNDECIDED
    status[(status == PairStatus.FAIL) & _leaving(window)] = PairStatus.UNDECIDED
    return Decisions(window, status, evidence, limits, _half_open(window, settings))


def _may_lose_as_much(
    window: Window, status: Numbers, evidence: Numbers, limits: Floats, settings: RcaSettings
) -> Mask:
    """Which pairs may lose as much as those that fail: they sent too little to lose one segment
    most probably, or lost no less than chance explains.
    """
    fails = (status == PairStatus.FAIL) & retransmits(evidence, limits, settings)
    if not fails.any():
        return np.zeros(len(status), np.bool_)
    sent, lost = total(window.counts, "data_segments_sent"), lost_segments(window.counts)
    share = (
        lost_segments(evidence[fails]).sum() / total(evidence[fails], "data_segments_sent").sum()
    )
    sent_too_little: Mask = share * _delivered(window.counts) < LOST_TO_SHOW
    # Pairs fail as soon as their newest panes show it, so these lose more than they do in the mean.
    share = lost[fails].sum() / sent[fails].sum()
    lost_as_much: Mask = (lost > 0) & (pdtr(lost, share * sent) > _BY_CHANCE)
    lost_as_much &= limits == settings.fail_ratio  # what is usual for a pair is not as bad
    return sent_too_little | lost_as_much


def _went_quiet(panes: Numbers, healthy: Mask) -> Mask:
    """Whether each pair sends much less in the newest pane than before, and the others do not.

    Something may keep it from sending. But if all healthy pairs pause, as they do between bursts
    when everyone sends in step, that is how they are.
    """
    newest, mean = _delivered(panes[0]), _delivered(panes.sum(axis=0)) / len(panes)
    others_newest = newest[healthy].sum() - np.where(healthy, newest, 0)
    others_mean = mean[healthy].sum() - np.where(healthy, mean, 0)
    usual = np.where(others_mean > 0, others_newest / np.maximum(others_mean, 1e-9), 1.0)
    quiet: Mask = newest < np.minimum(usual, 1.0) * mean / _QUIET
    return quiet


def _leaving(window: Window) -> Mask:
    """Whether an end of each pair is a pod that is being deleted or is gone: that was planned."""
    return window.pairs_with(
        [window.facts.conditions.get(each) in LEAVING for each in window.endpoints]
    )


def _delivered(counts: Numbers) -> Numbers:
    """Segments that show that a pair is healthy: data, successful handshakes, and DNS answers.

    Pure ACKs are left out, since TCP never retransmits them: with them, 10% packet loss shows as a
    ratio of 6%; without them, as 11% (measured in the lab).
    """
    return total(counts, "data_segments_sent", "opens", "dns_answers")


def _half_open(window: Window, settings: RcaSettings) -> tuple[HalfOpen, ...]:
    counts = window.counts
    synacks, opens = total(counts, "retransmitted_synacks"), total(counts, "opens")
    found = half_open(window.src, synacks, opens, settings.min_retransmissions)
    return tuple(
        HalfOpen(name=str(window.endpoints[at]), peers=peers, retransmitted_synacks=count)
        for at, peers, count in found[:_SHOWN_HALF_OPEN]
    )
