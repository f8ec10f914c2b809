"""What a point takes on InfluxDB's disk, and so how long a volume lasts.

Six hours of a thousand busy pairs with every signal that a healthy pair has, each value by chance
between half of its mean and one and a half, once in points of ten seconds, as the influx-writer
writes them, and once in points of a second whose times are not regular, as it did before.
"""

import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from influxdb_client.client.write_api import SYNCHRONOUS

from bench.figure import CannotMeasure, Figure
from bench.scrape import pair_rows
from flowverdict_contracts.signals import SLOT_SECONDS
from flowverdict_influx_writer.points import FIELDS, FlowPoints, Rows
from tests.real_influxdb import INFLUXD, InfluxDB

__all__ = ["measure"]

_PAIRS = 1000
_SECONDS = 6 * 3600
_IRREGULAR_SECONDS = 1800
"""Points of a second: there are ten times as many."""
_NS = 10**9
_MEANS = {
    "segments_sent": 60, "segments_received": 60, "data_segments_sent": 40, "bytes_sent": 40_000,
    "bytes_received": 25_000, "rtt_us_sum": 3_000, "rtt_us_samples": 4,
    "rtt_variation_us_sum": 800, "rtt_variation_us_samples": 4, "minimum_rtt_us_sum": 900,
    "minimum_rtt_us_samples": 4, "answers": 20, "answers_us": 30_000, "path_mtu_bytes_sum": 6_000,
    "path_mtu_bytes_samples": 4, "mss_sum": 5_792, "mss_samples": 4, "opens": 2,
    "connect_us_sum": 900, "connect_us_samples": 2,
}  # fmt: skip
"""Of a second."""
_COMPACT_AT_ONCE = (
    "--storage-cache-snapshot-write-cold-duration=1s",
    "--storage-compact-full-write-cold-duration=1s",
)
_DAYS, _ROLLED_UP_DAYS, _ROLLED_UP_SECONDS = 30, 365, 300


def _slots(seconds: int, step: int, *, regular: bool) -> Iterator[list[str]]:
    """The lines of each slot."""
    random = np.random.default_rng(1)
    points, pairs = FlowPoints(), pair_rows(_PAIRS)
    numbers = points.rows(pairs).numbers
    means = np.array([_MEANS.get(name, 0) for name in FIELDS]) * step
    start = int(time.time()) // SLOT_SECONDS * SLOT_SECONDS - seconds
    for second in range(start, start + seconds, step):
        values = (means * random.uniform(0.5, 1.5, (_PAIRS, len(means)))).astype(np.int64)
        jitter = 0 if regular else int(random.integers(0, 5_000_000))
        yield points.lines("node", second * _NS + jitter, Rows(numbers, values))


def _bytes_a_point(seconds: int, step: int, *, regular: bool) -> float:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with InfluxDB(folder, arguments=_COMPACT_AT_ONCE) as influxdb:
            influxdb.set_up(folder).check_returncode()
            points = 0
            with (
                influxdb.client(timeout_seconds=60) as client,
                client.write_api(SYNCHRONOUS) as api,
            ):
                chunk: list[str] = []
                for lines in _slots(seconds, step, regular=regular):
                    chunk += lines
                    points += len(lines)
                    if len(chunk) >= 20 * _PAIRS:
                        api.write("flowverdict", record="".join(chunk))
                        chunk = []
                if chunk:
                    api.write("flowverdict", record="".join(chunk))
            return _compacted_bytes(influxdb.data / "engine/data") / points


def _compacted_bytes(folder: Path) -> int:
    """Once each shard is one file that does not change any more."""
    deadline, before = time.monotonic() + 300, -1
    while time.monotonic() < deadline:
        time.sleep(5)
        files = list(folder.rglob("*.tsm"))
        now = sum(each.stat().st_size for each in files)
        if now == before and len({each.parent for each in files}) == len(files) > 0:
            return now
        before = now
    raise CannotMeasure("InfluxDB has not compacted its files within five minutes")


def measure() -> list[Figure]:
    """Bytes a point, and what a thousand pairs need for 30 days and a year of sums.

    Raises:
        CannotMeasure: if InfluxDB has not been built.
    """
    if not INFLUXD.exists():
        raise CannotMeasure("InfluxDB has not been built: script/test builds it")
    print("writing half an hour of points of a second", file=sys.stderr)
    before = _bytes_a_point(_IRREGULAR_SECONDS, 1, regular=False)
    print("writing six hours of points of ten seconds", file=sys.stderr)
    bytes_a_point = _bytes_a_point(_SECONDS, SLOT_SECONDS, regular=True)
    day = 86_400 * _PAIRS
    raw = _DAYS * day / SLOT_SECONDS * bytes_a_point
    rolled_up = _ROLLED_UP_DAYS * day / _ROLLED_UP_SECONDS * bytes_a_point
    gib = 1 << 30
    return [
        Figure("storage", "a point of a second at an irregular time", before, "bytes"),
        Figure("storage", "a point of ten seconds", bytes_a_point, "bytes"),
        Figure("storage", "1,000 pairs, 30 days of points of a second",
               _DAYS * day * before / gib, "GiB"),
        Figure("storage", "1,000 pairs, 30 days", raw / gib, "GiB"),
        Figure("storage", "1,000 pairs, a year of sums of five minutes", rolled_up / gib, "GiB"),
    ]  # fmt: skip
