"""The decided pairs of a window as transactions for rule mining."""

import numpy as np

from flowverdict_contracts.verdicts import Rule
from flowverdict_flows.components import component_of
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.conditions import Mask, Masks
from flowverdict_rca.decisions import Decisions, PairStatus
from flowverdict_rca.mining import Transactions, failure_rules

__all__ = ["rules_of"]


def rules_of(decisions: Decisions, conditions: Masks, miner: str) -> tuple[Rule, ...]:
    """The rules about FAIL: first those between components, then those between conditions."""
    decided = np.flatnonzero(decisions.status != PairStatus.UNDECIDED)
    fails = decisions.status[decided] == PairStatus.FAIL
    of_components = failure_rules(_components(decisions, decided, fails), miner)
    return of_components + failure_rules(
        _conditions(conditions, decided, fails), miner, special_cases=True
    )


def _components(decisions: Decisions, decided: Numbers, fails: Mask) -> Transactions:
    """Endpoints and nodes."""
    window = decisions.window
    number_of: dict[str, int] = {}

    def number(item: str) -> int:
        return number_of.setdefault(item, len(number_of))

    items = np.full((len(window.endpoints), 2), -1, np.int64)
    for at, end in enumerate(window.endpoints):
        items[at, 0] = number(str(component_of(end)))
        if end.node:
            items[at, 1] = number(f"node {end.node}")
    taking_part = np.concatenate([items[window.src[decided]], items[window.dst[decided]]], axis=1)
    flow = np.broadcast_to(np.arange(len(decided))[:, None], taking_part.shape)
    present = taking_part >= 0
    code = np.unique(flow[present] << 32 | taking_part[present])
    return Transactions(list(number_of), code >> 32, code & 0xFFFFFFFF, fails)


def _conditions(conditions: Masks, decided: Numbers, fails: Mask) -> Transactions:
    table = np.array([mask[decided] for mask in conditions.values()])
    item, flow = np.nonzero(table)
    return Transactions(list(conditions), flow, item, fails)
