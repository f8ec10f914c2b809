"""*History*: how it was before Prometheus forgot it, from InfluxDB."""

from flowverdict_contracts.signals import MEASUREMENT
from flowverdict_provisioner.declare import Board, Column, Panel, Query, Row
from flowverdict_provisioner.selecting import RATIO_THRESHOLDS

__all__ = ["HISTORY"]

# The data source's own default bucket.
_RANGE = """from(bucket: v.defaultBucket)
  |> range(start: v.timeRangeStart, stop: v.timeRangeStop)"""


def _fields(*names: str) -> str:
    chosen = " or ".join(f'r._field == "{name}"' for name in names)
    return f"""{_RANGE}
  |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and ({chosen}))"""


def _sums(*names: str, by: str) -> str:
    """Sums over time in groups; each series is summed first, which InfluxDB does where it stores."""
    return f"""{_fields(*names)}
  |> aggregateWindow(every: v.windowPeriod, fn: sum, createEmpty: false)
  |> group(columns: ["{by}", "_field", "_time"])
  |> sum()
  |> group(columns: ["{by}"])"""


def _quotient(above: str, below: str, by: str) -> str:
    """Sum of one field by the sum of another, over time, in groups."""
    return f"""{_sums(above, below, by=by)}
  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
  |> filter(fn: (r) => exists r.{above} and exists r.{below} and r.{below} > 0)
  |> map(fn: (r) => ({{r with _value: float(v: r.{above}) / float(v: r.{below})}}))
  |> keep(columns: ["_time", "_value", "{by}"])
  |> sort(columns: ["_time"])"""


HISTORY = Board(
    uid="flowverdict-history",
    title="History",
    description="Days and weeks, from InfluxDB: when did it begin, and what was said then?",
    stores=("influxdb",),
    since="now-24h",
    refresh="",
    rows=(
        Row(
            "Flows",
            (
                Panel(
                    title="Retransmission ratio by namespace",
                    kind="timeseries",
                    description="Segments sent again, of all segments with payload.",
                    queries=(
                        Query(
                            _quotient(
                                "retransmitted_segments", "data_segments_sent", "src_namespace"
                            )
                        ),
                    ),
                    unit="percentunit",
                    thresholds=RATIO_THRESHOLDS,
                    empty="nothing is stored of this time: is an influx-writer running?",
                    store="influxdb",
                ),
                Panel(
                    title="Retransmission ratio by node",
                    kind="timeseries",
                    description="The same by the node that sends.",
                    queries=(
                        Query(
                            _quotient("retransmitted_segments", "data_segments_sent", "src_node")
                        ),
                    ),
                    unit="percentunit",
                    thresholds=RATIO_THRESHOLDS,
                    empty="nothing is stored of this time: is an influx-writer running?",
                    store="influxdb",
                ),
                Panel(
                    title="RTT by node",
                    kind="timeseries",
                    description="Mean of all readings of the smoothed round-trip time.",
                    queries=(Query(_quotient("rtt_us_sum", "rtt_us_samples", "src_node")),),
                    unit="µs",
                    empty="nothing is stored of this time: is an influx-writer running?",
                    store="influxdb",
                ),
                Panel(
                    title="Throughput by namespace",
                    kind="timeseries",
                    description="TCP payload sent.",
                    queries=(
                        Query(f"""{_sums("bytes_sent", by="src_namespace")}
  |> sort(columns: ["_time"])
  |> map(fn: (r) => ({{r with _value: float(v: r._value) * 1000000000.0 / float(v: int(v: v.windowPeriod))}}))"""),
                    ),
                    unit="Bps",
                    empty="nothing is stored of this time: is an influx-writer running?",
                    stacked=True,
                    store="influxdb",
                ),
            ),
        ),
        Row(
            "Pairs and verdicts",
            (
                Panel(
                    title="Pairs that sent most again",
                    kind="table",
                    description="Of the whole time range.",
                    queries=(
                        Query(f"""{_fields("retransmitted_segments")}
  |> sum()
  |> group(columns: ["src_namespace", "src_pod", "dst_namespace", "dst_pod"])
  |> sum()
  |> group()
  |> sort(columns: ["_value"], desc: true)
  |> limit(n: 20)"""),
                    ),
                    columns=(
                        Column("src_namespace", "From namespace"),
                        Column("src_pod", "From pod"),
                        Column("dst_namespace", "To namespace"),
                        Column("dst_pod", "To pod"),
                        Column("_value", "Segments sent again"),
                    ),
                    unit="none",
                    empty="nothing is stored of this time: is an influx-writer running?",
                    store="influxdb",
                ),
                Panel(
                    title="Verdicts",
                    kind="table",
                    description="What was said when an incident opened and when it was resolved.",
                    queries=(
                        Query(f"""{_RANGE}
  |> filter(fn: (r) => r._measurement == "verdict" and r._field == "summary")
  |> filter(fn: (r) => r.status != "ongoing")
  |> group()
  |> sort(columns: ["_time"], desc: true)
  |> limit(n: 100)"""),
                    ),
                    columns=(
                        Column("_time", "Time"),
                        Column("status", "Status"),
                        Column("cause_kind", "Kind"),
                        Column("cause_name", "Cause"),
                        Column("_value", "Verdict"),
                        Column("incident_id", "Incident"),
                    ),
                    unit="none",
                    empty="no verdict in this time",
                    store="influxdb",
                ),
            ),
        ),
    ),
)
