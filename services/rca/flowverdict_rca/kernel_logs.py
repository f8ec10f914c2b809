"""What the nodes' kernels have reported in their logs lately."""

from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping

from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.kernel_reports import KernelCondition, KernelReport
from flowverdict_contracts.verdicts import MOST_NAMED, Cause, Condition, NodeReport
from flowverdict_flows.components import component_of
from flowverdict_flows.endpoint import Endpoint

__all__ = ["KernelLogs", "conditions_of", "in_words", "reports_about"]

_LATELY_NS = 120 * 1_000_000_000
"""A link that was down for a moment is told for longer than the window it was in."""
_MOST_REPORTS = 10_000
_FLAPS = 2


class KernelLogs:
    """The reports of the last two minutes, 10,000 at most."""

    def __init__(self) -> None:
        self._reports: deque[tuple[int, str, KernelReport]] = deque(maxlen=_MOST_REPORTS)

    def add(self, header: IntervalHeader) -> None:
        """Add what an interval's header says."""
        for each in header.kernel_reports:
            self._reports.append((header.end_ns, header.node, each))

    def lately(self, end_ns: int) -> dict[str, tuple[KernelReport, ...]]:
        """By node, what was reported in the two minutes before; lines that say the same as one."""
        counts: Counter[tuple[str, KernelCondition]] = Counter()
        lines: dict[tuple[str, KernelCondition], str] = {}
        for at_ns, node, report in self._reports:
            if end_ns - _LATELY_NS < at_ns <= end_ns:
                counts[node, report.condition] += report.count
                lines[node, report.condition] = report.line
        found: dict[str, tuple[KernelReport, ...]] = {}
        for (node, condition), count in counts.items():
            report = KernelReport(condition, count, lines[node, condition])
            found[node] = (*found.get(node, ()), report)
        return found


def reports_about(
    causes: Iterable[Cause],
    endpoints: Iterable[Endpoint],
    lately: Mapping[str, tuple[KernelReport, ...]],
) -> tuple[NodeReport, ...]:
    """What the kernels of the first cause's nodes report."""
    first = next(iter(causes), None)
    if first is None or not lately:
        return ()
    nodes = {first.node, *(end.name for end in first.ends if end.kind == "node")}
    named = {str(end) for end in first.ends}
    nodes |= {each.node for each in endpoints if component_of(each).name in named}
    return tuple(_of_nodes(sorted(nodes - {""}), lately))[:MOST_NAMED]


def _of_nodes(
    nodes: Iterable[str], lately: Mapping[str, tuple[KernelReport, ...]]
) -> Iterator[NodeReport]:
    for node in nodes:
        for each in lately.get(node, ()):
            yield NodeReport(node=node, condition=each.condition, count=each.count, line=each.line)


def conditions_of(reports: Iterable[NodeReport]) -> dict[Condition, bool]:
    """The conditions of the nodes; a link that went down more than once flaps."""
    found: dict[Condition, bool] = {}
    for each in reports:
        found[each.condition] = True
        if each.condition == "LINK_DOWN" and each.count >= _FLAPS:
            found["LINK_FLAP"] = True
    return found


def in_words(reports: Iterable[NodeReport]) -> str:
    """Sentences for a summary."""
    return "".join(
        f" The kernel of node {each.node} reported: {each.line.rstrip('.')}"
        f"{f' ({each.count} times)' if each.count > 1 else ''}."
        for each in reports
    )
