"""Association rules over transactions, with Apriori (Agrawal and Srikant, VLDB 1994).

A transaction is the set of items of one flow: who is involved, and OK or FAIL.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import pandas as pd
from mlxtend.frequent_patterns import apriori, association_rules
from mlxtend.preprocessing import TransactionEncoder
from scipy.stats import hypergeom

from flowverdict_contracts.verdicts import Rule

__all__ = ["FAIL", "OK", "chance", "failure_rules", "itemsets_and_rules"]

FAIL, OK = "FAIL", "OK"

Transaction = frozenset[str]

_MAX_ITEMS = 32
_MAX_LENGTH = 3
_MAX_RULES = 12
_MIN_CONFIDENCE = 0.7
_SUPPORTS = ("antecedent support", "consequent support", "support")


def chance(population: int, failing: int, drawn: int, failing_drawn: int) -> float:
    """P(X >= failing_drawn) for X hypergeometric: `drawn` of `population` flows at random.

    The p-value of Fisher's exact test, one-sided: how often a component with `drawn` flows would
    have `failing_drawn` or more of the `failing` ones if it had nothing to do with it.
    """
    return float(hypergeom.sf(failing_drawn - 1, population, failing, drawn))


def itemsets_and_rules(
    transactions: Sequence[Transaction], min_support: float, min_confidence: float
) -> tuple[pd.DataFrame, list[Rule]]:
    """All frequent itemsets and the rules between them.

    Returns a table with the columns `support` and `itemsets` (sorted tuples), by size, then
    support, then name, and the rules, most certain first.
    """
    table = _encode(transactions)
    frequent = apriori(table, min_support=min_support, use_colnames=True)
    if frequent.empty:
        return pd.DataFrame({"support": [], "itemsets": []}), []
    rules = _rules(frequent, len(transactions), min_confidence)
    frequent["itemsets"] = [tuple(sorted(each)) for each in frequent["itemsets"]]
    frequent["size"] = [len(each) for each in frequent["itemsets"]]
    ordered = frequent.sort_values(["size", "support", "itemsets"], ignore_index=True)
    return ordered[["support", "itemsets"]], rules


def failure_rules(transactions: Sequence[Transaction]) -> tuple[Rule, ...]:
    """The rules between components and FAIL that say the most, at most twelve.

    Only the failing transactions are mined, since an item that never fails explains nothing; the
    supports are those over all transactions. That keeps Apriori's cost with the failures.
    """
    failing = [each for each in transactions if FAIL in each]
    if not failing:
        return ()
    often = Counter(item for each in failing for item in each if item != FAIL)
    items = {item for item, _ in often.most_common(_MAX_ITEMS)} | {FAIL}
    table = _encode([each & items for each in failing])
    least = min(1.0, 1.5 / len(failing))
    mined = apriori(table, min_support=least, use_colnames=True, max_len=_MAX_LENGTH)
    if mined.empty:
        return ()
    wanted = {each - {FAIL} for each in mined["itemsets"] if len(each - {FAIL}) < _MAX_LENGTH}
    wanted.discard(frozenset())
    frequent = _supports(wanted, transactions)
    rules = _rules(frequent, len(transactions), _MIN_CONFIDENCE)
    about_failure = [r for r in rules if r.antecedents == (FAIL,) or r.consequents == (FAIL,)]
    return tuple(_without_special_cases(about_failure)[:_MAX_RULES])


def _encode(transactions: Iterable[Transaction]) -> pd.DataFrame:
    encoder = TransactionEncoder()
    rows = [sorted(each) for each in transactions]
    return pd.DataFrame(encoder.fit(rows).transform(rows), columns=encoder.columns_)


def _supports(
    itemsets: Iterable[frozenset[str]], transactions: Sequence[Transaction]
) -> pd.DataFrame:
    """Supports over all transactions of each itemset, of it with FAIL, and of FAIL."""
    total = len(transactions)
    fails = np.array([FAIL in each for each in transactions])
    items = sorted({item for each in itemsets for item in each})
    has = {item: np.array([item in each for each in transactions]) for item in items}
    rows: list[tuple[float, frozenset[str]]] = [(fails.sum() / total, frozenset({FAIL}))]
    for itemset in itemsets:
        involved = np.logical_and.reduce([has[item] for item in itemset])
        rows.append((involved.sum() / total, itemset))
        rows.append(((involved & fails).sum() / total, itemset | {FAIL}))
    return pd.DataFrame(rows, columns=["support", "itemsets"])


def _rules(frequent: pd.DataFrame, total: int, min_confidence: float) -> list[Rule]:
    table = association_rules(
        frequent,
        num_itemsets=total,
        metric="confidence",
        min_threshold=min_confidence,
        return_metrics=[*_SUPPORTS, "confidence", "lift", "leverage"],
    )
    rules = [_rule(row, total) for row in table.to_dict("records") if row["support"] > 0]
    # Most certain first; of equals FAIL -> component before component -> FAIL, short before long.
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
        p_value=chance(total, consequent, antecedent, both),
    )


def _without_special_cases(rules: list[Rule]) -> list[Rule]:
    """Drop a rule where a shorter one with a part of its antecedents is as certain."""
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
