"""A real Prometheus, in the version that the manifests name, and what it answers."""

import json
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process, stop_process
from flowverdict_lab.servers import server_program

__all__ = ["PROMTOOL", "Series", "get", "needs_prometheus", "query", "running", "store"]

Series = tuple[str, Mapping[str, str], float]
"""A metric, its labels, and its value."""

_PROMETHEUS = server_program("prometheus")
PROMTOOL = _PROMETHEUS.with_name("promtool")
needs_prometheus = pytest.mark.skipif(
    not _PROMETHEUS.exists(), reason="Prometheus has not been built, which needs Go"
)


@contextmanager
def running(
    folder: Path, config: Mapping[str, Any], *argv: str, port: int = 0, cluster: str = ""
) -> Iterator[str]:
    """A Prometheus with this configuration, its data in `folder/tsdb`; gives its URL."""
    folder.mkdir(exist_ok=True)
    (folder / "prometheus.yml").write_text(json.dumps(config))
    port = port or free_port()
    command = [str(_PROMETHEUS), f"--config.file={folder}/prometheus.yml", *argv]
    command += [f"--storage.tsdb.path={folder}/tsdb", f"--web.listen-address=127.0.0.1:{port}"]
    environ = {"FLOWVERDICT_CLUSTER": cluster}
    process = start_process(command, folder / "prometheus.log", environ)
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop_process(process)


def store(folder: Path, series: Iterable[Series]) -> None:
    """Give a Prometheus that is to run in `folder` ten minutes of these series until now."""
    now, lines = int(time.time()), []
    for metric, labels, value in series:
        named = ",".join(f"{name}={json.dumps(text)}" for name, text in labels.items())
        lines += [f"{metric}{{{named}}} {value} {now - before}" for before in range(600, -1, -15)]
    (folder / "series").write_text("\n".join([*lines, "# EOF", ""]))
    create = ["tsdb", "create-blocks-from", "openmetrics", f"{folder}/series", f"{folder}/tsdb"]
    subprocess.run([PROMTOOL, *create], check=True, capture_output=True)


def get(url: str, path: str) -> Any:
    """The data of an answer of Prometheus' API; empty if it does not answer."""
    try:
        with urllib.request.urlopen(url + path, timeout=5) as answer:
            return json.load(answer)["data"]
    except OSError:
        return {}


def query(url: str, promql: str) -> list[dict[str, Any]]:
    """The series that an expression has now."""
    asked_for = urllib.parse.urlencode({"query": promql})
    found: list[dict[str, Any]] = get(url, f"/api/v1/query?{asked_for}").get("result", [])
    return found
