"""The panels of *History* on a real InfluxDB with a thousand busy pairs: time, and its memory.

Fifteen minutes of points of a second, as the influx-writer writes them, and a day of the sums of
five minutes that InfluxDB makes of them. All panels are asked for at once, as a browser does.
"""

import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path

import requests
from influxdb_client import InfluxDBClient

from bench.figure import CannotMeasure, Figure
from bench.scrape import pair_rows
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_influx_writer.points import FlowPoints
from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process, stop_process
from flowverdict_lab.servers import server_program
from flowverdict_provisioner.boards.history import HISTORY

__all__ = ["measure"]

_PAIRS = 1000
_SET_UP = Path(__file__).parents[1] / "deploy/k8s/components/influxdb/set_up_influxdb.py"
_TOKEN, _PASSWORD = "pbench-token", "pbench-password"
_AT_ONCE = 20
"""Messages in one request."""


class _InfluxDB:
    """A server of its own, with its data in `folder`."""

    def __init__(self, folder: Path) -> None:
        program = server_program("influxd")
        if not program.exists():
            raise CannotMeasure("InfluxDB has not been built: script/test builds it")
        self._port = free_port()
        self.url = f"http://127.0.0.1:{self._port}"
        self.folder = folder
        argv = [str(program), f"--bolt-path={folder}/influxd.bolt", "--reporting-disabled"]
        argv += [f"--engine-path={folder}/engine", f"--sqlite-path={folder}/influxd.sqlite"]
        argv += [f"--http-bind-address=127.0.0.1:{self._port}"]
        self.process = start_process(argv, folder / "influxdb.log")
        variables = {
            "INFLUXDB_URL": self.url,
            "INFLUXDB_ADMIN_TOKEN": _TOKEN,
            "INFLUXDB_ADMIN_PASSWORD": _PASSWORD,
            "OUTPUT_FOLDER": str(folder),
        }
        subprocess.run(
            [sys.executable, str(_SET_UP)],
            env={**os.environ, **variables},
            check=True,
            capture_output=True,
        )
        self._session = requests.Session()
        self._session.headers["Authorization"] = f"Token {_TOKEN}"

    def write(self, bucket: str, lines: str) -> None:
        parameters = {"org": "flowverdict", "bucket": bucket, "precision": "ns"}
        url = f"{self.url}/api/v2/write"
        answer = self._session.post(url, params=parameters, data=lines.encode(), timeout=60)
        answer.raise_for_status()

    def resident_mebibytes(self) -> float:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) / 1024


def _fill(influxdb: _InfluxDB, bucket: str, start: int, stop: int, step: int) -> None:
    """One point for each pair at each step, as the writer writes them."""
    points, batch = FlowPoints(), pair_rows(_PAIRS)
    lines: list[str] = []
    for number, second in enumerate(range(start, stop, step)):
        header = IntervalHeader("node", "bench", number + 1, second * 10**9, (second + 1) * 10**9)
        lines.append(points.lines(header, batch)[0])
        if len(lines) == _AT_ONCE:
            influxdb.write(bucket, "".join(lines))
            lines = []
    influxdb.write(bucket, "".join(lines))


def _ask(influxdb: _InfluxDB, hours: float, every: str) -> tuple[dict[str, float], float]:
    """Seconds that each panel takes when all are asked for at once, and the most memory."""
    now = datetime.now(UTC)
    start = (now - timedelta(hours=hours)).isoformat().replace("+00:00", "Z")
    stop = now.isoformat().replace("+00:00", "Z")
    variables = (
        f'option v = {{defaultBucket: "flowverdict", timeRangeStart: {start}, '
        f"timeRangeStop: {stop}, windowPeriod: {every}}}\n"
    )
    peak, asking = 0.0, threading.Event()

    def watch() -> None:
        nonlocal peak
        while not asking.wait(0.02):
            peak = max(peak, influxdb.resident_mebibytes())

    def ask(flux: str) -> float:
        began = time.monotonic()
        with InfluxDBClient(influxdb.url, _TOKEN, org="flowverdict", timeout=600_000) as client:
            client.query_api().query_raw(variables + flux).read()
        return time.monotonic() - began

    watching = threading.Thread(target=watch)
    watching.start()
    queries = {panel.title: panel.queries[0].expr for panel in HISTORY.panels}
    with ThreadPoolExecutor(len(queries)) as pool:
        taken = dict(zip(queries, pool.map(ask, queries.values()), strict=True))
    asking.set()
    watching.join()
    return taken, peak


def measure() -> list[Figure]:
    """Time of each panel for 15 minutes and for a day, and InfluxDB's memory meanwhile.

    Raises:
        CannotMeasure: if InfluxDB has not been built.
    """
    with tempfile.TemporaryDirectory() as folder:
        influxdb = _InfluxDB(Path(folder))
        try:
            now = int(time.time())
            print("writing 15 minutes of points of a second", file=sys.stderr)
            _fill(influxdb, "flowverdict", now - 900, now, 1)
            print("writing a day of sums of five minutes", file=sys.stderr)
            _fill(influxdb, "flowverdict_rollup", now - 86_400, now, 300)
            figures = []
            for what, hours, every in (("15 minutes", 0.25, "5s"), ("a day", 24.0, "5m")):
                taken, peak = _ask(influxdb, hours, every)
                figures += [
                    Figure("history", f"{what}: {title}", 1000 * seconds, "ms")
                    for title, seconds in taken.items()
                ]
                figures.append(Figure("history", f"{what}: most memory", peak, "MiB"))
        finally:
            stop_process(influxdb.process)
    return figures
