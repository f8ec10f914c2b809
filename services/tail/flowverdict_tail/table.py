"""The live tables: the worst flows of the last few seconds, or the last verdicts."""

from collections import deque

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flowverdict_contracts.verdicts import Verdict
from flowverdict_runtime.terminal import printable
from flowverdict_tail.live_pairs import WINDOW_SECONDS, LivePairs

__all__ = ["LiveFlows", "LiveVerdicts", "said_by"]

_SHOWN_PAIRS, _SHOWN_VERDICTS = 20, 6
_NOTHING = Text("nothing in the last few seconds; waiting …", style="dim")


class LiveFlows(LivePairs):
    """Collects enriched batches and shows the pairs that retransmit most."""

    fail_ratio: float | None = None

    def render(self) -> RenderableType:
        """The table as of now."""
        pairs = self.sums()
        table = Table(box=box.SIMPLE_HEAD, title=f"The last {WINDOW_SECONDS:.0f} s, worst first")
        table.add_column("from")
        table.add_column("to")
        for name in ("data segments/s", "retransmitted", "failed opens", "RTT ms, mean"):
            table.add_column(name, justify="right")
        everything = pairs.numbers > 0
        for pair in pairs.worst_first(everything, _SHOWN_PAIRS):
            table.add_row(
                Text(printable(str(pair.src))),  # not markup: a name may contain brackets
                Text(printable(str(pair.dst))),
                f"{pair.counts['data_segments_sent'] / WINDOW_SECONDS:.0f}",
                pair.ratio_text(self.fail_ratio),
                str(pair.counts["failed_opens"]),
                pair.rtt_text,
            )
        footer = Text(f"{pairs.rows} rows in that time; Ctrl+C to quit", style="dim")
        return Group(table if len(pairs.numbers) else _NOTHING, footer)


def said_by(verdict: Verdict) -> str:
    """The summary of a verdict, after the name of its cluster if that has one."""
    cluster = f"{verdict.cluster}: " if verdict.cluster else ""
    return printable(f"{cluster}{verdict.summary}")


class LiveVerdicts:
    """Collects verdicts and shows the last ones."""

    def __init__(self) -> None:
        self._last: deque[Verdict] = deque(maxlen=_SHOWN_VERDICTS)

    def add(self, verdict: Verdict) -> None:
        """Add a verdict; one that repeats the last replaces it."""
        if self._last:
            last = self._last[-1]
            if (last.incident_id, last.status) == (verdict.incident_id, verdict.status):
                self._last.pop()
        self._last.append(verdict)

    def render(self) -> RenderableType:
        """The table as of now."""
        table = Table("window end", "status", "verdict", box=box.SIMPLE_HEAD)
        styles = {"opened": "bold red", "ongoing": "red", "resolved": "green"}
        for verdict in reversed(self._last):
            table.add_row(
                verdict.window.end,
                Text(verdict.status, style=styles[verdict.status]),
                Text(said_by(verdict)),
            )
        return Group(table if self._last else _NOTHING, Text("Ctrl+C to quit", style="dim"))
