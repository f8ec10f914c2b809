"""Which components take part in which pairs of a window, and in which direction."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from flowverdict_contracts.verdicts import Component, Direction
from flowverdict_flows.components import (
    link_between,
    link_from_to,
    node_link_between,
    node_link_from_to,
    parts_of,
)
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.window import Window

__all__ = ["Roles", "roles_in"]

_DIRECTIONS: tuple[Direction, ...] = ("both", "sending", "receiving")
_NONE = -1

Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Roles:
    """Parallel arrays: one entry for each role of each pair.

    Attributes:
        roles: component and direction in which it may fail, by number.
        role, pair: a role's number, and the position of a pair in the window.
    """

    roles: list[tuple[Component, Direction]]
    role: Numbers
    pair: Numbers

    def counts(self, chosen: Mask) -> Numbers:
        """How many of the `chosen` pairs (a mask) each role takes part in."""
        return np.bincount(self.role[chosen[self.pair]], minlength=len(self.roles))

    def alike(self, chosen: Mask) -> Numbers:
        """A number for each role; roles with the same `chosen` pairs have the same one.

        Each pair gets a random number, and each role the sum of its pairs' numbers (Zobrist 1970).
        """
        random = np.random.default_rng(0).integers(1 << 63, size=len(chosen), dtype=np.uint64)
        sums = np.zeros(len(self.roles), np.uint64)
        inside = chosen[self.pair]
        np.add.at(sums, self.role[inside], random[self.pair[inside]])
        return sums.view(np.int64)

    def pairs_of(self, role: int) -> Numbers:
        """The positions of a role's pairs."""
        found: Numbers = self.pair[self.role == role]
        return found


def roles_in(window: Window) -> Roles:
    """Every role in a window."""
    number_of: dict[Component, int] = {}

    def number(component: Component) -> int:
        return number_of.setdefault(component, len(number_of))

    parts = np.full((len(window.endpoints), 3), _NONE, np.int64)
    for at, endpoint in enumerate(window.endpoints):
        for column, part in enumerate(parts_of(endpoint)):
            parts[at, column] = number(part)
    sends, receives = parts[window.src], parts[window.dst]
    links = np.stack(list(_links(window, number)), axis=1)
    taking_part = (np.concatenate([sends, receives, links], axis=1), sends, receives)
    codes = []
    for direction, components in enumerate(taking_part):
        pairs = np.broadcast_to(np.arange(len(components))[:, None], components.shape)
        present = components != _NONE
        role = components[present] * len(_DIRECTIONS) + direction
        codes.append(pairs[present] << 32 | role)
    code = np.unique(np.concatenate(codes))
    used, role = np.unique(code & 0xFFFFFFFF, return_inverse=True)
    components_by_number = list(number_of)
    roles = [
        (components_by_number[each // len(_DIRECTIONS)], _DIRECTIONS[each % len(_DIRECTIONS)])
        for each in used.tolist()
    ]
    return Roles(roles, role, code >> 32)


def _links(window: Window, number: Callable[[Component], int]) -> Iterator[Numbers]:
    """For each pair the links between its ends, both ways and this way, then those between their
    nodes.
    """
    ends = window.endpoints
    # A service whose pods are all on one node is there, as far as the path to it is concerned.
    behind = [window.facts.nodes_of(each) for each in ends]
    nodes = [next(iter(each)) if len(each) == 1 else "" for each in behind]
    between: dict[tuple[int, int], tuple[int, int]] = {}
    between_nodes: dict[tuple[str, str], tuple[int, int]] = {}
    found = []
    for src, dst in zip(window.src.tolist(), window.dst.tolist(), strict=True):
        if (src, dst) not in between:
            both, this = link_between(ends[src], ends[dst]), link_from_to(ends[src], ends[dst])
            between[src, dst] = number(both), number(this)
        way = nodes[src], nodes[dst]
        if way not in between_nodes:
            between_nodes[way] = _NONE, _NONE
            if all(way) and way[0] != way[1]:
                both, this = node_link_between(*way), node_link_from_to(*way)
                between_nodes[way] = number(both), number(this)
        found.append((*between[src, dst], *between_nodes[way]))
    yield from np.array(found, np.int64).reshape(-1, 4).T
