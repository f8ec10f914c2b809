"""Series that leave a cluster's Prometheus carry its name, on a real one and a receiver."""

import json
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import eventually
from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process, stop_process
from flowverdict_lab.servers import server_program

ROOT = Path(__file__).parents[1]
PROMETHEUS = server_program("prometheus")
SHIPPED = ROOT / "deploy/prometheus/kubernetes/prometheus.yml"
WITH_REMOTE_WRITE = ROOT / "deploy/k8s/components/remote-write/prometheus.yml"


@contextmanager
def running(
    folder: Path, port: int, config: dict[str, Any], *argv: str, cluster: str = ""
) -> Iterator[str]:
    """A Prometheus with this configuration; its URL."""
    folder.mkdir()
    (folder / "prometheus.yml").write_text(json.dumps(config))
    command = [str(PROMETHEUS), f"--config.file={folder}/prometheus.yml", *argv]
    command += [f"--storage.tsdb.path={folder}/data", f"--web.listen-address=127.0.0.1:{port}"]
    process = start_process(command, folder / "log", {"FLOWVERDICT_CLUSTER": cluster})
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        stop_process(process)


def asked(url: str, query: str) -> list[dict[str, Any]]:
    try:
        full = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': query})}"
        with urllib.request.urlopen(full, timeout=5) as answer:
            found: list[dict[str, Any]] = json.load(answer)["data"]["result"]
    except OSError:
        return []
    return found


def test_remote_write_is_all_that_the_component_adds() -> None:
    shipped, extended = (yaml.safe_load(e.read_text()) for e in (SHIPPED, WITH_REMOTE_WRITE))
    (remote,) = extended.pop("remote_write")
    assert extended == shipped
    assert remote["url"].startswith("https://")


@pytest.mark.skipif(not PROMETHEUS.exists(), reason="Prometheus has not been built, which needs Go")
async def test_what_is_sent_has_the_clusters_name_and_not_each_pairs_counters(
    tmp_path: Path,
) -> None:
    ports = free_port(), free_port()
    page = tmp_path / "metrics"
    page.write_text("tcp_retransmissions_total 7\nflowverdict_incident_active 1\n")
    serving = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "-d", str(tmp_path)]
    exporter = start_process([*serving, str(exporter_port := free_port())], tmp_path / "exporter")
    config = yaml.safe_load(WITH_REMOTE_WRITE.read_text())
    (remote,) = config["remote_write"]
    (tmp_path / "password").write_text("secret")
    remote["basic_auth"]["password_file"] = str(tmp_path / "password")
    remote["url"] = f"http://127.0.0.1:{ports[0]}/api/v1/write"
    (own,) = [e for e in config["scrape_configs"] if e["job_name"] == "flowverdict-prometheus"]
    targets = [f"127.0.0.1:{port}" for port in (ports[1], exporter_port)]
    own |= {"scrape_interval": "1s", "static_configs": [{"targets": targets}]}
    own |= {"fallback_scrape_protocol": "PrometheusText0.0.4"}
    config |= {"rule_files": [], "alerting": {}, "scrape_configs": [own]}
    with (
        running(tmp_path / "hub", ports[0], {}, "--web.enable-remote-write-receiver") as hub,
        running(tmp_path / "cluster", ports[1], config, cluster="eu-1") as cluster,
    ):
        sent = 'flowverdict_incident_active{cluster="eu-1"}'
        (active,) = await eventually(lambda: asked(hub, sent))
        assert active["metric"]["job"] == "flowverdict-prometheus"
        await eventually(lambda: asked(cluster, "tcp_retransmissions_total"))
        assert asked(hub, "tcp_retransmissions_total") == []
        stop_process(exporter)
