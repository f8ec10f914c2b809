"""A real InfluxDB, in the version that the manifests name, for tests and measurements."""

import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Self

from influxdb_client import Authorization, InfluxDBClient, Permission, PermissionResource

from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process, stop_process
from flowverdict_lab.servers import server_program

__all__ = ["ADMIN_TOKEN", "INFLUXD", "PASSWORD", "PROGRAM", "InfluxDB", "from_grafana"]

PROGRAM = Path(__file__).parents[1] / "deploy/k8s/components/influxdb/set_up_influxdb.py"
ADMIN_TOKEN = "padministrators-token"
PASSWORD = "padministrators-password"


def from_grafana(
    flux: str, hours: float = 0.5, every: str = "1m", by: str = "src_namespace"
) -> str:
    """A panel's query as Grafana sends it, for the last hours and the next minute."""
    now = datetime.now(UTC)
    start, stop = (
        f"{time.isoformat(timespec='seconds').replace('+00:00', 'Z')}"
        for time in (now - timedelta(hours=hours), now + timedelta(minutes=1))
    )
    variables = (
        f'option v = {{defaultBucket: "flowverdict", timeRangeStart: {start}, '
        f"timeRangeStop: {stop}, windowPeriod: {every}}}\n"
    )
    return variables + flux.replace("${by}", by)


INFLUXD = server_program("influxd")
"""The program, if it has been built."""


class InfluxDB:
    """An InfluxDB and its data, which outlive its process.

    Args:
        folder: for its data and log.
        prefix: of the command that starts it.
        arguments: of the program, besides those that it needs.
    """

    def __init__(
        self, folder: Path, prefix: tuple[str, ...] = (), arguments: tuple[str, ...] = ()
    ) -> None:
        self.folder = folder
        self.data = folder / "influxdb"
        self.data.mkdir(exist_ok=True)
        self._prefix = prefix
        self._arguments = arguments
        self._port = free_port()
        self.process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start it and wait until it answers."""
        argv = [*self._prefix, str(INFLUXD), f"--bolt-path={self.data}/influxd.bolt"]
        argv += [f"--engine-path={self.data}/engine", f"--sqlite-path={self.data}/influxd.sqlite"]
        argv += [f"--http-bind-address=127.0.0.1:{self._port}", "--reporting-disabled"]
        argv += self._arguments
        self.process = start_process(argv, self.folder / "influxdb.log")
        deadline = time.monotonic() + 60
        while not self._healthy():
            assert time.monotonic() < deadline, (self.folder / "influxdb.log").read_text()[-2000:]
            time.sleep(0.1)

    def _healthy(self) -> bool:
        try:
            with urllib.request.urlopen(f"{self.url}/health", timeout=5) as answer:
                return bool(json.load(answer)["status"] == "pass")
        except OSError:
            return False

    def stop(self) -> None:
        if self.process is not None:
            stop_process(self.process)
            self.process = None

    def kill(self) -> None:
        """As `kill -9` does."""
        assert self.process is not None
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = None

    def set_up(self, folder: Path, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run the program that the manifests set it up with; the tokens go to `folder`."""
        variables = {
            "INFLUXDB_URL": self.url,
            "INFLUXDB_ADMIN_TOKEN": ADMIN_TOKEN,
            "INFLUXDB_ADMIN_PASSWORD": PASSWORD,
            "OUTPUT_FOLDER": str(folder),
            **environ,
        }
        return subprocess.run(
            [sys.executable, str(PROGRAM)],
            env={**os.environ, **variables},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def client(self, token: str = ADMIN_TOKEN, timeout_seconds: float = 10) -> InfluxDBClient:
        """A client; by default, the administrator's."""
        milliseconds = int(1000 * timeout_seconds)
        return InfluxDBClient(self.url, token, org="flowverdict", timeout=milliseconds)

    def token(self, action: str, bucket: str = "flowverdict") -> str:
        """A new token that allows `action` on the bucket."""
        with self.client() as client:
            found = client.buckets_api().find_bucket_by_name(bucket)
            resource = PermissionResource(type="buckets", id=found.id, org_id=found.org_id)
            allowed = [Permission(action=action, resource=resource)]
            wanted = Authorization(org_id=found.org_id, permissions=allowed)
            return str(client.authorizations_api().create_authorization(authorization=wanted).token)

    def run_task(self, name: str, at: float) -> None:
        """Run a task as if it was that time, in seconds."""
        with self.client() as client:
            (task,) = client.tasks_api().find_tasks(name=name)
        when = datetime.fromtimestamp(at, UTC).isoformat().replace("+00:00", "Z")
        request = urllib.request.Request(
            f"{self.url}/api/v2/tasks/{task.id}/runs",
            json.dumps({"scheduledFor": when}).encode(),
            {"Authorization": f"Token {ADMIN_TOKEN}"},
        )
        urllib.request.urlopen(request, timeout=10).close()

    def query(self, flux: str, token: str = ADMIN_TOKEN) -> list[dict[str, Any]]:
        with self.client(token) as client:
            return [row.values for table in client.query_api().query(flux) for row in table.records]

    def field(self, name: str) -> list[int]:
        """All values of a field of the flows."""
        flux = f"""from(bucket: "flowverdict") |> range(start: 0, stop: 2100-01-01T00:00:00Z)
            |> filter(fn: (r) => r._measurement == "flow" and r._field == "{name}")"""
        return [row["_value"] for row in self.query(flux)]
