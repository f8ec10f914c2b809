"""*Link*: two endpoints, each way."""

from flowverdict_provisioner.board import Board, Panel, Query, Row
from flowverdict_provisioner.flow_panels import FLOW_COLUMNS
from flowverdict_provisioner.promql import CLUSTER, ONE_CLUSTER_VARIABLE, PAIR_RATIO

__all__ = ["LINK"]

_THERE = f'{CLUSTER},src_ip=~"$source",dst_ip=~"$destination"'
_BACK = f'{CLUSTER},src_ip=~"$destination",dst_ip=~"$source"'
_ENDS = (
    "cluster, src_ip, src_namespace, src_pod, src_node, dst_ip, dst_namespace, dst_pod, dst_node"
)
_RATIO = f"{PAIR_RATIO}{{WAY}}"
_WAY = "{{src_pod}} {{src_ip}} → {{dst_pod}} {{dst_ip}}"


def _both_ways(series: str, by: str = "src_pod, src_ip, dst_pod, dst_ip") -> str:
    """The sum of a series by who sends to whom; `WAY` in it becomes the selector.

    A verdict knows the addresses of both ends, and not which is whose, so that the two ways may
    select the same.
    """
    there, back = (series.replace("WAY", way) for way in (_THERE, _BACK))
    return f"sum by ({by}) ({there} or {back})"


def _rates(metric: str) -> str:
    return _both_ways(f"rate({metric}{{WAY}}[$__rate_interval])")


def _mean(metric: str) -> str:
    return f"{_rates(f'{metric}_sum')} / ({_rates(f'{metric}_count')} > 0)"


def _history(title: str, description: str, expr: str, unit: str, empty: str) -> Panel:
    return Panel(
        title=title,
        kind="timeseries",
        description=description,
        queries=(Query(expr, _WAY),),
        unit=unit,
        red_above_fail_ratio=unit == "percentunit",
        empty=empty,
    )


_NO_FLOW = "no flow between them lately"

LINK = Board(
    uid="flowverdict-link",
    title="Link",
    description="Two addresses, or regular expressions for several, and what is between them; best"
    " reached from a verdict or a row of flows.",
    variables=(ONE_CLUSTER_VARIABLE,),
    # A verdict gives the addresses of both ends, which a list of addresses to choose from would not keep.
    inputs=("source", "destination"),
    since="now-3h",
    rows=(
        Row(
            "Now",
            (
                Panel(
                    title="Both ways",
                    kind="table",
                    description="Who is at each end. If the other links of one end are bad, too, that"
                    " end is itself at fault.",
                    queries=(Query(_both_ways(_RATIO, _ENDS)),),
                    columns=FLOW_COLUMNS,
                    unit="percentunit",
                    empty="neither end sends enough for a ratio (one segment per second)",
                    width=24,
                    height=5,
                ),
            ),
        ),
        Row(
            "History, by who sends",
            (
                _history(
                    "Retransmission ratio",
                    "If only one way is high, the losses are on that way.",
                    _both_ways(_RATIO),
                    "percentunit",
                    "neither end sends enough for a ratio (one segment per second)",
                ),
                _history(
                    "Dropped packets",
                    "By the kernels of both ends' nodes. What is retransmitted and was not dropped"
                    " there was lost on the way.",
                    _rates("tcp_dropped_packets_total"),
                    "pps",
                    _NO_FLOW,
                ),
                _history(
                    "RTT",
                    "Mean smoothed round-trip time, as each end measures it.",
                    _mean("tcp_rtt_seconds"),
                    "s",
                    "no flow has an RTT yet",
                ),
                _history(
                    "Shortest RTT",
                    "Mean of the connections' minimum round-trip times: the way without queues. If"
                    " only the RTT rises, something queues.",
                    _mean("tcp_minimum_rtt_seconds"),
                    "s",
                    "no flow has an RTT yet",
                ),
                _history(
                    "Opened connections",
                    "Counted at both ends.",
                    _rates("tcp_opens_total"),
                    "cps",
                    "no connection is opened between them",
                ),
                _history(
                    "Failed connects",
                    "Refused, timed out, unreachable or cancelled.",
                    _rates("tcp_failed_opens_total"),
                    "cps",
                    _NO_FLOW,
                ),
                _history(
                    "Throughput",
                    "TCP payload sent, retransmissions included.",
                    _rates("tcp_sent_bytes_total"),
                    "Bps",
                    "neither end sends data",
                ),
                _history(
                    "Zero windows received",
                    "The sender has to wait, since the other end does not read fast enough.",
                    _rates("tcp_zero_windows_received_total"),
                    "cps",
                    _NO_FLOW,
                ),
            ),
        ),
    ),
)
