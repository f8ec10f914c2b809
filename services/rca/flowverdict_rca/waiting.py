"""Which servers answer late only because they wait for others."""

import numpy as np
import numpy.typing as npt

from flowverdict_flows.pairs import Numbers
from flowverdict_rca.engine.rows import Floats
from flowverdict_rca.window import Window

__all__ = ["waits_for_others"]

_CAUSED = 0.5
"""What a server waits for explains how long it takes, if it is at least half of it."""

Mask = npt.NDArray[np.bool_]


def waits_for_others(
    window: Window, slow: Mask, longer_us: Floats, way_us: Floats, answers: Numbers
) -> Mask:
    """The slow pairs whose server waits itself, for another one that is slow or is reached over a
    way that is: once, or as often as it asks for each answer of its own.

    Not those of servers that only wait for each other in turn.

    Args:
        window: the pairs are from.
        slow: those whose answers take too long.
        longer_us, way_us: by how much the answers, and the round trip, of each pair are longer.
        answers: how many each has.
    """
    size = len(window.endpoints)
    answered = np.maximum(np.bincount(window.dst, answers, size), 1)

    def waits(explained: Mask) -> Mask:
        """The slow pairs whose servers wait as long as that for these pairs, or for the way."""
        us = np.where(answers > 0, way_us + np.where(explained, longer_us, 0.0), 0.0)
        waited_us = np.bincount(window.src, us * answers, size) / answered
        np.maximum.at(waited_us, window.src, us)
        found: Mask = slow & (waited_us[window.dst] >= _CAUSED * longer_us)
        return found

    explained = ~waits(np.ones_like(slow))
    found = waits(explained)
    while (found & ~explained).any():
        explained |= found
        found = waits(explained)
    return found
