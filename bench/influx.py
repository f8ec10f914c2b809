"""Rows per second through the influx-writer on one core, and points by influxdb_client's Point."""

import time

from influxdb_client import Point

from bench.figure import Figure
from bench.scrape import pair_rows
from flowverdict_contracts import enriched
from flowverdict_contracts.signals import MEASUREMENT, PAIR_LABELS, SIGNALS, SLOT_SECONDS
from flowverdict_influx_writer.points import FlowPoints, summed

__all__ = ["measure"]

_POINTS = 2000
_ROUNDS = 50


def measure() -> list[Figure]:
    """Decode, sum ten seconds by pair and write lines, without NATS and InfluxDB."""
    body = enriched.encode(pair_rows(_POINTS))
    points = FlowPoints()
    points.rows(enriched.decode(body))
    began = time.process_time()
    for _ in range(_ROUNDS // SLOT_SECONDS):
        slot = [points.rows(enriched.decode(body)) for _ in range(SLOT_SECONDS)]
        points.lines("node", 1_000_000_000, summed(slot))
    ours = _POINTS * _ROUNDS / (time.process_time() - began)
    rows = enriched.decode(body).select([*PAIR_LABELS, *(s.field for s in SIGNALS)]).to_pylist()
    began = time.process_time()
    for row in rows:
        point = Point(MEASUREMENT)
        for name in PAIR_LABELS:
            point.tag(name, row[name])
        for signal in SIGNALS:
            point.field(signal.field, row[signal.field])
        point.to_line_protocol()
    library = _POINTS / (time.process_time() - began)
    return [
        Figure("influx", "influx-writer", ours, "rows/s per core"),
        Figure("influx", "influxdb_client.Point", library, "points/s per core"),
    ]
