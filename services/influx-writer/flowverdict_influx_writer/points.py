"""Messages as lines of InfluxDB's line protocol (docs.influxdata.com, line protocol reference).

`influxdb_client.Point` writes a pair's tags once, with every escape they need, and they are kept.
The numbers behind them are written here, since a Point for each would take ten times as long
(`script/bench influx`).
"""

from datetime import datetime

import numpy as np
import pyarrow as pa
from influxdb_client import Point, WritePrecision

from flowverdict_contracts.header import IntervalHeader
from flowverdict_contracts.pairs import NO_PAIR, Pairs
from flowverdict_contracts.signals import MEASUREMENT, PAIR_LABELS, SIGNALS
from flowverdict_contracts.verdicts import Verdict

__all__ = ["FlowPoints", "verdict_point"]

_KNOWN_PAIRS = 100_000
_PART_NS = 1_000_000
"""Parts of one interval may have the same pair. A point's time tells them apart, by a millisecond,
since some stores that speak this protocol keep no finer time."""


def _tags(labels: dict[str, str]) -> str:
    """Labels as tags, each with a comma before it; empty ones are left out."""
    point = Point("m")
    for name, value in labels.items():
        point.tag(name, value)
    line: str = point.field("f", 1).to_line_protocol()
    return line.removeprefix("m").removesuffix(" f=1i")


def _template() -> str:
    fields = []
    for signal in SIGNALS:
        histogram = signal.kind == "histogram"
        names = [f"{signal.field}_sum", f"{signal.field}_samples"] if histogram else [signal.field]
        fields += [f"{name}=%di" for name in names]
    return f"{MEASUREMENT}%s%s {','.join(fields)} %d\n"


_TEMPLATE = _template()


class FlowPoints:
    """Enriched batches to points, one for each pair of addresses in each interval.

    A counter is a field with its sum. A histogram's readings are two fields, their sum and how many
    there were, so that they can be averaged over any time and any group. The same message gives the
    same points, so writing it again changes nothing.
    """

    def __init__(self) -> None:
        self._pairs = Pairs(_KNOWN_PAIRS)
        self._known: dict[int, str] = {}

    def lines(self, header: IntervalHeader, batch: pa.RecordBatch) -> tuple[str, int]:
        """The lines for a message, and how many they are."""
        numbers, rows, inverse = self._pairs.of(batch)
        if (numbers == NO_PAIR).any():
            # Room for all of this message: its pairs in two halves would overwrite each other.
            self._pairs = Pairs(max(_KNOWN_PAIRS, batch.num_rows))
            self._known.clear()
            numbers, rows, inverse = self._pairs.of(batch)
        pairs = len(numbers)
        columns: list[list[int]] = []
        for signal in SIGNALS:
            readings = batch.column(signal.field).to_numpy()[rows]
            columns.append(np.bincount(inverse, readings, pairs).astype(np.int64).tolist())
            if signal.kind == "histogram":
                columns.append(np.bincount(inverse[readings > 0], minlength=pairs).tolist())
        collector = _tags({"collector": header.node})
        time_ns = header.end_ns + (header.part - 1) * _PART_NS
        tags = [self._known.get(number) or self._add(number) for number in numbers.tolist()]
        lines = [
            _TEMPLATE % (tag, collector, *values, time_ns)
            for tag, values in zip(tags, zip(*columns, strict=True), strict=True)
        ]
        return "".join(lines), pairs

    def _add(self, number: int) -> str:
        labels = dict(zip(PAIR_LABELS, self._pairs.labels(number), strict=True))
        tags = self._known[number] = _tags(labels)
        return tags


def verdict_point(verdict: Verdict) -> str:
    """A verdict's line, at the end of its window."""
    end = datetime.fromisoformat(verdict.window.end)
    point = (
        Point("verdict")
        .tag("incident_id", verdict.incident_id)
        .tag("status", verdict.status)
        .field("summary", " ".join(verdict.summary.split()))
        .field("enough_evidence", verdict.enough_evidence)
        .field("failing_flows", verdict.flows.failing)
        .field("ok_flows", verdict.flows.ok)
        .field("undecided_flows", verdict.flows.undecided)
        .field("rows_lost", verdict.coverage.rows_lost)
        .time(end, WritePrecision.NS)
    )
    for cause in verdict.causes[:1]:
        point.tag("cause_kind", cause.kind).tag("cause_name", cause.name)
        point.tag("cause_node", cause.node).tag("direction", cause.direction)
        point.field("score", float(cause.score)).field("explains", float(cause.explains))
        point.field("precision", float(cause.precision)).field("p_value", float(cause.p_value))
    return f"{point.to_line_protocol()}\n"
