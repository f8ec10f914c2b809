"""What was observed of each pair of a window, by name."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from flowverdict_contracts.verdicts import Basis, Condition
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.decisions import (
    Decisions,
    PairStatus,
    cannot_connect,
    cannot_look_up,
    passes_only_small,
    retransmits,
)
from flowverdict_rca.settings import RcaSettings
from flowverdict_rca.window import DROPS, total

__all__ = ["Mask", "Masks", "conditions_of_pairs"]

Mask = npt.NDArray[np.bool_]
Masks = Mapping[Condition, Mask]

_OF_BASIS: dict[Basis, Condition] = {
    "losses": "HIGH_RETRANSMISSION_RATIO",
    "latency": "HIGH_LATENCY",
    "jitter": "HIGH_JITTER",
    "answers": "SLOW_ANSWERS",
    "connects": "CONNECT_FAILURE",
    "resets": "RESET",
    "half_open": "HALF_OPEN",
}
_COUNTED: dict[Condition, tuple[str, ...]] = {
    "PACKET_DROPS": DROPS,
    "ZERO_WINDOW": ("zero_windows_received",),
    "MTU_MISMATCH": ("path_mtu_reductions",),
}


def conditions_of_pairs(
    decisions: Decisions, basis: Basis, unsteady: Numbers, settings: RcaSettings
) -> Masks:
    """Which pairs show each condition.

    Args:
        decisions: on the pairs.
        basis: what was judged.
        unsteady: positions of the pairs whose round trips vary more than usual.
        settings: the thresholds.
    """
    evidence = decisions.evidence
    found: dict[Condition, Mask] = {
        "HIGH_RETRANSMISSION_RATIO": retransmits(evidence, decisions.limits, settings),
        "HIGH_JITTER": np.isin(np.arange(len(decisions.status)), unsteady),
        "CONNECT_FAILURE": cannot_connect(evidence, settings),
        "DNS_FAILURE": cannot_look_up(evidence, settings),
    }
    for condition, counts in _COUNTED.items():
        found[condition] = total(evidence, *counts) > 0
    found["MTU_MISMATCH"] |= found["HIGH_RETRANSMISSION_RATIO"] & passes_only_small(
        evidence, settings
    )
    if basis in _OF_BASIS:
        failing = decisions.status == PairStatus.FAIL
        before = found.get(_OF_BASIS[basis], np.zeros_like(failing))
        found[_OF_BASIS[basis]] = before | failing
    return found
