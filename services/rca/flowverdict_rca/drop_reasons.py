"""Why kernels dropped packets, by pair."""

from collections import Counter

import numpy as np

from flowverdict_contracts.raw import DROP_REASONS
from flowverdict_flows.pair_index import PairRows

__all__ = ["drop_reasons"]


def drop_reasons(rows: PairRows) -> dict[int, Counter[str]]:
    """By pair number, the kernel's names of its reasons, and how many packets it dropped for each;
    `OTHER` for those without a field of their own.
    """
    found: dict[int, Counter[str]] = {}
    for field, reason in DROP_REASONS.items():
        dropped = rows.sums(field)
        for at in np.flatnonzero(dropped).tolist():
            found.setdefault(int(rows.numbers[at]), Counter())[reason] += int(dropped[at])
    return found
