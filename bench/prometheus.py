"""Series and memory of a real Prometheus, by pairs: the shipped rules over busy, healthy pairs.

It scrapes an exporter's page as often as it can rather than every five seconds, so that it soon
holds as many samples of a series in memory as it ever does, and counts what they take on disk.
"""

import http.client
import json
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from bench.figure import CannotMeasure, Figure
from bench.processes import peak_mebibytes
from bench.scrape import pair_rows
from flowverdict_exporter.series import PairSeries
from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process, stop_process
from flowverdict_lab.servers import server_program

__all__ = ["measure"]

_PAIRS = (1000, 3000, 8000)
_UNLIMITED = 10_000_000
_SCRAPES = 150
"""A chunk has up to 120 samples; those before are in files."""
_SHIPPED_SCRAPE_SECONDS = 5
_PAIRS_A_SECOND = 2500
"""That this machine can show and scrape."""
_MEMORY_LIMIT = 3 << 30
"""The manifest's; Prometheus tells Go to stay below nine tenths of it."""
_MEANS = {
    "segments_sent": 60, "segments_received": 60, "data_segments_sent": 40, "bytes_sent": 40_000,
    "bytes_received": 25_000, "rtt_us": 750, "rtt_variation_us": 200, "minimum_rtt_us": 225,
    "answers": 20, "answers_us": 30_000, "path_mtu_bytes": 1500, "mss": 1448, "opens": 2,
    "connect_us": 450,
}  # fmt: skip
"""Of a row."""


class _Page:
    """What an exporter shows, with more counted at each scrape."""

    def __init__(self, pairs: int) -> None:
        self._names = pair_rows(pairs)
        self._series = PairSeries(_UNLIMITED, 3600)
        self._random = np.random.default_rng(1)
        self._lock = threading.Lock()
        self.scrapes = 0

    def text(self) -> bytes:
        with self._lock:
            self._series.add(self._rows())
            self.scrapes += 1
            return self._series.text(False).encode()

    def _rows(self) -> pa.RecordBatch:
        schema, rows = self._names.schema, self._names.num_rows
        columns = self._names.columns
        for at, field in enumerate(schema):
            if pa.types.is_integer(field.type):
                values = _MEANS.get(field.name, 0) * self._random.uniform(0.5, 1.5, rows)
                columns[at] = pa.array(values.astype(np.int64), field.type, safe=False)
        return pa.RecordBatch.from_arrays(columns, schema=schema)


@contextmanager
def _served(page: _Page) -> Iterator[int]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = page.text()
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _prometheus(
    folder: Path, exporter: int, every: int
) -> Iterator[tuple[subprocess.Popen[bytes], int]]:
    shutil.copytree("deploy/prometheus/rules", folder / "rules")
    config = {
        "global": {"scrape_interval": f"{every}s", "scrape_timeout": f"{every}s"},
        "rule_files": [f"{folder}/rules/*.yaml"],
        "scrape_configs": [
            {
                "job_name": "flowverdict-exporter",
                "static_configs": [{"targets": [f"127.0.0.1:{exporter}"]}],
            }
        ],
    }
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = free_port()
    argv = [
        str(server_program("prometheus")),
        f"--config.file={folder}/prometheus.yml",
        f"--storage.tsdb.path={folder}/data",
        f"--web.listen-address=127.0.0.1:{port}",
        "--web.enable-admin-api",
    ]
    limit = {"GOMEMLIMIT": str(int(0.9 * _MEMORY_LIMIT))}
    process = start_process(argv, folder / "prometheus.log", limit)
    try:
        yield process, port
    finally:
        stop_process(process)


def _ask(port: int, method: str, path: str) -> Any:
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=120)) as connection:
        connection.request(method, path)
        return json.load(connection.getresponse())["data"]


def _measure(pairs: int) -> list[Figure]:
    page, every = _Page(pairs), -(-pairs // _PAIRS_A_SECOND)
    with (
        tempfile.TemporaryDirectory() as name,
        _served(page) as exporter,
        _prometheus(Path(name), exporter, every) as (process, port),
    ):
        deadline = time.monotonic() + 20 * _SCRAPES
        while page.scrapes < _SCRAPES:
            if process.poll() is not None or time.monotonic() > deadline:
                raise CannotMeasure("Prometheus ended, or is too slow for so many series")
            time.sleep(1)
        status = _ask(port, "GET", "/api/v1/status/tsdb")["headStats"]
        memory = peak_mebibytes(process.pid)
        taken = _ask(port, "POST", "/api/v1/admin/tsdb/snapshot")["name"]
        snapshot = Path(name) / "data/snapshots" / taken
        samples = sum(
            json.loads(each.read_text())["stats"]["numSamples"]
            for each in snapshot.rglob("meta.json")
        )
        on_disk = sum(each.stat().st_size for each in snapshot.rglob("chunks/*"))
        shown = len([line for line in page.text().splitlines() if not line.startswith(b"#")])
    series = status["numSeries"]
    day = shown * 86_400 / _SHIPPED_SCRAPE_SECONDS * on_disk / samples
    found = {
        "series of the exporter": (shown, "series"),
        "with those of the rules": (series, "series"),
        "most memory": (memory, "MiB"),
        "memory of a series": (memory * (1 << 20) / series, "bytes"),
        "a day on disk": (day / (1 << 20), "MiB"),
    }
    return [
        Figure("prometheus", f"{pairs:,} pairs: {what}", value, unit)
        for what, (value, unit) in found.items()
    ]


def measure() -> list[Figure]:
    """Series, memory and bytes on disk for each number of pairs.

    Raises:
        CannotMeasure: if Prometheus has not been built.
    """
    if not server_program("prometheus").exists():
        raise CannotMeasure("Prometheus has not been built: script/test builds it")
    figures = []
    for pairs in _PAIRS:
        print(f"scraping {pairs:,} pairs", file=sys.stderr)
        figures += _measure(pairs)
    return figures
