"""Series that leave a cluster's Prometheus carry its name, on a real one and a receiver."""

import sys
from pathlib import Path

import yaml

from conftest import eventually
from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process, stop_process
from tests.real_prometheus import needs_prometheus, query, running

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "deploy/prometheus/kubernetes/prometheus.yml"
WITH_REMOTE_WRITE = ROOT / "deploy/k8s/components/remote-write/prometheus.yml"


def test_remote_write_is_all_that_the_component_adds() -> None:
    shipped, extended = (yaml.safe_load(e.read_text()) for e in (SHIPPED, WITH_REMOTE_WRITE))
    (remote,) = extended.pop("remote_write")
    assert extended == shipped
    assert remote["url"].startswith("https://")


@needs_prometheus
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
        running(tmp_path / "hub", {}, "--web.enable-remote-write-receiver", port=ports[0]) as hub,
        running(tmp_path / "cluster", config, port=ports[1], cluster="eu-1") as cluster,
    ):
        sent = 'flowverdict_incident_active{cluster="eu-1"}'
        (active,) = await eventually(lambda: query(hub, sent))
        assert active["metric"]["job"] == "flowverdict-prometheus"
        await eventually(lambda: query(cluster, "tcp_retransmissions_total"))
        assert query(hub, "tcp_retransmissions_total") == []
        stop_process(exporter)
