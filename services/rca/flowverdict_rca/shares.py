"""How many of a pair's attempts go wrong, and whether that is too many or chance."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import pdtrc

from flowverdict_flows.pairs import Numbers
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import total

__all__ = ["LOST_TO_SHOW", "Share", "connects", "lookups"]

LOST_TO_SHOW = 3.0
"""Segments lost on average, for a chance of 5% that none is lost (Poisson, e^-3)."""

_MOST = 0.5
_BY_CHANCE = 0.01

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Share:
    """How many of something went wrong, by pair.

    Attributes:
        bad, total: how many, and of how many.
        limit: above this share, it is too many.
        least: so many are more than a few.
    """

    bad: Numbers
    total: Numbers
    limit: float
    least: int

    def is_too_many(self) -> Mask:
        """Whether more than a few went wrong, and too large a share."""
        found: Mask = (self.bad >= self.least) & (self.bad > self.limit * self.total)
        return found

    def at(self, ends: Numbers) -> Floats:
        """For each pair, the share of all pairs that have the same one of these ends."""
        bad, of = (np.bincount(ends, each)[ends] for each in (self.bad, self.total))
        found: Floats = bad / np.maximum(of, 1)
        return found

    def is_chance(self, usual: Floats) -> Mask:
        """Whether these are no more than chance explains where the share is usually so large, and
        not above the limit: of a few, a share above it soon goes wrong.
        """
        found: Mask = pdtrc(np.maximum(self.bad - 1, 0), usual * self.total) > _BY_CHANCE
        found &= usual <= self.limit
        return found

    def may_be_as_bad(self, others: "Share") -> Mask:
        """Which pairs may have as large a share as some others: those in which one went wrong, and
        those that tried too little for that to be likely. Not those that tried nothing.
        """
        share = others.bad.sum() / max(others.total.sum(), 1)
        found: Mask = (self.bad > 0) | (share * self.total < LOST_TO_SHOW)
        return found & (self.total > 0) if share else np.zeros(len(found), np.bool_)

    def of(self, pairs: Mask) -> "Share":
        """The same, of some pairs."""
        return Share(self.bad[pairs], self.total[pairs], self.limit, self.least)


def connects(counts: Numbers, settings: RcaSettings) -> tuple[Share, Share]:
    """A pair's own connection attempts: those that fail, of which most must, and SYNs that go
    unanswered, of which as many must as a flow may lose segments.

    SYN-ACKs do not count: a connection request that never completes says nothing about the
    endpoint that answers it, and a lost SYN-ACK makes the client retransmit its SYN.
    """
    opens, failed = total(counts, "opens"), total(counts, "failed_opens")
    attempts, least = opens + failed, settings.min_retransmissions
    return (
        Share(failed, attempts, _MOST, least),
        Share(total(counts, "retransmitted_syns"), attempts, settings.fail_ratio, least),
    )


def lookups(counts: Numbers, settings: RcaSettings) -> tuple[Share, Share]:
    """A pair's DNS lookups: those unanswered, of which as many must be as a flow may lose segments,
    and answers that are errors, of which most must be.

    A name that does not exist is no error. Other errors of a few are about those names.
    """
    answers, unanswered = total(counts, "dns_answers"), total(counts, "dns_unanswered")
    least = settings.min_retransmissions
    return (
        Share(unanswered, answers + unanswered, settings.fail_ratio, least),
        Share(total(counts, "dns_failures"), answers, _MOST, least),
    )
