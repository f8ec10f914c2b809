"""Panels and columns about flows that several dashboards have."""

from flowverdict_provisioner.board import Column, Link, Panel, Query
from flowverdict_provisioner.promql import quantile, rate, ratio, to_pod

__all__ = ["CLUSTER_COLUMN", "FLOW_COLUMNS", "RATIO_COLUMN", "ratio_now", "rtt", "throughput"]

RATIO_COLUMN = Column(
    "Value", "Ratio", "percentunit", red_above_fail_ratio=True, highest_first=True
)

CLUSTER_COLUMN = Column("cluster", "Cluster")
"""Not shown unless a cluster has a name."""

_LINK = Link(
    "This link",
    "flowverdict-link",
    {
        "cluster": "${__data.fields.cluster}",
        "source": "${__data.fields.src_ip}",
        "destination": "${__data.fields.dst_ip}",
    },
)

FLOW_COLUMNS = (
    CLUSTER_COLUMN,
    Column("src_namespace", "From namespace"),
    Column("src_pod", "From pod", link=to_pod("src")),
    Column("src_ip", "From address", link=_LINK),
    Column("src_node", "From node"),
    Column("dst_namespace", "To namespace"),
    Column("dst_pod", "To pod", link=to_pod("dst")),
    Column("dst_ip", "To address", link=_LINK),
    Column("dst_node", "To node"),
    RATIO_COLUMN,
)
"""Of a table with a row for each pair of addresses."""


def ratio_now(title: str, description: str, selector: str, empty: str) -> Panel:
    """The current retransmission ratio."""
    return Panel(
        title=title,
        kind="stat",
        description=description,
        queries=(Query(ratio(selector)),),
        unit="percentunit",
        red_above_fail_ratio=True,
        empty=empty,
        width=6,
        height=4,
    )


def rtt(description: str, selector: str, empty: str) -> Panel:
    """Round-trip times over time."""
    return Panel(
        title="RTT",
        kind="timeseries",
        description=description,
        queries=(
            Query(quantile(0.5, "tcp_sender_rtt_seconds", selector), "median", "A"),
            Query(quantile(0.95, "tcp_sender_rtt_seconds", selector), "95th percentile", "B"),
        ),
        unit="s",
        empty=empty,
    )


def throughput(selector: str, empty: str) -> Panel:
    """Bytes sent and received over time."""
    return Panel(
        title="Throughput",
        kind="timeseries",
        description="TCP payload; the sent bytes include retransmissions.",
        queries=(
            Query(rate("tcp_sent_bytes_total", selector), "sent", "A"),
            Query(rate("tcp_received_bytes_total", selector), "received", "B"),
        ),
        unit="Bps",
        empty=empty,
    )
