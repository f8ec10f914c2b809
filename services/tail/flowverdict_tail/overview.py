"""The overview: open incidents, the pairs that fail most, rates, and which nodes report."""

import shutil
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime

import pyarrow as pa
from rich import box
from rich.console import Group, RenderableType
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.verdicts import Verdict
from flowverdict_flows.endpoint import Endpoint
from flowverdict_runtime.terminal import printable
from flowverdict_tail.live_pairs import WINDOW_SECONDS, LivePairs, PairTable, percent
from flowverdict_tail.table import said_by

__all__ = ["Overview"]

_SILENT_SECONDS = 15.0
_GONE_SECONDS = 600.0
_STALE_SECONDS = 60.0
_FEW_SEGMENTS = 20
_SHOWN_PAIRS = 12
_SHOWN_RESOLVED = 3
_WIDE_COLUMNS = 110


class Overview:
    """Collects messages and renders them. Sums cover the last ten seconds."""

    def __init__(self) -> None:
        self._pairs = LivePairs()
        self._nodes: dict[str, float] = {}
        self._open: dict[str, tuple[float, Verdict]] = {}
        self._resolved: deque[Verdict] = deque(maxlen=_SHOWN_RESOLVED)
        self.fail_ratio: float | None = None

    def add_flows(self, header: IntervalHeader, batch: pa.RecordBatch) -> None:
        """Add an enriched message."""
        self._nodes[header.node] = time.monotonic()
        self._pairs.add(batch)

    def add_verdict(self, verdict: Verdict) -> None:
        """Add a verdict."""
        if verdict.status == "resolved":
            self._open.pop(verdict.incident_id, None)
            self._resolved.appendleft(verdict)
        else:
            self._open[verdict.incident_id] = (time.monotonic(), verdict)
            self.fail_ratio = verdict.fail_ratio

    def render(self) -> RenderableType:
        """What to show now."""
        now = time.monotonic()
        self._open = {
            incident_id: each
            for incident_id, each in self._open.items()
            if each[0] > now - _STALE_SECONDS
        }
        pairs = self._pairs.sums()
        return Group(self._rates(pairs, now), self._incidents(), self._worst(pairs))

    def _rates(self, pairs: PairTable, now: float) -> Text:
        self._nodes = {n: at for n, at in self._nodes.items() if at > now - _GONE_SECONDS}
        silent = sorted(n for n, at in self._nodes.items() if at < now - _SILENT_SECONDS)
        reporting = len(self._nodes) - len(silent)
        whole = pairs.whole()
        ratio = whole.retransmission_ratio
        facts = [
            f"{reporting} node{'s report' if reporting != 1 else ' reports'}",
            f"{len(pairs.numbers)} pairs",
            f"{pairs.rows / WINDOW_SECONDS:,.0f} rows/s",
            f"{whole.counts['data_segments_sent'] / WINDOW_SECONDS:,.0f} data segments/s",
            f"{whole.counts['bytes_sent'] * 8 / WINDOW_SECONDS / 1e6:,.1f} Mbit/s",
            f"{percent(ratio) or '0%'} retransmitted",
            f"{whole.counts['failed_opens'] / WINDOW_SECONDS:,.1f} failed connects/s",
        ]
        text = Text(" · ".join(facts), style="dim")
        if silent:
            text.append("\n" + printable(f"silent: {', '.join(silent[:8])}"), style="bold yellow")
        for endpoint, synacks in pairs.half_open():
            words = f"half-open requests at {endpoint}: {synacks} SYN-ACKs retransmitted"
            text.append("\n" + printable(words), style="yellow")
        if not self._nodes:
            text = Text("no flows yet; waiting …", style="dim")
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
            yield Text.assemble((f"since {since}{score}  ", "dim"), (said_by(verdict), "bold red"))
        for verdict in self._resolved:
            until = datetime.fromisoformat(verdict.window.end).strftime("%H:%M:%S")
            yield Text.assemble((f"until {until}  ", "dim"), (said_by(verdict), "green"))

    def _worst(self, pairs: PairTable) -> RenderableType:
        known = pairs.column("data_segments_sent") + pairs.column("failed_opens") >= _FEW_SEGMENTS
        table = Table(box=box.SIMPLE_HEAD, title="Pairs, worst first", title_justify="left")
        for name in ("from", "to"):
            table.add_column(name, overflow="ellipsis", no_wrap=True, ratio=1)
        for name in ("data\nsegments/s", "retrans-\nmitted", "failed\nconnects", "RTT ms,\nmean"):
            table.add_column(name, justify="right", no_wrap=True, min_width=8)
        for pair in pairs.worst_first(known, _SHOWN_PAIRS):
            table.add_row(
                self._name(pair.src),
                self._name(pair.dst),
                f"{pair.counts['data_segments_sent'] / WINDOW_SECONDS:,.0f}",
                pair.ratio_text(self.fail_ratio),
                f"{pair.counts['failed_opens']}",
                pair.rtt_text,
            )
        return table

    def _name(self, endpoint: Endpoint) -> Text:
        name, node = printable(str(endpoint)), endpoint.node
        if node and endpoint.kind != "node" and shutil.get_terminal_size().columns >= _WIDE_COLUMNS:
            return Text.assemble(name, (f"  {printable(node)}", "dim"))
        return Text(name)
