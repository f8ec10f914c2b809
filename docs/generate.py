"""Writes docs/metrics.md from the code: `.venv/bin/python docs/generate.py > docs/metrics.md`."""

import importlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from flowverdict_contracts.signals import MEASUREMENT, METRICS, PAIR_LABELS
from flowverdict_flows.ratios import RATIOS

SERVICES = {
    "collector": "flowverdict_collector.server",
    "enricher": "flowverdict_enricher.server",
    "exporter": "flowverdict_exporter.server",
    "influx-writer": "flowverdict_influx_writer.server",
    "rca": "flowverdict_rca.server",
}
INTRODUCTION = """# Metrics

Every service serves its metrics at `/metrics`, as Prometheus text or OpenMetrics, packed with gzip
where the client takes it. This page is made from the code by `docs/generate.py`.

## Of each pair of addresses (exporter)

Labels: {labels}.
Empty ones are left out. A port is never a label. `other` in every label stands for the pairs beyond
the budget (`FLOWVERDICT_SERIES_BUDGET` series of each metric); a pair without a flow for
`FLOWVERDICT_EXPIRE_SECONDS` is dropped. Counters begin at 0 when the exporter starts.

What a pair counts was sent by `src`, as its own kernel saw it. In InfluxDB the same numbers are
fields of the measurement `{measurement}`, with the labels as tags and `collector`, the node that
counted; a point is of one pair in one interval, at the interval's end.
"""

THRESHOLD = """
The threshold above which a flow fails is `FLOWVERDICT_FAIL_RATIO` of the RCA worker and nothing
else: rules and dashboards read it as the metric `flowverdict_fail_ratio`, a report from the
verdict, `flowverdict-tail` from the key `fail_ratio` of the NATS bucket `rca_state`."""


def table(*head: str) -> list[str]:
    """The first lines of a Markdown table."""
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]


def pair_metrics() -> Iterator[str]:
    """What `SIGNALS` become."""
    yield from table("metric", "type", "unit", "more labels", "meaning", "field in InfluxDB")
    for metric, signals in METRICS.items():
        first = signals[0]
        if first.kind == "histogram":
            name, unit = metric, metric.rpartition("_")[2]
            fields = f"`{first.field}_sum` ({first.unit}), `{first.field}_samples`"
        else:
            name, unit = f"{metric}_total", first.unit
            fields = ", ".join(f"`{signal.field}`" for signal in signals)
        labels = sorted({f"`{label}`" for signal in signals for label in signal.labels})
        yield (
            f"| `{name}` | {first.kind} | {unit} | {', '.join(labels)} "
            f"| {first.meaning} | {fields} |"
        )


def ratios() -> Iterator[str]:
    """What `RATIOS` declare, in words and in PromQL."""
    yield "\n### Ratios\n"
    yield "Each is a quotient of sums: add up over pairs and time first, then divide.\n"
    yield from table("ratio", "is", "made from, in the kernel", "recording rule")
    for each in RATIOS:
        quotient = " / ".join(
            f"({' + '.join(f'`{name}`' for name in names)})" if len(names) > 1 else f"`{names[0]}`"
            for names in (each.numerator, each.denominator)
        )
        rule = f"`pair:tcp_{each.name}:rate2m`"
        yield f"| **{each.title}** | {quotient}. {each.meaning} | {each.kernel_fields} | {rule} |"
    yield THRESHOLD


def own_metrics() -> Iterator[str]:
    """What the services say of themselves; what several of them have comes first."""
    by_service = {
        service: {each["name"]: each for each in _registered(module)}
        for service, module in SERVICES.items()
    }
    names = Counter(name for metrics in by_service.values() for name in metrics)
    common = sorted(name for name, services in names.items() if services > 1)
    yield from _section(
        "Of every service that reads a stream", [by_service["rca"][name] for name in common]
    )
    for service, metrics in by_service.items():
        own = [metrics[name] for name in sorted(metrics) if name not in common]
        yield from _section(f"Of the {service}", own)


def _section(title: str, metrics: list[dict[str, Any]]) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield from table("metric", "type", "labels", "meaning")
    for each in metrics:
        labels = ", ".join(f"`{label}`" for label in each["labels"])
        yield f"| `{each['name']}` | {each['type']} | {labels} | {each['meaning']} |"


def _registered(module: str) -> list[dict[str, Any]]:
    """The metrics that a service registers, asked in a process of its own."""
    argv = [sys.executable, __file__, module]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def print_registered(module: str) -> None:
    """Print as JSON what importing `module` registers with prometheus_client."""
    # Only here: this process is asked for one service's own.
    from prometheus_client import REGISTRY  # noqa: PLC0415
    from prometheus_client.metrics import MetricWrapperBase  # noqa: PLC0415

    importlib.import_module(module)
    if module.startswith("flowverdict_exporter"):
        for part, name in (("incidents", "Incidents"), ("nodes", "Nodes")):
            made = getattr(importlib.import_module(f"flowverdict_exporter.{part}"), name)
            REGISTRY.register(made())
        exporter = importlib.import_module("flowverdict_exporter.series")
        text = exporter.PairSeries(1, 60).text(True)
    else:
        text = ""
    found = [
        {
            "name": family.name + ("_total" if family.type == "counter" else ""),
            "type": family.type,
            "meaning": family.documentation,
            "labels": [*getattr(collector, "_labelnames", getattr(family, "_labelnames", ()))],
        }
        for collector in list(REGISTRY._collector_to_names)  # noqa: SLF001 # no public way
        for family in (collector.describe() if isinstance(collector, MetricWrapperBase)
                       else collector.collect())
        if family.name.startswith("flowverdict_")
    ]  # fmt: skip
    for line in text.splitlines():
        if line.startswith("# HELP flowverdict_"):
            name, _, meaning = line.removeprefix("# HELP ").partition(" ")
            counted = name.endswith("overflow")
            found.append(
                {
                    "name": f"{name}_total" if counted else name,
                    "type": "counter" if counted else "gauge",
                    "meaning": meaning,
                    "labels": ["metric"] if counted else [],
                }
            )
    print(json.dumps(found))


def main() -> None:
    """Print the page, or with a module's name what it registers."""
    if len(sys.argv) > 1:
        print_registered(sys.argv[1])
        return
    labels = ", ".join(f"`{label}`" for label in PAIR_LABELS)
    print(INTRODUCTION.format(labels=labels, measurement=MEASUREMENT))
    print("\n".join([*pair_metrics(), *ratios(), *own_metrics()]))


if __name__ == "__main__":
    main()
