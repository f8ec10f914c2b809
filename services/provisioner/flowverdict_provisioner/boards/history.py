"""*History*: days and weeks of data from InfluxDB, beyond what Prometheus keeps."""

from collections.abc import Sequence

from flowverdict_contracts.signals import MEASUREMENT, SLOT_SECONDS
from flowverdict_flows.ratios import RETRANSMISSION_RATIO, Ratio
from flowverdict_provisioner.board import Board, Choice, Column, Panel, Query, Row

__all__ = ["HISTORY"]

# More than an hour comes from the sums of five minutes that set_up_influxdb.py has InfluxDB make; beside
# the data source's own default bucket. A window that cut through what is summed would be a spike.
_LONG = f"""rolled_up = int(v: v.timeRangeStop) - int(v: v.timeRangeStart) > {3600 * 10**9}
summed = if rolled_up then {300 * 10**9} else {SLOT_SECONDS * 10**9}
every = duration(v: (int(v: v.windowPeriod) + summed - 1) / summed * summed)
"""
_DIMENSIONS = Choice(
    "by",
    "By",
    {
        "namespace": "src_namespace",
        "workload": "src_workload",
        "node": "src_node",
        "zone": "src_zone",
        "labels": "src_labels",
    },
)
_BY = f"${{{_DIMENSIONS.name}}}"
_RANGE = """|> range(start: v.timeRangeStart, stop: v.timeRangeStop)"""


def _fields(*names: str) -> str:
    chosen = " or ".join(f'r._field == "{name}"' for name in names)
    return f"""{_LONG}from(bucket: if rolled_up then v.defaultBucket + "_rollup" else v.defaultBucket)
  {_RANGE}
  |> filter(fn: (r) => r._measurement == "{MEASUREMENT}" and ({chosen}))"""


def _sums(*names: str, by: str) -> str:
    """Grouped sums over time.

    Each series is summed first, which InfluxDB does in its storage; grouping by time as well would
    make a table of each window and group, which took a hundred times as long.
    """
    window = "aggregateWindow(every: every, fn: sum, createEmpty: false"
    return f"""{_fields(*names)}
  |> {window}, timeSrc: "_start")
  |> group(columns: ["{by}", "_field"])
  |> {window})
  |> group(columns: ["{by}"])"""


def _quotient(above: Sequence[str], below: Sequence[str], by: str, at_most: float | None) -> str:
    """Grouped sums of fields divided by sums of other fields, over time."""
    numerator, denominator = (" + ".join(f"r.{name}" for name in each) for each in (above, below))
    present = " and ".join(f"exists r.{name}" for name in (*above, *below))
    quotient = f"float(v: {numerator}) / float(v: {denominator})"
    limited = quotient
    if at_most is not None:
        limited = f"if {quotient} > {at_most:.1f} then {at_most:.1f} else {quotient}"
    return f"""{_sums(*above, *below, by=by)}
  |> pivot(rowKey: ["_time"], columnKey: ["_field"], valueColumn: "_value")
  |> filter(fn: (r) => {present} and {denominator} > 0)
  |> map(fn: (r) => ({{r with _value: {limited}}}))
  |> keep(columns: ["_time", "_value", "{by}"])
  |> sort(columns: ["_time"])"""


def _ratio(by: str, ratio: Ratio = RETRANSMISSION_RATIO) -> str:
    """A ratio as `flowverdict_flows.ratios` defines it."""
    return _quotient(ratio.numerator, ratio.denominator, by, ratio.at_most)


HISTORY = Board(
    uid="flowverdict-history",
    title="History",
    description="Days and weeks, from InfluxDB: when did it start, and what was the verdict? Ranges of more than an hour are sums of five minutes, which are complete after ten.",
    choices=(_DIMENSIONS,),
    stores=("influxdb",),
    since="now-24h",
    refresh="",
    rows=(
        Row(
            "Flows",
            (
                Panel(
                    title="Retransmission ratio",
                    kind="timeseries",
                    description="Share of the data segments sent that are retransmissions, by sender.",
                    queries=(Query(_ratio(_BY)),),
                    unit="percentunit",
                    red_above_fail_ratio=True,
                    empty="nothing stored for this time range: is an influx-writer running?",
                    store="influxdb",
                ),
                Panel(
                    title="RTT",
                    kind="timeseries",
                    description="Mean of all samples of the smoothed round-trip time, by sender.",
                    queries=(Query(_quotient(["rtt_us_sum"], ["rtt_us_samples"], _BY, None)),),
                    unit="µs",
                    empty="nothing stored for this time range: is an influx-writer running?",
                    store="influxdb",
                ),
                Panel(
                    title="Throughput",
                    kind="timeseries",
                    description="TCP payload sent, by sender.",
                    queries=(
                        Query(f"""{_sums("bytes_sent", by=_BY)}
  |> sort(columns: ["_time"])
  |> map(fn: (r) => ({{r with _value: float(v: r._value) * 1000000000.0 / float(v: int(v: every))}}))"""),
                    ),
                    unit="Bps",
                    empty="nothing stored for this time range: is an influx-writer running?",
                    stacked=True,
                    width=24,
                    store="influxdb",
                ),
            ),
        ),
        Row(
            "Pairs and verdicts",
            (
                Panel(
                    title="Pairs with the most retransmissions",
                    kind="table",
                    description="Over the whole time range.",
                    queries=(
                        Query(f"""{_fields("retransmitted_data_segments")}
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
                        Column("_value", "Retransmitted data segments"),
                    ),
                    unit="none",
                    empty="nothing stored for this time range: is an influx-writer running?",
                    store="influxdb",
                ),
                Panel(
                    title="Verdicts",
                    kind="table",
                    description="Verdicts that opened or resolved an incident.",
                    queries=(
                        Query(f"""from(bucket: v.defaultBucket)
  {_RANGE}
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
                        Column("basis", "Judged"),
                        Column("_value", "Verdict"),
                        Column("incident_id", "Incident"),
                    ),
                    unit="none",
                    empty="no verdict in this time range",
                    store="influxdb",
                ),
            ),
        ),
    ),
)
