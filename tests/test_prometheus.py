"""The seed's queries in a real Prometheus, and its offline analysis."""

import json
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import eventually
from flowverdict_lab.cluster import make_cluster
from flowverdict_lab.faults import parse_fault
from flowverdict_lab.machine import why_not_live
from flowverdict_lab.network import Network
from flowverdict_lab.pipeline import Pipeline, free_port, start_process, stop_process

UNPACKED = Path(__file__).parents[1] / ".cache" / "prometheus" / "usr" / "bin" / "prometheus"
PROMETHEUS = str(UNPACKED) if UNPACKED.exists() else shutil.which("prometheus")
REASON = why_not_live()
RCA = str(Path(sys.executable).with_name("flowverdict-rca"))

pytestmark = [
    pytest.mark.skipif(REASON is not None, reason=f"no live run: {REASON}"),
    pytest.mark.skipif(PROMETHEUS is None, reason="there is no Prometheus on this machine"),
]


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[tuple[Network, Pipeline, str]]:
    """The lab with a broken pod-a, the pipeline, and a Prometheus that scrapes its exporter."""
    cluster = make_cluster(4, 2)
    (tmp_path / "logs").mkdir()
    with (
        Network(cluster, tmp_path / "logs") as network,
        Pipeline(tmp_path, cluster.inventory()) as pipeline,
    ):
        config = tmp_path / "prometheus.yml"
        target = f"127.0.0.1:{pipeline.ports['exporter']}"
        config.write_text(
            "global: {scrape_interval: 1s}\n"
            "scrape_configs:\n"
            f"  - {{job_name: flowverdict, static_configs: [{{targets: ['{target}']}}]}}\n"
        )
        port = free_port()
        argv = [str(PROMETHEUS), f"--config.file={config}", f"--storage.tsdb.path={tmp_path}/tsdb"]
        argv += [f"--web.listen-address=127.0.0.1:{port}"]
        process = start_process(argv, tmp_path / "logs" / "prometheus.log")
        try:
            network.start_traffic(10)
            parse_fault("pod-loss", "pod-a", 20, cluster).inject(network)
            yield network, pipeline, f"http://127.0.0.1:{port}"
        finally:
            stop_process(process)


def query(url: str, promql: str) -> list[dict[str, Any]]:
    request = f"{url}/api/v1/query?{urllib.parse.urlencode({'query': promql})}"
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            result: list[dict[str, Any]] = json.load(answer)["data"]["result"]
            return result
    except OSError:
        return []


async def test_the_seeds_queries_return_the_labs_pairs_and_its_analysis_blames_the_pod(
    prometheus: tuple[Network, Pipeline, str], tmp_path: Path
) -> None:
    network, _, url = prometheus
    pods = {pod.ipv4 for pod in network.cluster.pods}
    pairs = {(src, dst) for src in pods for dst in pods if src != dst}
    pod_a, pod_c = network.cluster.pods[0].ipv4, network.cluster.pods[2].ipv4

    def found(promql: str) -> dict[tuple[str, str], float]:
        return {
            (each["metric"]["src_ip"], each["metric"]["dst_ip"]): float(each["value"][1])
            for each in query(url, promql)
            if each["metric"].get("src_ip") in pods
        }

    def failing(values: dict[tuple[str, str], float]) -> set[tuple[str, str]]:
        return {pair for pair, value in values.items() if value > 0}

    involved = {pair for pair in pairs if pod_a in pair}
    total = "sum(tcp_retransmissions_total) by (src_ip, dst_ip)"
    await eventually(lambda: failing(found(total)) >= involved, 60)
    assert set(found(total)) == pairs
    between = f'sum(tcp_retransmissions_total{{src_ip="{pod_a}", dst_ip="{pod_c}"}})'
    assert float(query(url, between)[0]["value"][1]) > 0
    rate = "sum(rate(tcp_retransmissions_total[5m])) by (src_ip, dst_ip)"
    await eventually(lambda: failing(found(rate)) >= involved, 60)
    assert set(found(rate)) == pairs

    file = tmp_path / "tcp_retransmissions.jsonl"
    fetched = subprocess.run(
        [RCA, "fetch", url, "--out", str(file)], capture_output=True, text=True, check=True
    )
    assert str(file) in fetched.stdout
    analysed = subprocess.run(
        [RCA, "analyse", str(file), "--json"], capture_output=True, text=True, check=True
    )
    rules = json.loads(analysed.stdout)["rules"]
    certain = [
        each["antecedents"]
        for each in rules
        if each["consequents"] == ["FAIL"]
        and len(each["antecedents"]) == 1
        and each["confidence"] == 1
    ]
    assert certain == [[pod_a]]
    # A segment sent again by chance makes a healthy pair fail, so FAIL -> pod-a may be less sure.
    from_failure = [
        each["consequents"]
        for each in rules
        if each["antecedents"] == ["FAIL"] and len(each["consequents"]) == 1
    ]
    assert from_failure[0] == [pod_a]
