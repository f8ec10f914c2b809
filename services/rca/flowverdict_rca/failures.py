"""What is behind failing pairs, by which fail and which are OK."""

from collections.abc import Iterable, Iterator

import numpy as np

from flowverdict_rca.decisions import Decisions, PairStatus
from flowverdict_rca.engine.localise import localise
from flowverdict_rca.known import KnownCause
from flowverdict_rca.suspects import known_causes_of, suspects_of
from flowverdict_rca.window_table import settled, table_of

__all__ = ["behind_failures"]

_WEIGHT = 10
"""How much the status of a pair counts, in observations. How much of its segments a pair loses
differs between the pairs of one fault, so that its status says all there is."""


def behind_failures(decisions: Decisions, known: Iterable[KnownCause]) -> Iterator[KnownCause]:
    """The causes of failing pairs, but for those that a known cause explains.

    A single pair is left to others: there is nothing to compare it with.
    """
    window = decisions.window
    chosen = settled(window) & (decisions.status != PairStatus.UNDECIDED)
    for each in known:
        chosen[each.explained] = False
    fails = chosen & (decisions.status == PairStatus.FAIL)
    if fails.sum() < _LEAST_PAIRS:
        return
    table = table_of(window, chosen).assign(flows=_WEIGHT, failing=_WEIGHT * fails[chosen])
    found = localise(table, total="flows", bad="failing")
    suspects = [
        each for each in suspects_of(found.causes, window) if (each.covers & fails).sum() > 1
    ]
    status = np.where(chosen, decisions.status, PairStatus.UNDECIDED)
    yield from known_causes_of(suspects, status)


_LEAST_PAIRS = 2
