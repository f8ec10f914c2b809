"""Findings that are withheld, since nodes that are not heard may have seen what changes them."""

from collections.abc import Iterable
from dataclasses import replace

from flowverdict_contracts.verdicts import Component
from flowverdict_flows.components import is_part
from flowverdict_flows.endpoint import Endpoint
from flowverdict_rca.ranking import Finding
from flowverdict_rca.window import Window

__all__ = ["unless_withheld"]

_AT_ONE_PLACE = ("pod", "node")


def unless_withheld(found: Iterable[Finding], window: Window) -> tuple[Finding, ...]:
    """The findings, without causes if what fits the same flows is on different nodes and one of
    those is silent: it may have counted other flows of what is on it, which fail or do not.
    """
    silent = {each.name for each in window.facts.silent if not each.heard_again}
    return tuple(_or_withheld(each, window, silent) for each in found)


def _or_withheld(finding: Finding, window: Window, silent: set[str]) -> Finding:
    named = finding.causes[0]
    if named.reported or named.more_alternatives:
        return finding
    pairs = finding.explained
    ends = {window.endpoints[at] for side in (window.src, window.dst) for at in side[pairs]}
    suspects = tuple(each for each in (named, *named.alternatives) if each.kind in _AT_ONE_PLACE)
    nodes = {node for each in suspects for node in _nodes_of(each, ends)}
    needed = tuple(sorted(nodes & silent))
    if len(nodes) < 2 or not needed:
        return finding
    return replace(finding, causes=(), between=suspects, needed=needed)


def _nodes_of(component: Component, ends: set[Endpoint]) -> set[str]:
    return {each.node for each in ends if is_part(each, component.ends[0])} - {""}
