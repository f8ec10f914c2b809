"""What is behind failing pairs, by which of them fail and which are OK."""

from collections.abc import Iterable, Iterator
from dataclasses import replace

import numpy as np

from flowverdict_rca.decisions import Decisions, PairStatus
from flowverdict_rca.engine.localise import localise
from flowverdict_rca.known import KnownCause
from flowverdict_rca.servers_at_fault import as_servers
from flowverdict_rca.suspects import known_causes_of, suspects_of
from flowverdict_rca.window_table import answered_by, settled, table_of

__all__ = ["behind_failures"]

_WEIGHT = 3
"""How many observations the status of a pair counts for. With more, pairs that fail by chance
outweigh their price; with fewer, a fault needs more pairs to show."""

_LEAST_PAIRS = 2
_LEAST_PRECISION = 0.25
"""If fewer of its pairs fail, it is these that have a fault, not what they have in common."""
_MOST_PAIRS = 200_000
"""More take longer than a pane."""


def behind_failures(decisions: Decisions, known: Iterable[KnownCause]) -> Iterator[KnownCause]:
    """The causes of failing pairs, but for pairs that a known cause explains.

    How much a pair loses differs between the pairs of one fault, so it is the status that counts. A
    cause of a single pair is left to others: there is nothing to compare it with.
    """
    window = decisions.window
    chosen = settled(window) & (decisions.status != PairStatus.UNDECIDED)
    for each in known:
        chosen[each.explained] = False
    fails = chosen & (decisions.status == PairStatus.FAIL)
    if fails.sum() < _LEAST_PAIRS or chosen.sum() > _MOST_PAIRS:
        return
    table = table_of(window, chosen).assign(flows=_WEIGHT, failing=_WEIGHT * fails[chosen])
    found = localise(table, total="flows", bad="failing")
    suspects = [
        # Callers of a service do not know which of its pods answers them.
        replace(each, covers=each.covers | (fails & answered_by([each.component], window)))
        for each in as_servers(suspects_of(found.causes, window), window, chosen, fails)
        if (each.covers & fails).sum()
        >= max(_LEAST_PAIRS, _LEAST_PRECISION * (each.covers & chosen).sum())
    ]
    status = np.where(chosen, decisions.status, PairStatus.UNDECIDED)
    yield from known_causes_of(suspects, status)
