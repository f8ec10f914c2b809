"""A service's port is declared once, and everything that has to repeat it agrees."""

import re
from pathlib import Path

import pytest
import yaml

from flowverdict_runtime.ports import PORTS

MANIFESTS = [
    *Path("deploy/k8s/base").glob("*.yaml"),
    *Path("deploy/k8s/components").rglob("*.yaml"),
]


@pytest.mark.parametrize("service", PORTS)
def test_manifests_and_prometheus_name_the_port_that_the_service_listens_on(service: str) -> None:
    ports = {
        port["containerPort"]
        for file in MANIFESTS
        for thing in yaml.safe_load_all(file.read_text())
        if thing and thing["kind"] in ("Deployment", "DaemonSet", "StatefulSet")
        for container in thing["spec"]["template"]["spec"]["containers"]
        if container["name"] == service
        for port in container.get("ports", ())
    }
    assert ports == {PORTS[service]}
    for file in ("prometheus.yml", "compose.yml"):
        text = Path("deploy/prometheus", file).read_text()
        assert re.search(rf"flowverdict-{service}\n(?:.*\n)?.*:{PORTS[service]}\b", text), file
