"""The overview: open incidents, the pairs that fail most, rates, and which nodes report."""

import shutil
import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flowverdict_contracts.header import IntervalHeader
from flowverdict_contracts.pairs import NO_PAIR, Numbers, Pairs
from flowverdict_contracts.signals import PAIR_LABELS
from flowverdict_contracts.verdicts import Verdict
from flowverdict_runtime.terminal import printable

__all__ = ["Overview"]

_WINDOW_SECONDS = 10.0
_SILENT_SECONDS = 15.0
_GONE_SECONDS = 600.0
_UNHEARD_SECONDS = 60.0
_ROOM = 50_000
_FEW_SEGMENTS = 20
_FAIL_RATIO = 0.05
_SHOWN_PAIRS = 12
_SHOWN_RESOLVED = 3
_WIDE_COLUMNS = 110
_FIELDS = ("data_segments_sent", "syn_retransmits", "retransmitted_segments", "failed_opens",
           "bytes_sent")  # fmt: skip


@dataclass(frozen=True, slots=True)
class _Part:
    """One message's sums: a row for each pair; columns as `_FIELDS`, then RTT and readings."""

    heard: float
    numbers: Numbers
    sums: npt.NDArray[np.float64]
    rows: int


class Overview:
    """Takes messages, gives what to show now. Sums are of the last ten seconds."""

    def __init__(self) -> None:
        self._room = _ROOM
        self._pairs = Pairs(_ROOM)
        self._parts: deque[_Part] = deque()
        self._nodes: dict[str, float] = {}
        self._open: dict[str, tuple[float, Verdict]] = {}
        self._resolved: deque[Verdict] = deque(maxlen=_SHOWN_RESOLVED)

    def add_flows(self, header: IntervalHeader, batch: pa.RecordBatch) -> None:
        """An enriched message has passed."""
        now = time.monotonic()
        self._nodes[header.node] = now
        numbers, rows, inverse = self._pairs.of(batch)
        if (numbers == NO_PAIR).any():
            self._room = max(_ROOM, batch.num_rows)
            self._pairs = Pairs(self._room)
            self._parts.clear()
            numbers, rows, inverse = self._pairs.of(batch)
        readings = batch.column("rtt_us").to_numpy()[rows]
        columns = [batch.column(name).to_numpy()[rows] for name in _FIELDS]
        columns += [readings, readings > 0]
        sums = [np.bincount(inverse, column, len(numbers)) for column in columns]
        self._parts.append(_Part(now, numbers, np.stack(sums, axis=1), batch.num_rows))

    def add_verdict(self, verdict: Verdict) -> None:
        """A verdict has passed."""
        if verdict.status == "resolved":
            self._open.pop(verdict.incident_id, None)
            self._resolved.appendleft(verdict)
        else:
            self._open[verdict.incident_id] = (time.monotonic(), verdict)

    def render(self) -> RenderableType:
        """What to show as of now."""
        now = time.monotonic()
        while self._parts and self._parts[0].heard < now - _WINDOW_SECONDS:
            self._parts.popleft()
        self._open = {
            incident_id: each
            for incident_id, each in self._open.items()
            if each[0] > now - _UNHEARD_SECONDS
        }
        sums = np.zeros((self._room + 1, len(_FIELDS) + 2))
        for part in self._parts:
            sums[part.numbers] += part.sums
        return Group(self._rates(sums, now), self._incidents(), self._failing(sums))

    def _rates(self, sums: npt.NDArray[np.float64], now: float) -> Text:
        self._nodes = {n: at for n, at in self._nodes.items() if at > now - _GONE_SECONDS}
        silent = sorted(n for n, at in self._nodes.items() if at < now - _SILENT_SECONDS)
        sent = sums[:, 0].sum() + sums[:, 1].sum()
        again, failed, payload = sums[:, 2].sum(), sums[:, 3].sum(), sums[:, 4].sum()
        rows = sum(part.rows for part in self._parts)
        reporting = len(self._nodes) - len(silent)
        facts = [
            f"{reporting} node{'s report' if reporting != 1 else ' reports'}",
            f"{np.count_nonzero(sums[:, :3].any(axis=1))} pairs",
            f"{rows / _WINDOW_SECONDS:,.0f} rows/s",
            f"{sent / _WINDOW_SECONDS:,.0f} segments/s",
            f"{payload * 8 / _WINDOW_SECONDS / 1e6:,.1f} Mbit/s",
            f"{100 * again / sent if sent else 0:.2f} % sent again",
            f"{failed / _WINDOW_SECONDS:,.1f} failed connects/s",
        ]
        text = Text(" · ".join(facts), style="dim")
        if silent:
            text.append("\n" + printable(f"silent: {', '.join(silent[:8])}"), style="bold yellow")
        if not self._nodes:
            text = Text("nothing has passed yet; waiting for flows …", style="dim")
        return text

    def _incidents(self) -> RenderableType:
        lines = list(self._incident_lines())
        if not self._open:
            lines.insert(0, Text("No open incident", style="green"))
            return Panel(Group(*lines), title="Now", title_align="left")
        return Panel(Group(*lines), title=f"{len(self._open)} open", title_align="left",
                     border_style="red")  # fmt: skip

    def _incident_lines(self) -> Iterator[Text]:
        for _, verdict in self._open.values():
            since = datetime.fromisoformat(verdict.opened_at).strftime("%H:%M:%S")
            score = f", score {verdict.causes[0].score:.2f}" if verdict.causes else ""
            yield Text.assemble(
                (f"since {since}{score}  ", "dim"), (printable(verdict.summary), "bold red")
            )
        for verdict in self._resolved:
            until = datetime.fromisoformat(verdict.window.end).strftime("%H:%M:%S")
            yield Text.assemble((f"until {until}  ", "dim"), (printable(verdict.summary), "green"))

    def _failing(self, sums: npt.NDArray[np.float64]) -> RenderableType:
        sent = sums[:, 0] + sums[:, 1]
        known = sent + sums[:, 3] >= _FEW_SEGMENTS
        ratios = np.divide(sums[:, 2], sent, out=np.zeros_like(sent), where=sent > 0).clip(max=1)
        worst = np.lexsort((-sent, -sums[:, 3], -ratios))
        worst = worst[known[worst]][:_SHOWN_PAIRS]
        table = Table(box=box.SIMPLE_HEAD, title="Pairs, worst first", title_justify="left")
        for name in ("from", "to"):
            table.add_column(name, overflow="ellipsis", no_wrap=True, ratio=1)
        for name in ("segments\n/s", "sent\nagain", "failed\nconnects", "RTT ms,\nmean"):
            table.add_column(name, justify="right", no_wrap=True, min_width=8)
        for number in worst.tolist():
            row = sums[number]
            bad = ratios[number] > _FAIL_RATIO
            rtt = f"{row[-2] / row[-1] / 1000:.1f}" if row[-1] else ""
            table.add_row(
                self._name(number, "src"),
                self._name(number, "dst"),
                f"{sent[number] / _WINDOW_SECONDS:,.0f}",
                Text(f"{100 * ratios[number]:.1f} %", style="bold red" if bad else ""),
                f"{row[3]:.0f}",
                rtt,
            )
        return table

    def _name(self, number: int, end: str) -> Text:
        labels = dict(zip(PAIR_LABELS, self._pairs.labels(number), strict=True))
        pod, node = labels[f"{end}_pod"], labels[f"{end}_node"]
        name = f"{labels[f'{end}_namespace']}/{pod}" if pod else labels[f"{end}_ip"]
        if node and shutil.get_terminal_size().columns >= _WIDE_COLUMNS:
            return Text.assemble(printable(name), (f"  {printable(node)}", "dim"))
        return Text(printable(name))
