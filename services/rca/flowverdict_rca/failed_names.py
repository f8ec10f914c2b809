"""Which names could not be looked up, by pair."""

from collections import Counter

import numpy as np

from flowverdict_flows.pair_index import PairRows

__all__ = ["MOST_NAMES", "failed_names"]

MOST_NAMES = 100
"""Names that are told apart for a pair; a program may look up as many as it likes."""


def failed_names(rows: PairRows) -> dict[int, Counter[str]]:
    """By pair number, the names whose lookups had no answer, or one that is an error other than
    NXDOMAIN, and how many.
    """
    failed = rows.values("dns_unanswered") + rows.values("dns_failures")
    at = np.flatnonzero(failed)
    if not at.size:
        return {}
    column = rows.batch.column("dns_name")
    names, codes = column.dictionary.to_pylist(), column.indices.to_numpy()[rows.rows[at]]
    numbers = rows.numbers[rows.pair_of_row[at]]
    found: dict[int, Counter[str]] = {}
    for number, code, count in zip(
        numbers.tolist(), codes.tolist(), failed[at].tolist(), strict=True
    ):
        if names[code]:
            found.setdefault(number, Counter())[names[code]] += count
    return found
