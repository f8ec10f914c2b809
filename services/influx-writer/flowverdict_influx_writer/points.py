"""Messages as lines of InfluxDB's line protocol (docs.influxdata.com, line protocol reference).

`influxdb_client.Point` formats a pair's tags once, with all the escapes they need, and they are
cached. The fields are formatted here, since a Point for each row would take ten times as long
(`script/bench influx`).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from influxdb_client import Point, WritePrecision

from flowverdict_contracts.signals import MEASUREMENT, SIGNALS
from flowverdict_contracts.verdicts import Verdict
from flowverdict_flows.pairs import LabelledPairs, Numbers
from flowverdict_flows.ratios import RETRANSMISSION_RATIO

__all__ = ["FIELDS", "FlowPoints", "Rows", "summed", "verdict_point"]

_REMEMBERED_PAIRS = 100_000

Counts = npt.NDArray[np.int64]


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


FIELDS = _names()
"""The columns of `Rows.values`: fields of a point."""
_BITS = 1 << np.arange(len(FIELDS))
_ALWAYS = np.isin(FIELDS, RETRANSMISSION_RATIO.numerator)


@lru_cache(maxsize=1000)
def _template(chosen: bytes) -> str:
    """A point with these fields, one byte for each."""
    fields = (f"{name}=%di" for name, is_chosen in zip(FIELDS, chosen, strict=True) if is_chosen)
    return f"{MEASUREMENT}%s%s {','.join(fields)} %d\n"


@dataclass(frozen=True, slots=True)
class Rows:
    """What a batch counts, by pair.

    Attributes:
        numbers: of the pairs, each once.
        values: a row for each pair, a column for each field.
    """

    numbers: Numbers
    values: Counts


def summed(rows: Sequence[Rows]) -> Rows:
    """The sums of several batches' rows by pair."""
    numbers, positions = np.unique(
        np.concatenate([each.numbers for each in rows]), return_inverse=True
    )
    values: Counts = np.zeros((len(numbers), len(FIELDS)), np.int64)
    np.add.at(values, positions, np.concatenate([each.values for each in rows]))
    return Rows(numbers, values)


class FlowPoints:
    """Converts enriched batches to points.

    A counter becomes a field with its sum. A reading becomes two fields, the sum of the readings
    and their number, so that they can be averaged over any time and any group. Fields that are 0
    are left out, as most of a healthy pair's are, but for what is divided in a ratio.
    """

    def __init__(self) -> None:
        self._pairs = LabelledPairs()
        self._tags: dict[int, str] = {}

    @property
    def is_full(self) -> bool:
        """Whether it remembers as many pairs as it should, and `forget` is due."""
        return len(self._pairs) > _REMEMBERED_PAIRS

    def forget(self) -> None:
        """Forget all pairs; rows that were returned before must not be used again."""
        self._pairs.clear()
        self._tags.clear()

    def rows(self, batch: pa.RecordBatch) -> Rows:
        """The sums of an enriched batch by pair."""
        rows = self._pairs.group(batch)
        columns = []
        for signal in SIGNALS:
            columns.append(rows.sums(signal.field))
            if signal.kind != "counter":
                columns.append(rows.samples(signal.field))
        return Rows(rows.numbers, np.column_stack(columns).astype(np.int64))

    def lines(self, collector: str, time_ns: int, rows: Rows) -> list[str]:
        """A point with this time for each pair, as a line."""
        numbers, values = rows.numbers, rows.values
        tag = _tag_text({"collector": collector})
        lines: list[str] = []
        shown = (values != 0) | _ALWAYS
        # Few sets of fields occur in a message; each is a number here.
        for number in np.unique(sets := shown @ _BITS).tolist():
            of_set = np.flatnonzero(sets == number)
            chosen = shown[of_set[0]]
            template = _template(chosen.tobytes())
            lines += [
                template % (self._tags_of(pair), tag, *of_pair, time_ns)
                for pair, of_pair in zip(
                    numbers[of_set].tolist(),
                    values[of_set][:, chosen].tolist(),
                    strict=True,
                )
            ]
        return lines

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
