"""*Pipeline*: does Flowverdict keep up, does it lose anything, and what does it cost?"""

from dataclasses import replace

from flowverdict_provisioner.board import Board, Panel, Query, Row, Threshold
from flowverdict_provisioner.promql import CLUSTER, CLUSTER_VARIABLE, none_if_up

__all__ = ["PIPELINE"]

_JOBS = f'job=~".*flowverdict.*",{CLUSTER}'
_RATE = "[$__rate_interval]"


def _rates(*metrics: tuple[str, str]) -> tuple[Query, ...]:
    return tuple(
        Query(f"sum(rate({metric}{{{CLUSTER}}}{_RATE}))", legend, chr(ord("A") + number))
        for number, (metric, legend) in enumerate(metrics)
    )


def _losses(*metrics: tuple[str, str, tuple[str, ...]]) -> tuple[Query, ...]:
    """Rates of counters that have no series until their first increment: 0 if all services that
    have them are up, else nothing, since then nobody knows.
    """
    counted = _rates(*((metric, legend) for metric, legend, _ in metrics))
    return tuple(
        replace(query, expr=f"{query.expr} or {none_if_up(services)}")
        for query, (_, _, services) in zip(counted, metrics, strict=True)
    )


_ALL = ("enricher", "exporter", "rca")


PIPELINE = Board(
    uid="flowverdict-pipeline",
    title="Pipeline",
    description="Does Flowverdict keep up, does it lose anything, and what does it cost?",
    variables=(CLUSTER_VARIABLE,),
    rows=(
        Row(
            "Flow of messages",
            (
                Panel(
                    title="Consumer lag",
                    kind="timeseries",
                    description="How long the next message to be delivered to a service has waited. If"
                    " this grows, the service cannot keep up, or what it writes to is unavailable.",
                    queries=(
                        Query(
                            f"max by (job, stream) (flowverdict_consumer_lag_seconds{{{CLUSTER}}})",
                            "{{job}} on {{stream}}",
                        ),
                    ),
                    unit="s",
                    thresholds=(Threshold(0, "green"), Threshold(60, "red")),
                    empty="no consumer is running",
                    width=8,
                ),
                Panel(
                    title="Rows",
                    kind="timeseries",
                    description="Flow records per second through each service.",
                    queries=_rates(
                        ("flowverdict_collector_flows_total", "collector, published"),
                        ("flowverdict_enricher_rows_total", "enricher"),
                        ("flowverdict_exporter_rows_total", "exporter"),
                        ("flowverdict_rca_rows_total", "rca"),
                    ),
                    unit="rowsps",
                    empty="no service is running, or none is scraped",
                    width=8,
                ),
                Panel(
                    title="To InfluxDB",
                    kind="timeseries",
                    description="Points written per second, and points rejected permanently.",
                    queries=_losses(
                        ("flowverdict_influx_points_total", "written", ("influx-writer",)),
                        ("flowverdict_influx_points_refused_total", "rejected", ("influx-writer",)),
                    ),
                    unit="cps",
                    empty="no influx-writer is running",
                    width=8,
                ),
            ),
        ),
        Row(
            "Losses",
            (
                Panel(
                    title="Lost, malformed, failed",
                    kind="timeseries",
                    description="All of these should be zero. Lost in the kernel: more flows than the maps"
                    " hold. Malformed: from another version, or another publisher on the subject.",
                    queries=_losses(
                        (
                            "flowverdict_lost_flow_updates_total",
                            "flow updates lost in the kernel",
                            ("exporter",),
                        ),
                        (
                            "flowverdict_lost_sockets_total",
                            "sockets lost in the kernel",
                            ("exporter",),
                        ),
                        (
                            "flowverdict_lost_messages_total",
                            "messages lost on the way",
                            ("exporter",),
                        ),
                        (
                            "flowverdict_rca_late_rows_total",
                            "rows that came too late to be judged",
                            ("rca",),
                        ),
                        (
                            "flowverdict_uncounted_seconds_total",
                            "seconds in which nothing was counted",
                            ("exporter",),
                        ),
                        ("flowverdict_messages_malformed_total", "malformed messages", _ALL),
                        ("flowverdict_rows_left_out_total", "rows that are impossible", _ALL),
                        ("flowverdict_messages_failed_total", "failed deliveries", _ALL),
                        ("flowverdict_rca_windows_failed_total", "failed windows", ("rca",)),
                        ("flowverdict_retries_total", "retries", _ALL),
                    ),
                    unit="cps",
                    empty="nobody knows: a service is down, or not scraped",
                ),
                Panel(
                    title="Streams",
                    kind="timeseries",
                    description="How full each NATS stream is. When one is full, it keeps less than the"
                    " hour that services may be away.",
                    queries=(
                        Query(
                            f"max by (stream) (flowverdict_stream_stored_bytes{{{CLUSTER}}}"
                            f" / (flowverdict_stream_limit_bytes{{{CLUSTER}}} > 0))",
                            "{{stream}}",
                        ),
                    ),
                    unit="percentunit",
                    empty="no service reads a stream",
                ),
                Panel(
                    title="Series over budget",
                    kind="timeseries",
                    description="Pairs per message that were summed into `other`, by metric. Verdicts"
                    " are not affected.",
                    queries=(
                        Query(
                            "sum by (metric)"
                            f" (rate(flowverdict_exporter_series_overflow_total{{{CLUSTER}}}{_RATE}))",
                            "{{metric}}",
                        ),
                    ),
                    unit="cps",
                    empty="no exporter is running",
                ),
            ),
        ),
        Row(
            "Clocks and history",
            (
                Panel(
                    title="Clocks of nodes",
                    kind="timeseries",
                    description="How far each is behind that of NATS, below zero if it is ahead; zero"
                    " within five seconds. What a node counts is dated by NATS meanwhile.",
                    queries=(
                        Query(
                            "max by (cluster, node)"
                            f" (flowverdict_node_clock_behind_seconds{{{CLUSTER}}})",
                            "{{cluster}} {{node}}",
                        ),
                    ),
                    unit="s",
                    empty="no node has reported: is a collector running?",
                    width=8,
                ),
                Panel(
                    title="InfluxDB's volume",
                    kind="timeseries",
                    description="How full it is. Once it is full, InfluxDB stores nothing until it is"
                    " restarted.",
                    queries=(
                        Query(
                            f"max(flowverdict_influx_stored_bytes{{{CLUSTER}}})"
                            f" / (max(flowverdict_influx_volume_bytes{{{CLUSTER}}}) > 0)",
                            "used",
                        ),
                    ),
                    unit="percentunit",
                    thresholds=(Threshold(0, "green"), Threshold(0.8, "red")),
                    maximum=1,
                    empty="its size is not known, or no influx-writer is running",
                    width=8,
                ),
                Panel(
                    title="Missing in History",
                    kind="timeseries",
                    description="Messages that NATS deleted before they were in InfluxDB, since the"
                    " first start ever.",
                    queries=(
                        Query(f"max(flowverdict_influx_lost_messages{{{CLUSTER}}})", "messages"),
                    ),
                    unit="none",
                    empty="no influx-writer is running",
                    width=8,
                ),
            ),
        ),
        Row(
            "NATS",
            (
                Panel(
                    title="Servers",
                    kind="timeseries",
                    description="1 while a server answers, 0 if it has not for 40 seconds.",
                    queries=(
                        Query(
                            f"max by (cluster, server) (flowverdict_nats_server_up{{{CLUSTER}}})",
                            "{{cluster}} {{server}}",
                        ),
                    ),
                    unit="none",
                    thresholds=(Threshold(0, "red"), Threshold(1, "green")),
                    maximum=1,
                    empty="no NATS server has told the exporter how it is",
                    width=6,
                ),
                Panel(
                    title="Memory of NATS",
                    kind="timeseries",
                    description="Resident memory of each server.",
                    queries=(
                        Query(
                            "max by (cluster, server)"
                            f" (flowverdict_nats_server_memory_bytes{{{CLUSTER}}})",
                            "{{cluster}} {{server}}",
                        ),
                    ),
                    unit="bytes",
                    empty="no NATS server has told the exporter how it is",
                    width=6,
                ),
                Panel(
                    title="Storage of NATS",
                    kind="timeseries",
                    description="How much of what a server may store is used. At 100%, it takes no"
                    " message.",
                    queries=(
                        Query(
                            "max by (cluster, server)"
                            f" (flowverdict_nats_server_stored_bytes{{{CLUSTER}}}"
                            f" / (flowverdict_nats_server_storage_limit_bytes{{{CLUSTER}}} > 0))",
                            "{{cluster}} {{server}}",
                        ),
                    ),
                    unit="percentunit",
                    thresholds=(Threshold(0, "green"), Threshold(0.9, "red")),
                    maximum=1,
                    empty="no NATS server has told the exporter how it is",
                    width=6,
                ),
                Panel(
                    title="Clients that did not keep up",
                    kind="timeseries",
                    description="Clients disconnected because they read too slowly. An enricher that"
                    " misses messages this way knows fewer of the pods behind services.",
                    queries=(
                        Query(
                            "sum by (cluster, server)"
                            f" (rate(flowverdict_nats_server_slow_consumers_total{{{CLUSTER}}}{_RATE}))",
                            "{{cluster}} {{server}}",
                        ),
                    ),
                    unit="cps",
                    empty="no NATS server has told the exporter how it is",
                    width=6,
                ),
            ),
        ),
        Row(
            "Attribution",
            (
                Panel(
                    title="Flow endpoints by kind",
                    kind="timeseries",
                    description="`unknown` is a private address that nothing in the cluster has: can"
                    " the enricher see all pods and nodes?",
                    queries=(
                        Query(
                            f"sum by (kind) (rate(flowverdict_enricher_ends_total{{{CLUSTER}}}{_RATE}))",
                            "{{kind}}",
                        ),
                    ),
                    unit="cps",
                    stacked=True,
                    empty="no enricher is running",
                ),
                Panel(
                    title="Names and pairs",
                    kind="timeseries",
                    description="Pods, nodes and services that the enricher knows, and pairs of"
                    " addresses that have series.",
                    queries=(
                        Query(f"max(flowverdict_enricher_names{{{CLUSTER}}})", "names", "A"),
                        Query(f"sum(flowverdict_exporter_pairs{{{CLUSTER}}})", "pairs", "B"),
                    ),
                    unit="none",
                    empty="no enricher is running",
                ),
            ),
        ),
        Row(
            "Cost",
            (
                Panel(
                    title="CPU",
                    kind="timeseries",
                    description="Cores used by each service, all replicas together.",
                    queries=(
                        Query(
                            f"sum by (job) (rate(process_cpu_seconds_total{{{_JOBS}}}{_RATE}))",
                            "{{job}}",
                        ),
                    ),
                    unit="none",
                    empty="no service is scraped",
                    width=8,
                ),
                Panel(
                    title="Memory",
                    kind="timeseries",
                    description="Resident memory of each service, all replicas together.",
                    queries=(
                        Query(
                            f"sum by (job) (process_resident_memory_bytes{{{_JOBS}}})", "{{job}}"
                        ),
                    ),
                    unit="bytes",
                    empty="no service is scraped",
                    width=8,
                ),
                Panel(
                    title="Draining the kernel map",
                    kind="timeseries",
                    description="How long the collector's read of the kernel map takes, once per second.",
                    queries=(
                        Query(
                            f"max by (instance) (flowverdict_collector_drain_seconds{{{CLUSTER}}})",
                            "{{instance}}",
                        ),
                    ),
                    unit="s",
                    empty="no collector is running",
                    width=8,
                ),
            ),
        ),
    ),
)
