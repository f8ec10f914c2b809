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
from flowverdict_rca.window import Window, total

__all__ = ["Alone", "KnownCause", "heard_alone", "known_causes", "without_aftermath"]

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class KnownCause:
    """A component that is at fault according to the cluster.

    Attributes:
        component: which.
        reported: what the cluster reports, as part of a sentence.
        direction: of its flows.
        explained, contradicting: positions of the failing and of the OK pairs it takes part in.
        alternatives: components that cannot be told apart from it.
    """

    component: Component
    reported: str
    direction: Direction
    explained: Numbers
    contradicting: Numbers
    alternatives: tuple[Component, ...] = ()


@dataclass(frozen=True, slots=True)
class Alone:
    """The only node that is still heard.

    Attributes:
        name: which.
        since_ns: when the first of the others fell silent.
        crossing: its pairs with other nodes and with what is outside.
        reaches: whether something has been acknowledged from elsewhere since. Elsewhere is what is
            neither on a node that reports or is silent, nor a service with pods there, nor an
            address without a name, which may be one of this node's own.
        fails: whether a pair with elsewhere fails.
        uncertain: whether it is too early to say which side is cut off: nothing elsewhere has
            shown it yet.
    """

    name: str
    since_ns: int
    crossing: Mask
    reaches: bool
    fails: bool
    uncertain: bool


def known_causes(decisions: Decisions, alone: Alone | None) -> Iterator[KnownCause]:
    """What the cluster reports that explains failing pairs; each pair is explained once.

    `alone` is the node that `heard_alone` has found.
    """
    remaining = decisions.status == PairStatus.FAIL
    if alone is not None:
        cause = _cut_off_with_us(alone, decisions, remaining)
        if cause is not None:
            remaining[cause.explained] = False
            yield cause
        elif alone.uncertain:
            return
    for node in decisions.window.facts.silent:
        cause = _cut_off(node, decisions, remaining)
        if cause is not None:
            remaining[cause.explained] = False
            yield cause
    facts = decisions.window.facts
    away = facts.recovering | {each.name for each in facts.silent}
    for endpoint, condition in facts.conditions.items():
        if condition != NO_READY_ENDPOINTS or endpoint in facts.briefly_unready:
            continue
        # A node that cannot be heard takes its pods out of their services.
        if not facts.nodes_of(endpoint) & away:
            to_it = _at(decisions.window.dst, decisions, {endpoint})
            explained = np.flatnonzero(remaining & to_it)
            if explained.size:
                remaining[explained] = False
                ok = np.flatnonzero(to_it & (decisions.status == PairStatus.OK))
                yield KnownCause(
                    component_of(endpoint), "it has no ready endpoint",
                    "receiving", explained, ok,
                )  # fmt: skip


def without_aftermath(
    decisions: Decisions, known: Iterable[KnownCause], alone: Alone | None
) -> tuple[Decisions, Numbers]:
    """The decisions, with pairs undecided that fail because of what has just changed, and which.

    These are the failing pairs of services whose pods are moving or being deleted, since a node
    sends connections to pods that are gone until it knows; those of nodes whose connections still
    recover; and those of the only node that is heard: until it is known whether that one is cut off
    or the others are, and when some of its flows to elsewhere work again. Those that a known cause
    explains still fail.
    """
    facts, window = decisions.window.facts, decisions.window
    still = {each for each in window.endpoints if facts.nodes_of(each) & facts.recovering}
    still |= facts.briefly_unready | facts.losing_pods
    undecided = _at(window.src, decisions, still) | _at(window.dst, decisions, still)
    if alone is not None and (alone.uncertain or (alone.reaches and alone.fails)):
        undecided |= alone.crossing
    undecided &= decisions.status == PairStatus.FAIL
    for each in known:
        undecided[each.explained] = False
    status = np.where(undecided, PairStatus.UNDECIDED, decisions.status)
    return replace(decisions, status=status), np.flatnonzero(undecided)


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
    elif len(panes := _panes_since(node.since_ns, window)):
        # What it said before, or what other silent nodes did, says nothing about now.
        ok &= receives & (total(panes.sum(axis=0), "bytes_acked") > 0)
    if not explained.any() or ok.sum() >= (1 if node.heard_again else explained.sum()):
        return None
    if _may_be_ours(takes_part, decisions, remaining):
        return None
    silent = "was silent" if node.heard_again else "has been silent"
    return KnownCause(
        _node(node.name, on_it), f"its collector {silent} since {_time(node.since_ns)} UTC", "both",
        np.flatnonzero(explained), np.flatnonzero(ok),
    )  # fmt: skip


def heard_alone(decisions: Decisions) -> Alone | None:
    """The only node that is still heard, if there is only one and others are silent."""
    window = decisions.window
    quiet = {each.name: each.since_ns for each in window.facts.silent if not each.heard_again}
    heard = set(window.coverage.nodes_reporting) - set(quiet)
    if len(heard) != 1 or not quiet:
        return None
    (name,) = heard
    on_it = {each for each in window.endpoints if each.node == name}
    crossing = _at(window.src, decisions, on_it) != _at(window.dst, decisions, on_it)
    near = {name, *quiet}
    far = {
        each
        for each in window.endpoints
        if each.kind != "unknown" and not window.facts.nodes_of(each) & near
    }
    elsewhere = crossing & (_at(window.src, decisions, far) | _at(window.dst, decisions, far))
    since_ns = min(quiet.values())
    panes = _panes_since(since_ns, window)
    acknowledged = total(panes.sum(axis=0), "bytes_acked") > 0
    reaches = bool((elsewhere & acknowledged).any())
    fails = bool((elsewhere & (decisions.status == PairStatus.FAIL)).any())
    early = window.end_ns - since_ns < 2 * (window.end_ns - window.start_ns)
    return Alone(name, since_ns, crossing, reaches, fails, early and not reaches and not fails)


def _panes_since(silent_ns: int, window: Window) -> Numbers:
    """The counts of the panes, newest first, that began after a node fell silent.

    It may have been heard for the last time before it fell silent, by up to a pane.
    """
    pane_ns = (window.end_ns - window.start_ns) // len(window.panes)
    return window.panes[: max(0, (window.end_ns - silent_ns) // pane_ns - 1)]


def _cut_off_with_us(alone: Alone, decisions: Decisions, remaining: Mask) -> KnownCause | None:
    explained = np.flatnonzero(remaining & alone.crossing)
    if alone.reaches or not alone.fails or not explained.size:
        return None
    on_it = {each for each in decisions.window.endpoints if each.node == alone.name}
    return KnownCause(
        _node(alone.name, on_it), f"no other node has been heard since {_time(alone.since_ns)} UTC",
        "both", explained, np.zeros(0, np.int64),
    )  # fmt: skip


def _node(name: str, on_it: set[Endpoint]) -> Component:
    found = next((each for each in on_it if each.kind == "node"), None)
    return component_of(found or Endpoint("node", "", name, node=name))


def _time(at_ns: int) -> str:
    return to_rfc3339(at_ns)[11:19]


def _may_be_ours(takes_part: Mask, decisions: Decisions, remaining: Mask) -> bool:
    """Whether it may be those who still report that are cut off: their flows to others fail, too,
    and nothing reaches anybody on another node.
    """
    window = decisions.window
    nodes = np.array([each.node for each in window.endpoints], np.str_)
    crosses = (nodes[window.src] != nodes[window.dst]) & ~takes_part
    acknowledged = total(window.panes[0], "bytes_acked") > 0
    works = crosses & acknowledged & (decisions.status != PairStatus.FAIL)
    return bool((remaining & crosses).any()) and not works.any()


def _at(side: Numbers, decisions: Decisions, endpoints: set[Endpoint]) -> Mask:
    """Whether the sender or the receiver of each pair is one of the endpoints."""
    chosen = np.array([each in endpoints for each in decisions.window.endpoints], np.bool_)
    found: Mask = chosen[side] if len(chosen) else np.zeros(0, np.bool_)
    return found
