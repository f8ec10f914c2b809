"""*Service*: the pods behind one service, and who calls them."""

from flowverdict_provisioner.board import Board, Column, Panel, Query, Row, Variable
from flowverdict_provisioner.promql import (
    CLUSTER,
    ONE_CLUSTER_VARIABLE,
    PAIR_RATIO,
    to_pod,
    to_workload,
)

__all__ = ["SERVICE"]

_ADDRESSES = "flowverdict_service_address_info"
_THIS = f'{_ADDRESSES}{{{CLUSTER},service_namespace="$namespace",service_name="$service"}}'
_SENT = "pair:tcp_data_segments_sent:rate2m"
_RETRANSMITTED = "pair:tcp_retransmitted_data_segments:rate2m"
_OPENED, _FAILED = "pair:tcp_opens:rate2m", "pair:tcp_failed_opens:rate2m"
_POD = "cluster, dst_namespace, dst_pod, dst_ip, dst_node"
_CALLER = "cluster, src_namespace, src_workload"


def _flows(series: str, end: str) -> str:
    """The series of flows that have an address of the service at this end."""
    addresses = f'label_replace({_THIS}, "{end}_ip", "$1", "ip", "(.+)")'
    return f"({series}{{{CLUSTER}}} and on (cluster, {end}_ip) {addresses})"


def _ratio(end: str, by: str) -> str:
    """The retransmission ratio of what is sent from or to the service."""
    retransmitted, sent = _flows(_RETRANSMITTED, end), _flows(_SENT, end)
    return f"clamp_max(sum by ({by}) ({retransmitted}) / (sum by ({by}) ({sent}) > 1), 1)"


def _failing(by: str) -> str:
    """The share of the connections to the service that fail."""
    failed, opened = (f"sum by ({by}) ({_flows(each, 'dst')})" for each in (_FAILED, _OPENED))
    return f"{failed} / ({failed} + {opened} > 0)"


def _now(title: str, description: str, expr: str, empty: str) -> Panel:
    return Panel(
        title=title,
        kind="stat",
        description=description,
        queries=(Query(expr),),
        unit="percentunit",
        red_above_fail_ratio=True,
        empty=empty,
        width=8,
        height=4,
    )


_NO_DATA = "nobody sends enough for a ratio (one segment per second)"
_NO_CONNECTIONS = "nobody opens connections to it"

SERVICE = Board(
    uid="flowverdict-service",
    title="Service",
    description="One service: is one of the pods behind it at fault, all of them, or one caller?",
    variables=(
        ONE_CLUSTER_VARIABLE,
        Variable("namespace", "service_namespace", _ADDRESSES, CLUSTER, several=False),
        Variable(
            "service",
            "service_name",
            _ADDRESSES,
            f'{CLUSTER},service_namespace="$namespace"',
            several=False,
        ),
    ),
    since="now-3h",
    rows=(
        Row(
            "Now: flows to the pods behind it, also those that do not use the service's address",
            (
                _now(
                    "Failed connects",
                    "Share of the connections to the service or to its pods that fail.",
                    _failing("cluster"),
                    _NO_CONNECTIONS,
                ),
                _now(
                    "Retransmitted to it",
                    "Retransmission ratio of what callers send.",
                    _ratio("dst", "cluster"),
                    _NO_DATA,
                ),
                _now(
                    "Retransmitted by it",
                    "Retransmission ratio of what its pods send.",
                    _ratio("src", "cluster"),
                    "its pods send less than one data segment per second",
                ),
            ),
        ),
        Row(
            "Which pod, which caller",
            (
                Panel(
                    title="Its pods",
                    kind="table",
                    description="If one of many is bad, suspect that pod or its node; if all are,"
                    " suspect what they have in common. The address without a pod is the service's own:"
                    " nobody answered there.",
                    queries=(
                        Query(_ratio("dst", _POD)),
                        Query(_failing(_POD), ref="B"),
                    ),
                    columns=(
                        Column("dst_pod", "Pod", link=to_pod("dst")),
                        Column("dst_ip", "Address"),
                        Column("dst_node", "Node"),
                        Column("Value #A", "Retransmitted to it", "percentunit"),
                        Column("Value #B", "Failed connects", "percentunit", highest_first=True),
                    ),
                    unit="none",
                    empty="no flow went to this service lately",
                ),
                Panel(
                    title="Its callers",
                    kind="table",
                    description="By workload. If one of many is bad, suspect that caller.",
                    queries=(
                        Query(_ratio("dst", _CALLER)),
                        Query(_failing(_CALLER), ref="B"),
                    ),
                    columns=(
                        Column("src_namespace", "Namespace"),
                        Column("src_workload", "Workload", link=to_workload("src")),
                        Column("Value #A", "Retransmitted by it", "percentunit"),
                        Column("Value #B", "Failed connects", "percentunit", highest_first=True),
                    ),
                    unit="none",
                    empty="no flow went to this service lately",
                ),
            ),
        ),
        Row(
            "History",
            (
                Panel(
                    title="Connections",
                    kind="timeseries",
                    description="Opened to the service or its pods, and failed.",
                    queries=(
                        Query(f"sum({_flows(_OPENED, 'dst')})", "opened", "A"),
                        Query(f"sum({_flows(_FAILED, 'dst')})", "failed", "B"),
                    ),
                    unit="cps",
                    empty=_NO_CONNECTIONS,
                ),
                Panel(
                    title="Retransmission ratio",
                    kind="timeseries",
                    description="By direction.",
                    queries=(
                        Query(_ratio("dst", "cluster"), "sent to it", "A"),
                        Query(_ratio("src", "cluster"), "sent by it", "B"),
                    ),
                    unit="percentunit",
                    red_above_fail_ratio=True,
                    empty=_NO_DATA,
                ),
                Panel(
                    title="Retransmission ratio to each pod",
                    kind="timeseries",
                    description="Of what callers send; the 20 highest.",
                    queries=(
                        Query(
                            f"topk(20, max by (dst_pod, dst_ip) ({_flows(PAIR_RATIO, 'dst')}))",
                            "{{dst_pod}} {{dst_ip}}",
                        ),
                    ),
                    unit="percentunit",
                    red_above_fail_ratio=True,
                    empty=_NO_DATA,
                ),
                Panel(
                    title="Failed connects to each pod",
                    kind="timeseries",
                    description="The 20 with the most.",
                    queries=(
                        Query(
                            f"topk(20, sum by (dst_pod, dst_ip) ({_flows(_FAILED, 'dst')}) > 0)",
                            "{{dst_pod}} {{dst_ip}}",
                        ),
                    ),
                    unit="cps",
                    empty="no connection failed, or no exporter is running",
                ),
            ),
        ),
    ),
)
