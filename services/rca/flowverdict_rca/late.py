"""Rows that arrive after their window was judged, as metrics."""

from prometheus_client import Counter, Gauge

from flowverdict_contracts.interval_header import IntervalHeader

__all__ = ["count_late"]

_MOST_NODES = 1000

_ROWS = Counter(
    "flowverdict_rca_late_rows_total",
    "Rows that arrived after their window was judged, so that no verdict contains them.",
    ["node"],
)
_LATENESS = Gauge(
    "flowverdict_rca_last_lateness_seconds",
    "How long before what was judged already the node's last late rows ended.",
    ["node"],
)
_nodes: set[str] = set()


def count_late(header: IntervalHeader, rows: int, watermark_ns: int) -> None:
    """Count a message's rows that are late, if any; beyond a thousand nodes, those of all others
    together.
    """
    if len(_nodes) < _MOST_NODES:
        _nodes.add(header.node)
    node = header.node if header.node in _nodes else "other"
    _ROWS.labels(node).inc(rows)
    if rows:
        _LATENESS.labels(node).set(max(0, watermark_ns - header.end_ns) / 1e9)
