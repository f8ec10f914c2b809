"""Association rules over flows, with Apriori (Agrawal and Srikant, VLDB 1994) or FP-growth (Han,
Pei and Yin, SIGMOD 2000), which find the same.

Each flow is a transaction: the set of items that take part in it, and OK or FAIL.
"""

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from mlxtend.frequent_patterns import apriori, association_rules, fpgrowth
from scipy.special import gammaln, logsumexp

from flowverdict_contracts.verdicts import Rule
from flowverdict_flows.pairs import Numbers

__all__ = [
    "FAIL",
    "MINERS",
    "OK",
    "Transactions",
    "failure_rules",
    "hypergeometric_p_value",
    "itemsets_and_rules",
    "itemsets_and_rules_of_pairs",
]

Floats = npt.NDArray[np.float64]

FAIL, OK = "FAIL", "OK"

MINERS = {"apriori": apriori, "fpgrowth": fpgrowth}
"""By name, what finds the frequent itemsets of a table."""

_MAX_ITEMS = 32
_MAX_LENGTH = 3
_MAX_RULES = 12
_MIN_CONFIDENCE = 0.7
_SUPPORTS = ("antecedent support", "consequent support", "support")


@dataclass(frozen=True, slots=True)
class Transactions:
    """Flows and their items, without OK and FAIL.

    Attributes:
        items: the name of each item.
        flow, item: parallel arrays, one entry for each item of each flow.
        fails: whether each flow fails.
    """

    items: Sequence[str]
    flow: Numbers
    item: Numbers
    fails: npt.NDArray[np.bool_]

    def has(self, item: int) -> npt.NDArray[np.bool_]:
        """Whether each flow has an item."""
        found = np.zeros(len(self.fails), np.bool_)
        found[self.flow[self.item == item]] = True
        return found


def hypergeometric_p_value(population: int, failing: int, drawn: int, failing_drawn: int) -> float:
    """P(X >= failing_drawn) for X hypergeometric: `drawn` of `population` flows at random.

    The p-value of Fisher's exact test, one-sided: how often a component with `drawn` flows would
    have `failing_drawn` or more of the `failing` ones by chance alone. The same as
    `scipy.stats.hypergeom.sf`, without the 17 MB that importing `scipy.stats` takes.
    """
    least = max(0, drawn + failing - population)
    if failing_drawn <= least:
        return 1.0
    # Fifty standard deviations above the mean, a term is nothing beside the first ones.
    mean = drawn * failing / population
    far = max(mean, failing_drawn) + 50 * (math.sqrt(mean) + 1)
    more = np.arange(failing_drawn, min(failing, drawn, int(far)) + 1)
    log_ways = (
        _log_choose(failing, more)
        + _log_choose(population - failing, drawn - more)
        - _log_choose(population, drawn)
    )
    return min(1.0, float(np.exp(logsumexp(log_ways)))) if more.size else 0.0


def _log_choose(population: int, drawn: int | Numbers) -> Floats:
    """The logarithm of how many ways there are to draw `drawn` of `population`."""
    found: Floats = (
        gammaln(population + 1) - gammaln(np.add(drawn, 1)) - gammaln(population - drawn + 1)
    )
    return found


def itemsets_and_rules(
    transactions: Sequence[frozenset[str]],
    min_support: float,
    min_confidence: float,
    miner: str = "apriori",
) -> tuple[pd.DataFrame, list[Rule]]:
    """All frequent itemsets and the rules between them; OK and FAIL are items like the others.

    Returns a table with the columns `support` and `itemsets` (sorted tuples), by size, then
    support, then name, and the rules, highest confidence first.
    """
    items = sorted(frozenset().union(*transactions))
    table = pd.DataFrame(
        [[item in each for item in items] for each in transactions], columns=items, dtype=bool
    )
    frequent = MINERS[miner](table, min_support=min_support, use_colnames=True)
    return _ordered(frequent, len(transactions), min_confidence)


def itemsets_and_rules_of_pairs(
    addresses: Sequence[str],
    failing: Sequence[tuple[str, str]],
    min_support: float,
    min_confidence: float,
) -> tuple[pd.DataFrame, list[Rule]]:
    """The same for every directed pair of the addresses, by counting.

    If two addresses are never frequent together, the frequent itemsets are an address, OK or FAIL,
    and an address with one of them. Their supports follow from how many pairs of each address
    fail, so thousands of addresses, with millions of pairs, take a second.

    Args:
        addresses: each once.
        failing: the pairs that fail.
        min_support: above 2 / n(n - 1), the support of any two of the n addresses.
    """
    of_each, total = 2 * (len(addresses) - 1), len(addresses) * (len(addresses) - 1)
    counts = {frozenset({FAIL}): len(failing), frozenset({OK}): total - len(failing)}
    fails = Counter(address for pair in failing for address in pair)
    for each in addresses:
        counts[frozenset({each})] = of_each
        counts[frozenset({each, FAIL})] = fails[each]
        counts[frozenset({each, OK})] = of_each - fails[each]
    frequent = [(count / total, items) for items, count in counts.items()]
    table = pd.DataFrame(
        [each for each in frequent if each[0] >= min_support], columns=["support", "itemsets"]
    )
    return _ordered(table, total, min_confidence)


def _ordered(
    frequent: pd.DataFrame, total: int, min_confidence: float
) -> tuple[pd.DataFrame, list[Rule]]:
    if frequent.empty:
        return pd.DataFrame({"support": [], "itemsets": []}), []
    rules = _rules(frequent, total, min_confidence)
    frequent["itemsets"] = [tuple(sorted(each)) for each in frequent["itemsets"]]
    frequent["size"] = [len(each) for each in frequent["itemsets"]]
    ordered = frequent.sort_values(["size", "support", "itemsets"], ignore_index=True)
    return ordered[["support", "itemsets"]], rules


def failure_rules(
    transactions: Transactions, miner: str = "apriori", *, special_cases: bool = False
) -> tuple[Rule, ...]:
    """The most informative rules between items and FAIL, at most twelve.

    A rule is left out if a shorter one with some of its antecedents is at least as confident,
    unless `special_cases` are wanted.

    Only the failing flows are mined, since an item that never fails explains nothing; supports are
    computed over all flows. The miner's cost thus grows with the failures alone.
    """
    fails, total = transactions.fails, len(transactions.fails)
    failing = np.flatnonzero(fails)
    if not failing.size:
        return ()
    of_failing = fails[transactions.flow]
    often = np.bincount(transactions.item[of_failing], minlength=len(transactions.items))
    by_frequency = sorted(
        np.flatnonzero(often).tolist(), key=lambda each: (-often[each], transactions.items[each])
    )
    has = {transactions.items[each]: transactions.has(each) for each in by_frequency[:_MAX_ITEMS]}
    columns = {name: flows[failing] for name, flows in has.items()}
    least = min(1.0, 1.5 / len(failing))
    mined = MINERS[miner](
        pd.DataFrame({**columns, FAIL: np.ones(len(failing), np.bool_)}),
        min_support=least,
        use_colnames=True,
        max_len=_MAX_LENGTH,
    )
    wanted = {each - {FAIL} for each in mined["itemsets"] if len(each - {FAIL}) < _MAX_LENGTH}
    wanted.discard(frozenset())
    rows: list[tuple[float, frozenset[str]]] = [(fails.sum() / total, frozenset({FAIL}))]
    for itemset in wanted:
        involved = np.logical_and.reduce([has[item] for item in itemset])
        rows.append((involved.sum() / total, itemset))
        rows.append(((involved & fails).sum() / total, itemset | {FAIL}))
    frequent = pd.DataFrame(rows, columns=["support", "itemsets"])
    rules = _rules(frequent, total, _MIN_CONFIDENCE)
    about_failure = [r for r in rules if r.antecedents == (FAIL,) or r.consequents == (FAIL,)]
    if not special_cases:
        about_failure = _without_special_cases(about_failure)
    return tuple(about_failure[:_MAX_RULES])


def _rules(frequent: pd.DataFrame, total: int, min_confidence: float) -> list[Rule]:
    table = association_rules(
        frequent,
        num_itemsets=total,
        metric="confidence",
        min_threshold=min_confidence,
        return_metrics=[*_SUPPORTS, "confidence", "lift", "leverage"],
    )
    rules = [_rule(row, total) for row in table.to_dict("records") if row["support"] > 0]
    # Highest confidence first, then lift and support; ties: short rules first, then by name.
    rules.sort(
        key=lambda rule: (
            -rule.confidence,
            -rule.lift,
            -rule.support,
            len(rule.antecedents) + len(rule.consequents),
            rule.consequents,
            rule.antecedents,
        )
    )
    return rules


def _rule(row: dict[str, Any], total: int) -> Rule:
    antecedent, consequent, both = (round(row[name] * total) for name in _SUPPORTS)
    return Rule(
        antecedents=tuple(sorted(row["antecedents"])),
        consequents=tuple(sorted(row["consequents"])),
        support=round(row["support"], 6),
        confidence=round(row["confidence"], 6),
        lift=round(row["lift"], 6),
        leverage=round(row["leverage"], 6),
        p_value=hypergeometric_p_value(total, consequent, antecedent, both),
    )


def _without_special_cases(rules: list[Rule]) -> list[Rule]:
    """Drop a rule if a shorter one with some of its antecedents is at least as confident."""
    kept: list[Rule] = []
    for rule in sorted(rules, key=lambda each: len(each.antecedents) + len(each.consequents)):
        covered = any(
            other.consequents == rule.consequents
            and set(other.antecedents) < set(rule.antecedents)
            and other.confidence >= rule.confidence
            for other in kept
        )
        if not covered:
            kept.append(rule)
    return [rule for rule in rules if rule in kept]
