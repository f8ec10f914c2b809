"""The panels of *History* on a real InfluxDB with a thousand busy pairs: time, and its memory.

Fifty minutes of sums of ten seconds, as the influx-writer writes them, and a day of the sums of
five minutes that InfluxDB makes of them. All panels are asked for at once, as a browser does.
"""

import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from influxdb_client.client.write_api import SYNCHRONOUS

from bench.figure import CannotMeasure, Figure
from bench.processes import peak_mebibytes
from bench.scrape import pair_rows
from flowverdict_contracts.signals import SLOT_SECONDS
from flowverdict_influx_writer.points import FlowPoints
from flowverdict_provisioner.boards.history import HISTORY
from tests.real_influxdb import INFLUXD, InfluxDB, from_grafana

__all__ = ["measure"]

_PAIRS = 1000
_AT_ONCE = 20
"""Messages in one request."""


def _fill(influxdb: InfluxDB, bucket: str, start: int, stop: int, step: int) -> None:
    """One point for each pair at each step, as the writer writes them."""
    points, batch = FlowPoints(), pair_rows(_PAIRS)
    lines: list[str] = []
    with influxdb.client(timeout_seconds=60) as client, client.write_api(SYNCHRONOUS) as api:
        for number, second in enumerate(range(start, stop, step)):
            lines += points.lines("node", second * 10**9, points.rows(batch))
            if (number + 1) % _AT_ONCE == 0:
                api.write(bucket, record="".join(lines))
                lines = []
        if lines:
            api.write(bucket, record="".join(lines))


def _ask(influxdb: InfluxDB, hours: float, every: str) -> tuple[dict[str, float], float]:
    """Seconds that each panel takes when all are asked for at once, and the most memory, in MiB."""
    assert influxdb.process is not None
    pid = influxdb.process.pid

    def ask(flux: str) -> float:
        began = time.monotonic()
        with influxdb.client(timeout_seconds=600) as client:
            client.query_api().query_raw(from_grafana(flux, hours, every)).read()
        return time.monotonic() - began

    queries = {panel.title: panel.queries[0].expr for panel in HISTORY.panels}
    Path(f"/proc/{pid}/clear_refs").write_text("5")  # its peak begins anew
    with ThreadPoolExecutor(len(queries)) as pool:
        taken = dict(zip(queries, pool.map(ask, queries.values()), strict=True))
    return taken, peak_mebibytes(pid)


def measure() -> list[Figure]:
    """Time of each panel for 50 minutes and for a day, and InfluxDB's memory meanwhile.

    Raises:
        CannotMeasure: if InfluxDB has not been built.
    """
    if not INFLUXD.exists():
        raise CannotMeasure("InfluxDB has not been built: script/test builds it")
    figures = []
    with tempfile.TemporaryDirectory() as name, InfluxDB(folder := Path(name)) as influxdb:
        influxdb.set_up(folder).check_returncode()
        now = int(time.time())
        print("writing 50 minutes of sums of ten seconds", file=sys.stderr)
        _fill(influxdb, "flowverdict", now - 3000, now, SLOT_SECONDS)
        print("writing a day of sums of five minutes", file=sys.stderr)
        _fill(influxdb, "flowverdict_rollup", now - 86_400, now, 300)
        for what, hours, every in (("50 minutes", 50 / 60, "15s"), ("a day", 24.0, "5m")):
            taken, peak = _ask(influxdb, hours, every)
            figures += [
                Figure("history", f"{what}: {title}", 1000 * seconds, "ms")
                for title, seconds in taken.items()
            ]
            figures.append(Figure("history", f"{what}: most memory", peak, "MiB"))
    return figures
