"""The live tables: the flows that matter most in the last seconds, or the last verdicts."""

import time
from collections import deque

from rich import box
from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from flowverdict_runtime.terminal import printable
from flowverdict_tail.rows import Row

__all__ = ["LiveTable"]

_WINDOW_SECONDS = 10
_SHOWN = 20
_SHOWN_VERDICTS = 6


class LiveTable:
    """Takes rows, gives what to show now.

    Args:
        stream: `raw`, `flows` or `verdicts`.
    """

    def __init__(self, stream: str) -> None:
        self._stream = stream
        self._rows: deque[tuple[float, Row]] = deque()
        self._seen = 0

    def add(self, row: Row) -> None:
        """One more row has passed."""
        self._seen += 1
        again = self._stream == "verdicts" and self._rows and _goes_on(self._rows[-1][1], row)
        if again:
            self._rows.pop()
        self._rows.append((time.monotonic(), row))

    def render(self) -> RenderableType:
        """The table as of now."""
        if self._stream == "verdicts":
            while len(self._rows) > _SHOWN_VERDICTS:
                self._rows.popleft()
            body: RenderableType = self._verdicts()
        else:
            oldest = time.monotonic() - _WINDOW_SECONDS
            while self._rows and self._rows[0][0] < oldest:
                self._rows.popleft()
            body = self._pairs()
        if not self._rows:
            body = Text("nothing has passed in the last seconds; waiting …", style="dim")
        return Group(body, Text(f"{self._seen} rows so far; Ctrl+C ends", style="dim"))

    def _pairs(self) -> Table:
        sums: dict[tuple[str, str], list[int]] = {}
        for _, row in self._rows:
            pair = (_name(row, "src"), _name(row, "dst"))
            parts = (row["data_segments_sent"], row["retransmitted_segments"], row["failed_opens"])
            total = sums.setdefault(pair, [0, 0, 0, 0])
            for position, part in enumerate(parts):
                total[position] += part
            total[3] = row["rtt_us"] or total[3]
        table = Table(box=box.SIMPLE_HEAD, title=f"The last {_WINDOW_SECONDS} s, worst first")
        table.add_column("from")
        table.add_column("to")
        for name in ("data segments/s", "sent again", "failed opens", "RTT ms, last"):
            table.add_column(name, justify="right")
        worst = sorted(sums.items(), key=lambda each: (-each[1][1], -each[1][2], -each[1][0]))
        for (source, target), (segments, again, failed, rtt_us) in worst[:_SHOWN]:
            ratio = again / segments if segments else 0.0
            table.add_row(
                Text(printable(source)),  # not markup: an IPv6 address is in brackets
                Text(printable(target)),
                f"{segments / _WINDOW_SECONDS:.0f}",
                Text(f"{100 * ratio:.1f} %", style="red" if ratio > 0.05 else ""),
                str(failed),
                f"{rtt_us / 1000:.1f}",
            )
        return table

    def _verdicts(self) -> Table:
        table = Table("window end", "status", "verdict", box=box.SIMPLE_HEAD)
        styles = {"opened": "bold red", "ongoing": "red", "resolved": "green"}
        for _, row in reversed(self._rows):
            status = row["status"]
            table.add_row(
                row["window"]["end"],
                Text(status, style=styles[status]),
                Text(printable(row["summary"])),
            )
        return table


def _goes_on(last: Row, row: Row) -> bool:
    """Whether a verdict only repeats the one before, some seconds later."""
    both = [(each["incident_id"], each["status"]) for each in (last, row)]
    return both[0] == both[1]


def _name(row: Row, end: str) -> str:
    """A pod's, service's or node's name where there is one, else the address."""
    if end in row:
        address = row[end]
        return (
            f"[{address}]:{row[f'{end}_port']}"
            if ":" in address
            else f"{address}:{row[f'{end}_port']}"
        )
    kind = row[f"{end}_kind"]
    if kind in ("pod", "service"):
        return f"{row[f'{end}_namespace']}/{row[f'{end}_{kind}']}"
    return str(row[f"{end}_node"]) if kind == "node" else str(row[f"{end}_ip"])
