"""The counts of one pane."""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from itertools import repeat

import numpy as np

from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_flows.endpoint import Endpoint, Sighting
from flowverdict_flows.pair_index import Mask
from flowverdict_flows.pairs import Numbers, PairSums
from flowverdict_rca.failed_names import MOST_NAMES
from flowverdict_rca.window import COUNTS, DROPS_BEFORE_RECEIPT, total

__all__ = ["Pane"]


@dataclass(slots=True)
class Pane:
    """What was counted in a length of time, by pair number.

    Attributes:
        first_sequence: position in the stream of the first message that is in it.
        sums: of `COUNTS`, of the RTT and its variation as each interval had them, of the intervals
            that had one, of the length of those in which a connection had an answer, and of the
            rows about connections that the sender had opened, less those that it had accepted.
        seen: what was said about endpoints, and after how many messages it was said last.
        nodes: those whose collectors reported.
        nodes_late: those whose clocks are behind.
        dropped: packets dropped by kernels, by pair number and node.
        failed_names: names that could not be looked up, by pair number, and how often.
        drop_reasons: the kernels' own reasons for dropping packets, by pair number.
        caught_up: nodes that were heard again after a gap, with the gap's start.
        losses: of each node that had any, as `NodeLosses` names them.
    """

    first_sequence: int
    sums: PairSums[np.int64] = field(default_factory=lambda: PairSums(len(COUNTS) + 5, np.int64))
    seen: dict[Sighting, int] = field(default_factory=dict)
    nodes: set[str] = field(default_factory=set)
    nodes_late: set[str] = field(default_factory=set)
    dropped: dict[int, Counter[str]] = field(default_factory=dict)
    failed_names: dict[int, Counter[str]] = field(default_factory=dict)
    drop_reasons: dict[int, Counter[str]] = field(default_factory=dict)
    caught_up: dict[str, int] = field(default_factory=dict)
    losses: dict[str, Counter[str]] = field(default_factory=dict)
    _is_in_it: Mask = field(default_factory=lambda: np.zeros(1, np.bool_))
    _messages: int = 0

    @property
    def numbers(self) -> Numbers:
        """The pairs in it, ascending."""
        return np.flatnonzero(self._is_in_it)

    def addresses(self) -> dict[Endpoint, set[str]]:
        """Those of each endpoint in it."""
        found: dict[Endpoint, set[str]] = {}
        for each in self.seen:
            found.setdefault(each.endpoint, set()).add(each.address)
        return found

    def conditions(self) -> dict[Endpoint, str]:
        """What was reported last about each endpoint."""
        return {each.endpoint: each.condition for each in self._oldest_first()}

    def unsettled(self) -> dict[Endpoint, str]:
        """The last condition of each endpoint for which any was reported at any time."""
        return {each.endpoint: each.condition for each in self._oldest_first() if each.condition}

    def candidates(self) -> dict[Endpoint, tuple[str, ...]]:
        """The pods on the network of each node, as reported last."""
        return {each.endpoint: each.candidates for each in self._oldest_first() if each.candidates}

    def _oldest_first(self) -> list[Sighting]:
        return sorted(self.seen, key=self.seen.__getitem__)

    def add(
        self,
        header: IntervalHeader,
        numbers: Numbers,
        counts: Numbers,
        seen: Iterable[Sighting],
    ) -> None:
        """Add what a node counted in an interval.

        Args:
            header: of the interval.
            numbers: of the pairs.
            counts: of each of them, columns as in `sums`.
            seen: the endpoints.
        """
        self.nodes.add(header.node)
        if header.clock_behind_ns > 0:
            self.nodes_late.add(header.node)
        lost = Counter(
            lost_flow_updates=header.lost_flow_updates,
            lost_sockets=header.lost_sockets,
            skipped_runs=header.skipped_runs,
        )
        if lost.total():
            self.losses.setdefault(header.node, Counter()).update(lost)
        self.sums.add(numbers, counts)
        self._messages += 1
        self.seen.update(zip(seen, repeat(self._messages), strict=False))
        self._mark(numbers)
        dropped = total(counts, *DROPS_BEFORE_RECEIPT)
        for at in np.flatnonzero(dropped).tolist():
            by_node = self.dropped.setdefault(int(numbers[at]), Counter())
            by_node[header.node] += int(dropped[at])

    def _mark(self, numbers: Numbers) -> None:
        missing = len(self.sums.values) - len(self._is_in_it)
        if missing > 0:
            self._is_in_it = np.pad(self._is_in_it, (0, missing))
        self._is_in_it[numbers] = True

    def lose(self, lost_messages: Mapping[str, int]) -> None:
        """Add, by node, how many messages are now known never to come."""
        for node, messages in lost_messages.items():
            self.losses.setdefault(node, Counter())["lost_messages"] += messages

    def explain(
        self, failed_names: Mapping[int, Counter[str]], drop_reasons: Mapping[int, Counter[str]]
    ) -> None:
        """Add, by pair number, which names could not be looked up and why packets were dropped."""
        for number, names in failed_names.items():
            known = self.failed_names.setdefault(number, Counter())
            known.update(names)
            self.failed_names[number] = Counter(dict(known.most_common(MOST_NAMES)))
        for number, reasons in drop_reasons.items():
            self.drop_reasons.setdefault(number, Counter()).update(reasons)

    def counts(self, numbers: Numbers) -> Numbers:
        """The rows of `sums` for these pairs."""
        self.sums.reach(int(numbers.max(initial=0)))
        found: Numbers = self.sums.values[numbers]
        return found
