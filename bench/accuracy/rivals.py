"""Other ways to localise, each from its paper, on the same tables.

All of them look at the same components as `localise` (`components_of`) and name at most ten.
"""

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowverdict_rca.engine.components import Components, components_of
from flowverdict_rca.engine.rows import Rows, rows_of

__all__ = ["RIVALS"]

Floats = npt.NDArray[np.float64]
Where = dict[str, str]

_FAIL_RATIO = 0.05
_MOST = 10


def _prepared(table: pd.DataFrame) -> tuple[Rows, Components, npt.NDArray[np.bool_]]:
    rows = rows_of(table, "segments", "retransmits")
    fails = rows.bad > _FAIL_RATIO * rows.total
    return rows, components_of(rows), fails


def _one_by_one(
    components: Components, weight: Floats, stands_out: Callable[[Floats, int], bool]
) -> list[Where]:
    """The component with the largest sum of weights, then the next on the rows that it leaves.

    Args:
        weight: of each row.
        stands_out: whether the largest of all sums is large enough to be named.
    """
    named: list[Where] = []
    weight = weight.copy()
    while len(named) < _MOST:
        sums = components.sums(weight)
        best = int(np.argmax(sums))
        if not stands_out(sums, best):
            break
        named.append(components.where(best))
        weight[components.rows(best)[0]] = 0
    return named


def seed_rules(table: pd.DataFrame) -> list[Where]:
    """Apriori's rules {pod} -> {FAIL} with a confidence of 0.7 (Agrawal and Srikant, VLDB 1994)."""
    _, components, fails = _prepared(table)
    covered, failing = components.sums(np.ones(len(fails))), components.sums(fails.astype(float))
    return [
        components.where(each)
        for each in np.flatnonzero(failing >= 0.7 * covered).tolist()
        if components.names(each) == ("pod",)
    ][:_MOST]


def leverage(table: pd.DataFrame) -> list[Where]:
    """The rule with most leverage, then the next on what is left (Piatetsky-Shapiro, 1991)."""
    _, components, fails = _prepared(table)
    named: list[Where] = []
    covered = components.sums(np.ones(len(fails)))
    while fails.any() and len(named) < _MOST:
        failing = components.sums(fails.astype(float))
        lever = (failing - covered * fails.mean()) / len(fails)
        best = int(np.argmax(lever))
        if failing[best] < 0.5 * covered[best]:
            break
        named.append(components.where(best))
        fails[components.rows(best)[0]] = False
    return named


def votes(table: pd.DataFrame) -> list[Where]:
    """007 (Arzani et al., NSDI 2018): each flow with a loss votes for the parts of its path."""
    rows, components, _ = _prepared(table)
    path = np.maximum(components.cover.T @ np.ones(len(components)), 1)
    return _one_by_one(
        components,
        rows.bad / path,
        lambda sums, best: bool(sums[best] and sums[best] >= 0.01 * sums.sum()),
    )


def flock(table: pd.DataFrame) -> list[Where]:
    """Flock's greedy search (Harsh et al., CoNEXT 2023) with one good and one bad loss rate."""
    rows, components, _ = _prepared(table)
    good, bad, prior = 1e-3, 1e-2, 5.0
    # Log-likelihood of a row if its path is bad, less that if it is good.
    change = rows.bad * np.log(bad / good) + (rows.total - rows.bad) * np.log(
        (1 - bad) / (1 - good)
    )
    return _one_by_one(components, change, lambda sums, best: bool(sums[best] > prior))


def netbouncer(table: pd.DataFrame) -> list[Where]:
    """NetBouncer (Tan et al., NSDI 2019): the success rate of each part, by coordinate descent."""
    rows, components, _ = _prepared(table)
    success = 1 - rows.bad / rows.total
    cover, regular = components.cover, 1.0
    log_rate = np.zeros(len(components))
    log_success = np.log(np.maximum(success, 1e-3))
    weight = np.sqrt(rows.total)
    for _ in range(15):
        rest = log_success - cover.T @ log_rate
        pull = components.sums(weight * rest) / (components.sums(weight) + regular)
        log_rate = np.minimum(0, log_rate + pull / 6)
    order = np.argsort(log_rate)[:_MOST]
    return [components.where(each) for each in order.tolist() if log_rate[each] < np.log(0.998)]


RIVALS: dict[str, Callable[[pd.DataFrame], list[Where]]] = {
    "seed's rules": seed_rules,
    "leverage": leverage,
    "007": votes,
    "Flock": flock,
    "NetBouncer": netbouncer,
}
"""Each by name: what it names in a table."""
