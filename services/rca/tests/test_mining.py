"""Association rules: the reference experiment's figures, and what scale needs."""

import random
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import hypergeom

from flowverdict_rca.mining import (
    FAIL,
    MINERS,
    OK,
    Transactions,
    failure_rules,
    hypergeometric_p_value,
    itemsets_and_rules,
)

IPS = ("10.244.92.132", "10.244.92.134", "10.244.92.159", "10.244.92.190")
TWELVE_FLOWS = [
    frozenset({src, dst, FAIL if "10.244.92.159" in (src, dst) else OK})
    for src in IPS
    for dst in IPS
    if src != dst
]


def table(flows: Sequence[frozenset[str]]) -> Transactions:
    """Flows given as sets, with OK or FAIL among their items."""
    items = sorted(frozenset[str]().union(*flows) - {OK, FAIL})
    number = {item: at for at, item in enumerate(items)}
    entries = [(at, number[i]) for at, flow in enumerate(flows) for i in flow - {OK, FAIL}]
    flow, item = np.array(entries, np.int64).reshape(-1, 2).T
    return Transactions(items, flow, item, np.array([FAIL in each for each in flows], np.bool_))


def test_the_twelve_flows_give_the_printed_itemsets_in_the_printed_order() -> None:
    itemsets, _ = itemsets_and_rules(TWELVE_FLOWS, 0.2, 0.7)
    assert [
        (round(support, 6), items)
        for support, items in zip(itemsets["support"], itemsets["itemsets"], strict=True)
    ] == [
        (0.5, ("10.244.92.132",)),
        (0.5, ("10.244.92.134",)),
        (0.5, ("10.244.92.159",)),
        (0.5, ("10.244.92.190",)),
        (0.5, ("FAIL",)),
        (0.5, ("OK",)),
        (0.333333, ("10.244.92.132", "OK")),
        (0.333333, ("10.244.92.134", "OK")),
        (0.333333, ("10.244.92.190", "OK")),
        (0.5, ("10.244.92.159", "FAIL")),
    ]


def test_the_twelve_flows_give_the_printed_rules() -> None:
    _, rules = itemsets_and_rules(TWELVE_FLOWS, 0.2, 0.7)
    assert [
        (rule.antecedents, rule.consequents, rule.support, rule.confidence, rule.lift)
        for rule in rules
    ] == [
        (("FAIL",), ("10.244.92.159",), 0.5, 1.0, 2.0),
        (("10.244.92.159",), ("FAIL",), 0.5, 1.0, 2.0),
    ]


def test_the_rules_about_failure_have_the_figures_of_mining_everything() -> None:
    _, everything = itemsets_and_rules(TWELVE_FLOWS, 0.01, 0.7)
    figures = {
        (rule.antecedents, rule.consequents): (rule.support, rule.confidence, rule.lift)
        for rule in everything
    }
    found = failure_rules(table(TWELVE_FLOWS))
    assert found
    for rule in found:
        key = (rule.antecedents, rule.consequents)
        assert figures[key] == (rule.support, rule.confidence, rule.lift)


def test_a_chance_is_that_of_fishers_exact_test() -> None:
    assert hypergeometric_p_value(12, 6, 6, 6) == pytest.approx(1 / 924)
    assert hypergeometric_p_value(12, 12, 6, 6) == pytest.approx(1)
    assert hypergeometric_p_value(12, 2, 2, 2) == pytest.approx(1 / 66)


@given(
    population=st.integers(1, 10**6),
    shares=st.tuples(*[st.floats(0, 1)] * 3),
)
def test_the_p_value_is_scipys(population: int, shares: tuple[float, float, float]) -> None:
    failing, drawn = (round(share * population) for share in shares[:2])
    failing_drawn = round(shares[2] * min(failing, drawn))
    expected = hypergeom.sf(failing_drawn - 1, population, failing, drawn)
    found = hypergeometric_p_value(population, failing, drawn, failing_drawn)
    assert found == pytest.approx(expected, rel=1e-6, abs=1e-300)


def test_without_failures_there_are_no_rules() -> None:
    assert failure_rules(table([frozenset({"a", "b", OK})] * 5)) == ()
    assert failure_rules(table([])) == ()


def test_itemsets_without_support_are_an_empty_table_not_an_error() -> None:
    itemsets, rules = itemsets_and_rules([frozenset({"a"}), frozenset({"b"})], 0.9, 0.7)
    assert itemsets.empty
    assert rules == []


@given(
    st.lists(st.tuples(st.sets(st.sampled_from("abcdef"), min_size=1), st.booleans()), max_size=20)
)
def test_any_transactions_give_rules_about_failure_with_probabilities(
    flows: list[tuple[set[str], bool]],
) -> None:
    for rule in failure_rules(
        table([frozenset(items | {FAIL if bad else OK}) for items, bad in flows])
    ):
        assert (rule.antecedents == (FAIL,)) != (rule.consequents == (FAIL,))
        assert 0 < rule.support <= rule.confidence <= 1
        assert 0 <= rule.p_value <= 1


@given(
    st.lists(
        st.tuples(st.sets(st.sampled_from("abcdef"), min_size=1), st.booleans()),
        min_size=1,
        max_size=20,
    )
)
def test_both_miners_find_the_same_itemsets_and_rules(flows: list[tuple[set[str], bool]]) -> None:
    transactions = [frozenset(items | {FAIL if bad else OK}) for items, bad in flows]
    by_apriori, rules = itemsets_and_rules(transactions, 0.1, 0.7, "apriori")
    by_fpgrowth, same_rules = itemsets_and_rules(transactions, 0.1, 0.7, "fpgrowth")
    assert by_apriori.to_dict("records") == by_fpgrowth.to_dict("records")
    assert rules == same_rules
    about_failure = [failure_rules(table(transactions), miner) for miner in MINERS]
    assert about_failure[0] == about_failure[1]


def test_forty_thousand_pairs_are_mined_without_gigabytes() -> None:
    chooser = random.Random(1)
    flows = [
        frozenset({f"pod {src}", f"pod {dst}", f"node {src % 20}", f"node {dst % 20}",
                   FAIL if 7 in (src, dst) or chooser.random() < 0.001 else OK})
        for src in range(200)
        for dst in range(200)
        if src != dst
    ]  # fmt: skip
    rules = failure_rules(table(flows))
    assert any(rule.antecedents == ("pod 7",) and rule.confidence == 1 for rule in rules)
