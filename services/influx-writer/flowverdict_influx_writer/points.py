"""Messages as lines of InfluxDB's line protocol (docs.influxdata.com, line protocol reference).

`influxdb_client.Point` formats a pair's tags once, with all the escapes they need, and they are
cached. The fields are formatted here, since a Point for each row would take ten times as long
(`script/bench influx`).
"""

from datetime import datetime
from functools import lru_cache

import numpy as np
import pyarrow as pa
from influxdb_client import Point, WritePrecision

from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.signals import MEASUREMENT, SIGNALS
from flowverdict_contracts.verdicts import Verdict
from flowverdict_flows.pairs import LabelledPairs
from flowverdict_flows.ratios import RETRANSMISSION_RATIO

__all__ = ["FlowPoints", "verdict_point"]

_REMEMBERED_PAIRS = 100_000
_PART_NS = 1_000_000
"""Parts of one interval may have the same pair. Their points' times differ by a millisecond, since
some stores that speak this protocol have no finer resolution."""
_PIECE_NS = 400
"""The pieces of a part, numbered by rows, stay within that millisecond."""


def _tag_text(labels: dict[str, str]) -> str:
    """Labels as tags, each preceded by a comma; empty ones are left out."""
    point = Point("m")
    for name, value in labels.items():
        point.tag(name, value)
    line: str = point.field("f", 1).to_line_protocol()
    return line.removeprefix("m").removesuffix(" f=1i")


def _names() -> list[str]:
    names: list[str] = []
    for signal in SIGNALS:
        reading = (f"{signal.field}_sum", f"{signal.field}_samples")
        names += (signal.field,) if signal.kind == "counter" else reading
    return names


_NAMES = _names()
_BITS = 1 << np.arange(len(_NAMES))
_ALWAYS = np.isin(_NAMES, RETRANSMISSION_RATIO.numerator)


@lru_cache(maxsize=1000)
def _template(chosen: bytes) -> str:
    """A point with these fields, one byte for each."""
    fields = (f"{name}=%di" for name, is_chosen in zip(_NAMES, chosen, strict=True) if is_chosen)
    return f"{MEASUREMENT}%s%s {','.join(fields)} %d\n"


class FlowPoints:
    """Converts enriched batches to points, one for each pair of addresses in each interval.

    A counter becomes a field with its sum. A reading becomes two fields, the sum of the readings
    and their number, so that they can be averaged over any time and any group. Fields that are 0
    are left out, as most of a healthy pair's are, but for what is divided in a ratio. The same
    message gives the same points, so writing it again changes nothing.
    """

    def __init__(self) -> None:
        self._pairs = LabelledPairs()
        self._tags: dict[int, str] = {}

    def lines(self, header: IntervalHeader, batch: pa.RecordBatch) -> tuple[str, int]:
        """The lines for a message, and how many there are."""
        if len(self._pairs) > _REMEMBERED_PAIRS:
            self._pairs.clear()
            self._tags.clear()
        rows = self._pairs.group(batch)
        columns = []
        for signal in SIGNALS:
            columns.append(rows.sums(signal.field))
            if signal.kind != "counter":
                columns.append(rows.samples(signal.field))
        values = np.column_stack(columns).astype(np.int64)
        collector = _tag_text({"collector": header.node})
        time_ns = header.end_ns + (header.part - 1) * _PART_NS + header.piece * _PIECE_NS
        lines: list[str] = []
        shown = (values != 0) | _ALWAYS
        # Few sets of fields occur in a message; each is a number here.
        for number in np.unique(sets := shown @ _BITS).tolist():
            of_set = np.flatnonzero(sets == number)
            chosen = shown[of_set[0]]
            template = _template(chosen.tobytes())
            lines += [
                template % (self._tags_of(pair), collector, *of_pair, time_ns)
                for pair, of_pair in zip(
                    rows.numbers[of_set].tolist(),
                    values[of_set][:, chosen].tolist(),
                    strict=True,
                )
            ]
        return "".join(lines), len(rows.numbers)

    def _tags_of(self, number: int) -> str:
        tags = self._tags.get(number)
        if tags is None:
            tags = self._tags[number] = _tag_text(self._pairs.labels(number))
        return tags


def verdict_point(verdict: Verdict) -> str:
    """A verdict's line, dated at the end of its window."""
    end = datetime.fromisoformat(verdict.window.end)
    point = (
        Point("verdict")
        .tag("incident_id", verdict.incident_id)
        .tag("status", verdict.status)
        .tag("basis", verdict.basis)
        .field("summary", " ".join(verdict.summary.split()))
        .field("enough_evidence", verdict.enough_evidence)
        .field("severity", verdict.severity)
        .field("failing_flows", verdict.flows.failing)
        .field("ok_flows", verdict.flows.ok)
        .field("undecided_flows", verdict.flows.undecided)
        .field("lost_flow_updates", verdict.coverage.lost_flow_updates)
        .field("lost_sockets", verdict.coverage.lost_sockets)
        .field("lost_messages", verdict.coverage.lost_messages)
        .field("fail_ratio", verdict.fail_ratio)
        .time(end, WritePrecision.NS)
    )
    for cause in verdict.causes[:1]:
        point.tag("cause_kind", cause.kind).tag("cause_name", cause.name)
        point.tag("cause_node", cause.node).tag("direction", cause.direction)
        point.field("score", float(cause.score)).field("explains", float(cause.explains))
        point.field("precision", float(cause.precision)).field("p_value", float(cause.p_value))
    return f"{point.to_line_protocol()}\n"
