"""What was measured of the pairs of a window: round trips and how much they vary, how long servers
take to answer, and how often receivers had no room, connections were reset or never completed, and
packets were dropped.
"""

from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from flowverdict_flows.pairs import Numbers
from flowverdict_rca.window import DROPS_BEFORE_RECEIPT, Window, lost_segments, total
from flowverdict_rca.window_table import settled

__all__ = [
    "Measured",
    "answers",
    "drops",
    "failed_connects",
    "half_open",
    "resets",
    "round_trips",
    "variations",
    "zero_windows",
]

_LEAST_SAMPLES = 3
_LEAST_SEGMENTS = 100
_LEAST_EVENTS = 5
"""Fewer windows that close, resets, or drops, of a pair are none."""
_LOST_SHARE = 0.005
"""Where more is lost, answers wait for what is sent again, which is not the server's doing."""

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Measured:
    """What was measured of each pair.

    Attributes:
        values: times in microseconds, or how often, some per 1,000 segments or
            connections.
        variations: how much times vary, or what goes with them; 0 if that is not measured.
        samples: how many measurements there are.
        valid: which pairs' tell anything: those lead from one known place to another.
    """

    values: Numbers
    variations: Numbers
    samples: Numbers
    valid: Mask

    @property
    def enough(self) -> Mask:
        """Which pairs can be judged by them."""
        found: Mask = self.valid & (self.samples >= _LEAST_SAMPLES)
        return found

    @property
    def some(self) -> Mask:
        """Which pairs have any: of answers that take less than a tick of the kernel's clock, only
        few are seen.
        """
        found: Mask = self.valid & (self.samples > 0)
        return found


def round_trips(window: Window) -> Measured:
    """Smoothed round trips, as the kernel has them."""
    valid = _between_known_places(window)
    return Measured(window.rtt_us, window.rtt_variation_us, window.rtt_samples, valid)


def variations(window: Window) -> Measured:
    """How much round trips vary: their smoothed mean deviation, as the kernel has it."""
    vary_us = window.rtt_variation_us
    return replace(round_trips(window), values=vary_us, variations=np.zeros_like(vary_us))


def answers(window: Window) -> Measured:
    """How long the receiver of each pair takes to answer, without the way to it and back.

    What varies is the share of the time that connections wait for one, per 1,000.
    """
    counts = window.counts
    samples = total(counts, "answers")
    us = total(counts, "answers_us") // np.maximum(samples, 1)
    valid = _between_known_places(window) & ~_loses(window)
    waiting = 1000 * total(counts, "answers_us") // np.maximum(window.answering_us, 1)
    return Measured(np.maximum(us - window.rtt_us, 0), waiting, samples, valid)


def zero_windows(window: Window) -> Measured:
    """How often the receiver of each pair had no room, per 1,000 data segments sent to it."""
    counts = window.counts
    return _per_thousand(window, total(counts, "zero_windows_received"), "data_segments_sent")


def drops(window: Window) -> Measured:
    """How many packets of each pair nodes' kernels dropped, per 1,000 segments sent.

    No more than did not arrive, if the receiver is seen: a kernel also drops copies.
    """
    counts = window.counts
    dropped = total(counts, *DROPS_BEFORE_RECEIPT)
    at, is_seen = window.other_ways
    missing = total(counts, "segments_sent") - total(counts, "segments_received")[at]
    dropped = np.where(is_seen, np.clip(missing, 0, dropped), dropped)
    return _per_thousand(window, dropped, "segments_sent")


def failed_connects(window: Window) -> Measured:
    """How many connection attempts of each caller failed, per 1,000; a few are none."""
    failed = total(window.counts, "failed_opens")
    attempts = failed + total(window.counts, "opens")
    often = _often(failed, attempts)
    valid = settled(window) & (attempts >= _LEAST_EVENTS) & (window.calls >= 0)
    return Measured(often, np.zeros_like(often), np.maximum(attempts, _LEAST_SAMPLES), valid)


def resets(window: Window) -> Measured:
    """How many connections of each pair its receiver reset, per 1,000; a few are none.

    Those of them that were opened in the window, and those that were reset, are counted. A refused
    attempt is answered with a reset, too, but was never a connection.
    """
    counts = window.counts
    reset = np.maximum(total(counts, "resets_received") - total(counts, "refused_opens"), 0)
    connections = np.maximum(total(counts, "opens"), reset)
    often = 1000 * reset // np.maximum(connections, 1)
    # Of many connections that were open before, a few may be reset.
    few = np.maximum(_LEAST_EVENTS, total(counts, "data_segments_sent") // 1000)
    often[reset < few] = 0
    # Idle connections tell nothing, unless they are busy: those could have been reset.
    busy = total(counts, "data_segments_sent") >= _LEAST_SEGMENTS
    valid = _between_known_places(window) & ((connections >= _LEAST_EVENTS) | busy)
    samples = np.maximum(connections, _LEAST_SAMPLES)
    return Measured(often, np.zeros_like(often), samples, valid)


def half_open(window: Window) -> Measured:
    """How often the sender of each pair repeated answers to connection requests that never
    completed, whoever sent those: an address that was never seen before, often.
    """
    counts = window.counts
    never = total(counts, "opens") == 0
    again = total(counts, "retransmitted_synacks") * never
    of_sender = np.bincount(window.src, again, len(window.endpoints)).astype(np.int64)
    often: Numbers = of_sender[window.src]
    valid = _between_known_places(window) & (total(counts, "segments_sent") > 0)
    return Measured(often, np.zeros_like(often), np.full_like(often, _LEAST_SAMPLES), valid)


def _per_thousand(window: Window, counted: Numbers, of: str) -> Measured:
    sent = total(window.counts, of)
    often = _often(counted, sent)
    valid = _between_known_places(window) & (sent >= _LEAST_SEGMENTS)
    return Measured(often, np.zeros_like(often), sent, valid)


def _often(counted: Numbers, of: Numbers) -> Numbers:
    """Per 1,000; a few are none."""
    often = 1000 * counted // np.maximum(of, 1)
    often[counted < _LEAST_EVENTS] = 0
    return often


def _loses(window: Window) -> Mask:
    """The pairs that lose segments on either way."""
    counts = window.counts
    lost: Mask = lost_segments(counts) > _LOST_SHARE * total(counts, "data_segments_sent")
    at, is_seen = window.other_ways
    back: Mask = is_seen & lost[at]
    return lost | back


def _between_known_places(window: Window) -> Mask:
    """What is measured of a service's address is that of whichever pod answered, which has its
    own.
    """
    backends = window.facts.backends
    of_end = np.array([not backends.get(each) for each in window.endpoints], np.bool_)
    found: Mask = settled(window)
    if len(of_end):
        found &= of_end[window.src] & of_end[window.dst]
    return found
