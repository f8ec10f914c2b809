"""Writes what this overlay has of other folders, in the form that the chart's parts take.

The rules of deploy/prometheus as a PrometheusRule, the provisioner's dashboards as JSON for
Grafana's sidecar, and Alertmanager's routes as values for the chart:

    .venv/bin/python deploy/k8s/overlays/kube-prometheus-stack/generate.py
"""

import json
from pathlib import Path

import yaml

from flowverdict_provisioner.boards import BOARDS
from flowverdict_provisioner.dashboard_json import build

HERE = Path(__file__).parent
RULES = HERE.parents[2] / "prometheus" / "rules"
ALERTMANAGER = HERE.parents[2] / "alertmanager/alertmanager.yml"
NOTE = "# Written by generate.py from deploy/prometheus/rules.\n"


def rules() -> str:
    """A PrometheusRule with all groups of deploy/prometheus/rules."""
    groups = [
        group
        for file in sorted(RULES.glob("*.yaml"))
        for group in yaml.safe_load(file.read_text())["groups"]
    ]
    resource = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "flowverdict", "namespace": "flowverdict"},
        "spec": {"groups": groups},
    }
    return NOTE + yaml.safe_dump(resource, sort_keys=False, width=100, allow_unicode=True)


def values() -> str:
    """The chart's values: deploy/alertmanager's configuration, and nobody for the Watchdog."""
    config = yaml.safe_load(ALERTMANAGER.read_text())
    config["route"]["routes"].append({"matchers": ["alertname = Watchdog"], "receiver": "nobody"})
    note = "# Written by generate.py from deploy/alertmanager. Put your own receivers in it.\n"
    return note + yaml.safe_dump({"alertmanager": {"config": config}}, sort_keys=False, width=100)


def files() -> dict[Path, str]:
    """What this program writes: path to text."""
    written = {HERE / "rules.yaml": rules(), HERE / "values.yaml": values()}
    for board in BOARDS:
        model = json.dumps(build(board), indent=1, ensure_ascii=False, sort_keys=True)
        written[HERE / "dashboards" / f"{board.uid}.json"] = model + "\n"
    return written


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
        print(path.relative_to(HERE))
