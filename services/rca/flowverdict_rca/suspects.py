"""What the causes that `localise` finds in a table are in the window."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowverdict_contracts.verdicts import Component, Direction
from flowverdict_flows.components import both_ways
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.decisions import PairStatus
from flowverdict_rca.engine import localise as engine
from flowverdict_rca.known import KnownCause
from flowverdict_rca.window import Window
from flowverdict_rca.window_table import component_at, named_in, pairs_of

__all__ = ["Suspect", "known_causes_of", "suspects_of"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Suspect:
    """A component, the pairs that it covers, and the share of their segments lost because of it."""

    component: Component
    direction: Direction
    covers: Mask
    rate: float
    alternatives: tuple[Component, ...]


def suspects_of(
    causes: Iterable[engine.Cause], window: Window, way: Direction | None = None
) -> Iterator[Suspect]:
    """What the causes are in the window; what suffers both ways is one.

    `way` is that of all of them, if only one was looked at.
    """
    named = named_in(window)
    found: dict[Component, list[engine.Cause]] = {}
    for cause in causes:
        found.setdefault(both_ways(component_at(cause.where, named)[0]), []).append(cause)
    for whole, parts in found.items():
        component, direction = component_at(parts[0].where, named)
        alternatives = {component_at(each, named)[0] for each in parts[0].alternatives}
        if len(parts) > 1:
            component, direction, alternatives = whole, "both", set()
        direction = way or direction
        yield Suspect(
            component,
            direction,
            pairs_of(component, direction, window),
            max(each.rate for each in parts),
            tuple(sorted(alternatives - {component}, key=str)),
        )


def known_causes_of(suspects: Iterable[Suspect], status: Numbers) -> Iterator[KnownCause]:
    """The suspects that failing pairs show, for `findings`; each pair is explained once."""
    remaining = status == PairStatus.FAIL
    for each in suspects:
        explained = np.flatnonzero(remaining & each.covers)
        if explained.size:
            remaining[explained] = False
            ok = np.flatnonzero((status == PairStatus.OK) & each.covers)
            yield KnownCause(each.component, "", each.direction, explained, ok, each.alternatives)
