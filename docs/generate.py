"""Writes docs/metrics.md from the code: `.venv/bin/python docs/generate.py > docs/metrics.md`."""

import importlib
import json
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from typing import Any

from flowverdict_contracts.signals import (
    MEASUREMENT,
    METRICS,
    PAIR_LABELS,
    SENDER_LABELS,
    SLOT_SECONDS,
)
from flowverdict_flows.ratios import RATIOS

SERVICES = {
    "collector": "flowverdict_collector.server",
    "enricher": "flowverdict_enricher.server",
    "exporter": "flowverdict_exporter.server",
    "influx-writer": "flowverdict_influx_writer.server",
    "rca": "flowverdict_rca.server",
}
INTRODUCTION = """# Metrics

Every service serves its metrics at `/metrics`, as Prometheus text or OpenMetrics, compressed with
gzip if the client accepts it. This page is generated from the code by `docs/generate.py`.

## Metrics per address pair (exporter)

Labels: {labels}.
Empty labels are omitted. Ports are never labels. Pairs beyond the budget
(`FLOWVERDICT_SERIES_BUDGET` series per metric) are summed in a series with `other` in every label.
A pair that has had no flow for `FLOWVERDICT_EXPIRE_SECONDS` is dropped. After a restart of the
exporter, counters go on from where they were.

Except for drops, a pair's numbers are those of the sockets at `src`, as counted by its own kernel.
In InfluxDB the same numbers are fields of the measurement `{measurement}`, with the labels as tags,
plus the tag `collector`: the node that counted. There is one point per pair for each {slot} seconds
in which it had a flow.
"""

SENDERS = """
### Distributions

A histogram has a series for each bucket, so these are by sender. Labels: {labels}. With
`FLOWVERDICT_PAIR_HISTOGRAMS=on`, the exporter also makes histograms of the metrics by pair; then a
pair has half as many series again ([what that takes](monitoring.md#how-many-series)).
"""

THRESHOLD = """
The threshold above which a flow fails is set only by `FLOWVERDICT_FAIL_RATIO` of the RCA worker.
Rules and dashboards read it from the metric `flowverdict_fail_ratio`, reports from the verdict, and
`flowverdict-tail` from the key `fail_ratio` in the NATS bucket `rca_state`."""


BOTH_ENDS = """
### Both ends

Each end of a connection counts what it sent and what it received, so the difference is what was
lost, in segments. What a node's kernel dropped is counted, too; the rest was lost on the way:

```promql
sum(increase(tcp_segments_sent_total{src_pod="pod-a", dst_pod="pod-b"}[5m]))
  - sum(increase(tcp_segments_received_total{src_pod="pod-b", dst_pod="pod-a"}[5m]))
  - sum(increase(tcp_dropped_packets_total{src_pod="pod-a", dst_pod="pod-b", reason!="socket"}[5m]))
```

What a socket had no room for was received before. The last FIN of a connection and a SYN that is
refused reach no socket, so short connections differ by one each, and a virtual machine's network
card may hand over several segments as one. A verdict's `failing_flows` have the same. Where only
one end is seen, as with the Internet, there is nothing to compare.

### Error rate

Segments that arrived with a wrong checksum, as a share of those sent. Most network cards discard
such frames before any kernel sees them; then they are only missing.

```promql
sum(rate(tcp_dropped_packets_by_kernel_reason_total{reason="TCP_CSUM", dst_node="n1"}[5m]))
  / sum(rate(tcp_segments_sent_total{dst_node="n1"}[5m]))
```
"""


def table(*head: str) -> list[str]:
    """The first lines of a Markdown table."""
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]


def pair_metrics() -> Iterator[str]:
    """The metrics and fields derived from `SIGNALS`."""
    yield from table("metric", "type", "unit", "extra labels", "meaning", "InfluxDB field")
    for metric, signals in METRICS.items():
        first = signals[0]
        if first.kind != "counter":
            name, unit = metric, metric.rpartition("_")[2]
            kind = "summary"
            fields = f"`{first.field}_sum` ({first.unit}), `{first.field}_samples`"
        else:
            name, unit = f"{metric}_total", first.unit
            kind = "counter"
            fields = ", ".join(f"`{signal.field}`" for signal in signals)
            if first.scale != 1:
                unit, fields = metric.rpartition("_")[2], f"{fields} ({first.unit})"
        labels = sorted({f"`{label}`" for signal in signals for label in signal.labels})
        yield (f"| `{name}` | {kind} | {unit} | {', '.join(labels)} | {first.meaning} | {fields} |")


def sender_metrics() -> Iterator[str]:
    """The histograms by sender, and how to have them by pair."""
    yield SENDERS.format(labels=", ".join(f"`{label}`" for label in SENDER_LABELS))
    yield from table("metric", "type", "unit", "distribution of")
    for metric, (first, *_) in METRICS.items():
        if first.sender_metric:
            unit = first.sender_metric.rpartition("_")[2]
            yield f"| `{first.sender_metric}` | histogram | {unit} | `{metric}` |"


def ratios() -> Iterator[str]:
    """The ratios declared in `RATIOS`, in words and in PromQL."""
    yield "\n### Ratios\n"
    yield "Each ratio is a quotient of sums: sum over pairs and time first, then divide.\n"
    yield from table("ratio", "definition", "kernel source", "recording rule")
    for each in RATIOS:
        quotient = " / ".join(
            f"({' + '.join(f'`{name}`' for name in names)})" if len(names) > 1 else f"`{names[0]}`"
            for names in (each.numerator, each.denominator)
        )
        rule = f"`pair:tcp_{each.name}:rate2m`"
        yield f"| **{each.title}** | {quotient}. {each.meaning} | {each.kernel_fields} | {rule} |"
    yield THRESHOLD


def own_metrics() -> Iterator[str]:
    """The services' own metrics; those that several of them share come first."""
    by_service = {
        service: {each["name"]: each for each in _registered(module)}
        for service, module in SERVICES.items()
    }
    names = Counter(name for metrics in by_service.values() for name in metrics)
    common = sorted(name for name, services in names.items() if services > 1)
    yield from _section(
        "Common to all stream readers", [by_service["rca"][name] for name in common]
    )
    for service, metrics in by_service.items():
        own = [metrics[name] for name in sorted(metrics) if name not in common]
        yield from _section(f"Metrics of `{service}`", own)


def _section(title: str, metrics: list[dict[str, Any]]) -> Iterator[str]:
    yield f"\n## {title}\n"
    yield from table("metric", "type", "labels", "meaning")
    for each in metrics:
        labels = ", ".join(f"`{label}`" for label in each["labels"])
        yield f"| `{each['name']}` | {each['type']} | {labels} | {each['meaning']} |"


def _registered(module: str) -> list[dict[str, Any]]:
    """The metrics that a service registers, collected in a separate process."""
    argv = [sys.executable, __file__, module]
    done = subprocess.run(argv, check=True, capture_output=True, text=True)
    found: list[dict[str, Any]] = json.loads(done.stdout)
    return found


def print_registered(module: str) -> None:
    """Print as JSON what importing `module` registers with prometheus_client."""
    # Imported only here: this process lists the metrics of one service.
    from prometheus_client import REGISTRY  # noqa: PLC0415
    from prometheus_client.metrics import MetricWrapperBase  # noqa: PLC0415

    importlib.import_module(module)
    if module.startswith("flowverdict_exporter"):
        for part, name, *arguments in (
            ("incidents", "Incidents"),
            ("nodes", "Nodes"),
            ("nats_servers", "NatsServers"),
            ("lookups", "Lookups", 60),
            ("services", "Services", 60),
        ):
            metrics = getattr(importlib.import_module(f"flowverdict_exporter.{part}"), name)
            REGISTRY.register(metrics(*arguments))
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
        if family.name.startswith(("flowverdict_", "dns_"))
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
    """Print the page or, given a module name, the metrics it registers."""
    if len(sys.argv) > 1:
        print_registered(sys.argv[1])
        return
    labels = ", ".join(f"`{label}`" for label in PAIR_LABELS)
    print(INTRODUCTION.format(labels=labels, measurement=MEASUREMENT, slot=SLOT_SECONDS))
    print("\n".join([*pair_metrics(), *sender_metrics(), *ratios(), BOTH_ENDS, *own_metrics()]))


if __name__ == "__main__":
    main()
