"""Which pairs of a window can be compared with those that fail."""

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from flowverdict_flows.pairs import Numbers
from flowverdict_rca.decisions import (
    Decisions,
    PairStatus,
    cannot_connect,
    cannot_look_up,
    retransmits,
)
from flowverdict_rca.engine.baseline import dispersion_of
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import lost_segments, total

__all__ = ["comparable"]

_ALIKE = 2.0
_FEW = 20

Mask = npt.NDArray[np.bool_]


def comparable(decisions: Decisions, settings: RcaSettings) -> Decisions:
    """The decisions, with pairs undecided that cannot be compared with those that fail.

    If nothing but connection attempts fails, only callers tell something; if nothing but lookups
    does, only those whose lookups are answered. If there are none, everyone does. If pairs that
    fail lose about as much as all others, chance decides which of them are above the limit.
    """
    alike = _loses_like_others(decisions, settings)
    if alike.any():
        status = np.where(alike, PairStatus.UNDECIDED, decisions.status)
        decisions = replace(decisions, status=status)
    window, fails = decisions.window, decisions.status == PairStatus.FAIL
    evidence = decisions.evidence[fails]
    loses = retransmits(evidence, decisions.limits[fails], settings).any()
    connects, looks_up = cannot_connect(evidence, settings), cannot_look_up(evidence, settings)
    if loses or not fails.any():
        return decisions
    if connects.all() and not looks_up.any():
        tells = window.calls >= 0
    elif looks_up.all() and not connects.any():
        tells = total(window.counts, "dns_answers") > 0
    else:
        return decisions
    if not (tells & (decisions.status == PairStatus.OK)).any():
        return decisions
    status = np.where(fails | tells, decisions.status, PairStatus.UNDECIDED)
    return replace(decisions, status=status)


def _loses_like_others(decisions: Decisions, settings: RcaSettings) -> Mask:
    """The pairs that fail for what they lose, if all pairs within the cluster may lose alike: those
    that fail lose less than twice what a pair of the rest does, or they all differ by no more than
    chance explains.
    """
    window = decisions.window
    sent, lost = total(window.counts, "data_segments_sent"), lost_segments(window.counts)
    inside = (sent > 0) & ~window.pairs_with([each.kind == "external" for each in window.endpoints])
    fails: Mask = decisions.status == PairStatus.FAIL
    rest = inside & ~fails
    fails = fails & inside & retransmits(decisions.evidence, decisions.limits, settings)
    none = np.zeros(len(fails), np.bool_)
    if not fails.any() or not rest.any():
        return none
    usual = np.median(lost[rest] / sent[rest])
    compared = fails | rest
    is_alike = lost[fails].sum() < _ALIKE * usual * sent[fails].sum()
    return fails if is_alike or _is_one_rate(lost[compared], sent[compared]) else none


def _is_one_rate(lost: Numbers, sent: Numbers) -> bool:
    """Whether counts are dispersed by no more than Poisson counts of one rate are, within three
    standard deviations. Not of a few pairs.
    """
    if len(sent) < _FEW:
        return False
    mean = lost.sum() / sent.sum() * sent
    deviation = np.sqrt((2 + (1 / mean).mean()) / len(mean))
    return bool(dispersion_of(lost.astype(np.float64), mean) < 1 + 3 * deviation)
