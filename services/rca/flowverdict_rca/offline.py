"""The command `analyse`: association rules over pairs of addresses in a file."""

import itertools
import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowverdict_contracts.verdicts import Rule
from flowverdict_rca.mining import FAIL, OK, itemsets_and_rules, itemsets_and_rules_of_pairs
from flowverdict_rca.series import OfflineError, Pairs, read_file
from flowverdict_rca.summary import percent
from flowverdict_runtime.terminal import printable

__all__ = ["analyse", "transactions"]

_SEED_SUPPORT = 0.2
_MOST_MINED = 200
"""Addresses up to which pairs of them can be frequent, too: Apriori looks at each pair of those."""
_ONE_WAY_CONFIDENCE = 0.4
"""Of the flows of an address that suffers only one way, half are the other way."""
_SHOWN = 40
_MAX_P_VALUE = 0.1


def transactions(pairs: Pairs) -> list[frozenset[str]]:
    """A transaction for every directed pair of the addresses seen: FAIL if it retransmitted.

    A pair that is not in the file retransmitted nothing, and is OK.
    """
    return [
        frozenset({*pair, FAIL if pairs.get(pair) else OK})
        for pair in itertools.permutations(_addresses(pairs), 2)
    ]


def _addresses(pairs: Pairs) -> list[str]:
    return sorted({address for pair in pairs for address in pair})


def analyse(path: Path, min_support: float | None, min_confidence: float, as_json: bool) -> bool:
    """Print the frequent itemsets and rules of a file, and who they say is at fault.

    Returns whether they say anything about failure, be it that nothing fails.

    Args:
        path: see `flowverdict_rca.series.read_file`.
        min_support: by default 0.2, and less if there are more than five addresses: one address
            takes part in a share of 2/n of the flows between n, and half of these may be OK.

    Raises:
        OfflineError: if the file cannot be read or contains no pairs, or if it has too many
            addresses for this support.
    """
    pairs, left_out = read_file(path)
    for reason, count in left_out.items():
        print(f"left out {count} series {reason}", file=sys.stderr)
    addresses = _addresses(pairs)
    if min_support is None:
        min_support = min(_SEED_SUPPORT, 1 / len(addresses))
    flows = len(addresses) * (len(addresses) - 1)
    if not flows:
        raise OfflineError(f"{path} contains no pair of addresses")
    failing = [pair for pair, fails in pairs.items() if fails and pair[0] != pair[1]]
    least_confidence = min(min_confidence, _ONE_WAY_CONFIDENCE)
    if min_support * flows > 2:  # more than the two flows between any two addresses
        itemsets, found = itemsets_and_rules_of_pairs(
            addresses, failing, min_support, least_confidence
        )
    elif len(addresses) <= _MOST_MINED:
        itemsets, found = itemsets_and_rules(transactions(pairs), min_support, least_confidence)
    else:
        least = 2 / flows
        raise OfflineError(f"for {len(addresses)} addresses --min-support must be above {least:g}")
    rules = [rule for rule in found if rule.confidence >= min_confidence]
    suspect = _suspect(found)
    says_something = (
        suspect is not None
        or not failing
        or len(addresses) == 2  # there is nobody else to compare with
        or any(FAIL in (*rule.antecedents, *rule.consequents) for rule in rules)
    )
    if as_json:
        json.dump(_document(flows, len(failing), itemsets, rules), sys.stdout, indent=2)
        print()
        return says_something
    console = Console()
    console.print(f"{flows} flows, {len(failing)} of them with retransmissions\n")
    console.print(_itemset_table(itemsets))
    console.print(_rule_table(rules))
    words = printable(_in_words(suspect, len(failing)))
    console.print(f"\n{words}", soft_wrap=True, highlight=False, markup=False)
    return says_something


def _suspect(rules: list[Rule]) -> Rule | None:
    """The address whose flows fail most, as no chance would have it."""
    about_one = [r for r in rules if r.consequents == (FAIL,) and len(r.antecedents) == 1]
    suspects = [rule for rule in about_one if rule.p_value <= _MAX_P_VALUE]
    return max(suspects, key=lambda rule: rule.leverage, default=None)


def _in_words(best: Rule | None, failing: int) -> str:
    """What the rules say about failure, in a sentence."""
    if not failing:
        return "Nothing retransmitted, so nobody is at fault."
    if best is None:
        return "No address stands out: none takes part in most of the failing flows and few others."
    return (
        f"Most likely at fault: {best.antecedents[0]}. {percent(best.confidence)} of its flows"
        f" fail, {best.lift:.1f} times as many as of all flows; by chance alone, so many of them"
        f" would fail with a probability of {best.p_value:.2g}."
    )


def _document(
    flows: int, failing: int, itemsets: pd.DataFrame, rules: list[Rule]
) -> dict[str, Any]:
    return {
        "flows": flows,
        "failing": failing,
        "itemsets": [
            {"support": round(float(support), 6), "items": list(items)}
            for support, items in zip(itemsets["support"], itemsets["itemsets"], strict=True)
        ],
        "rules": msgspec.to_builtins(rules),
    }


def _itemset_table(itemsets: pd.DataFrame) -> Table:
    table = Table(
        "", "support", "itemsets", title="Frequent itemsets", box=None, title_justify="left"
    )
    rows = list(zip(itemsets["support"], itemsets["itemsets"], strict=True))
    for number, (support, items) in enumerate(rows[-_SHOWN:], max(0, len(rows) - _SHOWN)):
        table.add_row(str(number), f"{support:.6f}", Text(printable(", ".join(items))))
    if len(rows) > _SHOWN:
        table.caption = f"{len(rows) - _SHOWN} more above these; --json shows all"
    return table


def _rule_table(rules: list[Rule]) -> Table:
    table = Table(
        "", "antecedents", "consequents", "support", "confidence", "lift",
        title="\nAssociation rules", box=None, title_justify="left",
    )  # fmt: skip
    for number, rule in enumerate(rules[:_SHOWN]):
        table.add_row(
            str(number),
            Text(printable(", ".join(rule.antecedents))),
            Text(printable(", ".join(rule.consequents))),
            str(rule.support),
            str(rule.confidence),
            str(rule.lift),
        )
    if len(rules) > _SHOWN:
        table.caption = f"{len(rules) - _SHOWN} more below these; --json shows all"
    return table
