"""What is remembered about an incident from window to window.

An incident is always in one of five states (`state`):

    pending    no verdict yet: found in fewer than `open_after` windows in a row
    open       found in the latest window
    contested  the latest windows blame another cause for its flows, not yet long enough to replace
               its own
    clearing   not found in the latest windows; resolved after `resolve_after`
    over       resolved less than ten minutes ago; then forgotten

A window in which its flows fail, but for what has just changed around them, tells nothing about an
open incident: it stays as it was.
"""

from typing import Literal

import msgspec

from flowverdict_contracts.verdicts import Basis, Cause, Severity
from flowverdict_flows.components import both_ways

__all__ = ["Incident", "key_of"]


class Incident(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered about an incident from window to window.

    Attributes:
        id: the same from `opened` to `resolved`.
        causes: as last confirmed, the blamed one first; empty if none stood out.
        flows: a sample of the failing pairs of its last window, as short hashes.
        windows: windows in a row that blamed the same cause.
        rival: what the last windows blamed instead, and in `rival_windows` how many in a row.
        clear: windows in a row without it.
        opened_ns: end of the window in which it opened, 0 before that.
        basis: what it is about, and so which windows resolve it.
        resolved_ns: end of the window in which it was resolved, 0 before that.
        times: how many incidents in a row blamed this cause, each soon after the one before.
        severity: the worst of its windows: chance decides which of them show one flow only.
    """

    id: str
    causes: tuple[Cause, ...]
    flows: frozenset[str]
    windows: int = 1
    rival: tuple[str, str] = ("", "")
    rival_windows: int = 0
    clear: int = 0
    opened_ns: int = 0
    basis: Basis = "failures"
    resolved_ns: int = 0
    times: int = 1
    severity: Severity = "warning"

    @property
    def blamed(self) -> tuple[str, str]:
        """Kind and name of the first cause, as in `key_of`."""
        return key_of(self.causes)

    @property
    def is_open(self) -> bool:
        """Whether it has been opened and not resolved."""
        return self.state not in ("pending", "over")

    @property
    def state(self) -> Literal["pending", "open", "contested", "clearing", "over"]:
        """As described at the top of this file."""
        if self.resolved_ns:
            return "over"
        if not self.opened_ns:
            return "pending"
        if self.clear:
            return "clearing"
        return "contested" if self.rival_windows else "open"


def key_of(causes: tuple[Cause, ...]) -> tuple[str, str]:
    """Kind and name of the first cause, empty if there is none; of a path, whichever way it fails:
    chance may show one way only.
    """
    if not causes:
        return "", ""
    cause = both_ways(causes[0])
    return cause.kind, cause.name
