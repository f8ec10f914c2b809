"""Causes that the cluster itself reports, found before any are looked for.

- A node that falls silent as flows to it begin to fail is cut off. Callers of a service that has
  pods on that node fail, too, for part of their connections.
- A service without ready endpoints refuses or loses every connection.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from flowverdict_contracts.timestamps import to_rfc3339
from flowverdict_contracts.verdicts import Component, Direction
from flowverdict_flows.components import component_of
from flowverdict_flows.endpoint import Endpoint
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.decisions import Decisions, PairStatus
from flowverdict_rca.facts import NO_READY_ENDPOINTS, SilentNode
from flowverdict_rca.window import total

__all__ = ["KnownCause", "known_causes", "without_aftermath"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class KnownCause:
    """A component that is at fault according to the cluster.

    Attributes:
        component: which.
        reported: what the cluster reports, as part of a sentence.
        direction: of its flows.
        explained, contradicting: positions of the failing and of the OK pairs it takes part in.
    """

    component: Component
    reported: str
    direction: Direction
    explained: Numbers
    contradicting: Numbers


def known_causes(decisions: Decisions) -> Iterator[KnownCause]:
    """What the cluster reports that explains failing pairs; each pair is explained once."""
    remaining = decisions.status == PairStatus.FAIL
    for node in decisions.window.facts.silent:
        cause = _cut_off(node, decisions, remaining) or _heard_alone(node, decisions, remaining)
        if cause is not None:
            remaining[cause.explained] = False
            yield cause
    for endpoint, condition in decisions.window.facts.conditions.items():
        if condition == NO_READY_ENDPOINTS:
            to_it = _at(decisions.window.dst, decisions, {endpoint})
            explained = np.flatnonzero(remaining & to_it)
            if explained.size:
                remaining[explained] = False
                ok = np.flatnonzero(to_it & (decisions.status == PairStatus.OK))
                yield KnownCause(
                    component_of(endpoint), "it has no ready endpoint",
                    "receiving", explained, ok,
                )  # fmt: skip


def without_aftermath(decisions: Decisions, known: Iterable[KnownCause]) -> Decisions:
    """The decisions, with pairs undecided that fail because a node has just been cut off.

    These are the failing pairs of nodes whose connections still recover; those that a known cause
    explains still fail.
    """
    facts, window = decisions.window.facts, decisions.window
    still = {each for each in window.endpoints if facts.nodes_of(each) & facts.recovering}
    late = (decisions.status == PairStatus.FAIL) & (
        _at(window.src, decisions, still) | _at(window.dst, decisions, still)
    )
    for each in known:
        late[each.explained] = False
    status = np.where(late, PairStatus.UNDECIDED, decisions.status)
    return replace(decisions, status=status)


def _cut_off(node: SilentNode, decisions: Decisions, remaining: Mask) -> KnownCause | None:
    window = decisions.window
    on_it = {each for each in window.endpoints if each.node == node.name}
    behind = {each for each in window.endpoints if node.name in window.facts.nodes_of(each)}
    sends, receives = _at(window.src, decisions, on_it), _at(window.dst, decisions, on_it)
    takes_part = _at(window.src, decisions, behind) | _at(window.dst, decisions, behind)
    explained = remaining & takes_part & ~(sends & receives)
    ok = (sends != receives) & (decisions.status == PairStatus.OK)
    if node.heard_again:  # what others sent to it since then works, and says nothing about before
        ok &= sends
    if not explained.any() or ok.sum() > (0 if node.heard_again else explained.sum()):
        return None
    if _may_be_ours(takes_part, decisions, remaining):
        return None
    silent = "was silent" if node.heard_again else "has been silent"
    return KnownCause(
        _node(node.name, on_it), f"its collector {silent} since {_time(node.since_ns)} UTC", "both",
        np.flatnonzero(explained), np.flatnonzero(ok),
    )  # fmt: skip


def _heard_alone(silent: SilentNode, decisions: Decisions, remaining: Mask) -> KnownCause | None:
    """The only node that is still heard, if its flows to all others fail: it is cut off."""
    window = decisions.window
    quiet = {each.name for each in window.facts.silent if not each.heard_again}
    heard = set(window.coverage.nodes_reporting) - quiet
    if len(heard) != 1 or silent.name not in quiet:
        return None
    (name,) = heard
    on_it = {each for each in window.endpoints if each.node == name}
    crosses = _at(window.src, decisions, on_it) != _at(window.dst, decisions, on_it)
    others = {each for each in window.endpoints if each.node not in quiet}
    elsewhere = crosses & _at(window.src, decisions, others) & _at(window.dst, decisions, others)
    explained = remaining & crosses
    ok = crosses & (decisions.status == PairStatus.OK) & _delivers(decisions)
    if not (remaining & elsewhere).any() or ok.any():
        return None
    return KnownCause(
        _node(name, on_it), f"no other node has been heard since {_time(silent.since_ns)} UTC",
        "both", np.flatnonzero(explained), np.flatnonzero(ok),
    )  # fmt: skip


def _node(name: str, on_it: set[Endpoint]) -> Component:
    found = next((each for each in on_it if each.kind == "node"), None)
    return component_of(found or Endpoint("node", "", name, node=name))


def _time(at_ns: int) -> str:
    return to_rfc3339(at_ns)[11:19]


def _delivers(decisions: Decisions) -> Mask:
    """Whether something was delivered in the newest pane."""
    found: Mask = total(decisions.window.panes[0], "data_segments_sent", "opens") > 0
    return found


def _may_be_ours(takes_part: Mask, decisions: Decisions, remaining: Mask) -> bool:
    """Whether it may be those who still report that are cut off: their flows to others fail, too,
    and nothing reaches anybody on another node.
    """
    window = decisions.window
    nodes = np.array([each.node for each in window.endpoints], np.str_)
    crosses = (nodes[window.src] != nodes[window.dst]) & ~takes_part
    works = crosses & _delivers(decisions) & (decisions.status != PairStatus.FAIL)
    return bool((remaining & crosses).any()) and not works.any()


def _at(side: Numbers, decisions: Decisions, endpoints: set[Endpoint]) -> Mask:
    """Whether the sender or the receiver of each pair is one of the endpoints."""
    chosen = np.array([each in endpoints for each in decisions.window.endpoints], np.bool_)
    found: Mask = chosen[side] if len(chosen) else np.zeros(0, np.bool_)
    return found
