"""`script/bench [NAME…] [--json FILE]`: run measurements and print them as a table."""

import argparse
import json
import platform
import sys
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

from rich import box
from rich.console import Console
from rich.table import Table

from bench import (
    chaos,
    cost,
    drain,
    history,
    influx,
    influx_storage,
    judging,
    kernel,
    large_cluster,
    loading,
    localise,
    memory,
    prometheus,
    scrape,
    soak,
    throughput,
)
from bench.figure import CannotMeasure, Figure

MEASUREMENTS: dict[str, Callable[[], list[Figure]]] = {
    "throughput": throughput.measure,
    "scrape": scrape.measure,
    "influx": influx.measure,
    "localise": localise.measure,
    "judging": judging.measure,
    "cluster": large_cluster.measure,
    "kernel": kernel.measure,
    "drain": drain.measure,
    "loading": loading.measure,
    "cost": cost.measure,
    "memory": memory.measure,
}
_LONG = {
    "chaos": chaos.measure,
    "history": history.measure,
    "prometheus": prometheus.measure,
    "soak": soak.measure,
    "storage": influx_storage.measure,
}
"""Only if they are asked for."""
_MEANINGS = {
    "throughput": "rows per second through the enricher and the exporter",
    "scrape": "CPU of a Prometheus scrape of 100,000 series",
    "influx": "rows per second through the influx-writer",
    "localise": "time and memory of a whole verdict",
    "judging": "how long the RCA worker takes for each window",
    "cluster": "100,000 pods: time and memory to learn and follow their names",
    "kernel": "nanoseconds per kernel event of the eBPF programs (needs root and eBPF)",
    "drain": "an interval with 65,536 flows: time and memory (needs root and eBPF)",
    "loading": "compiling and loading the eBPF programs (needs root and eBPF)",
    "cost": "what traffic loses while it is counted (needs root and eBPF)",
    "memory": "memory of each service under load",
    "chaos": "ten minutes of kill -9, counts against the kernel's (needs root and eBPF)",
    "history": "panels of History at 1,000 pairs, on a real InfluxDB",
    "prometheus": "series, memory and disk of a real Prometheus, by pairs",
    "storage": "bytes of a point in a real InfluxDB, and what 1,000 pairs need",
    "soak": "half an hour of 20 nodes: rows in and out, growth of memory and descriptors",
}


def main() -> int:
    """Measure what the command line names; returns the exit status."""
    listed = "\n".join(f"  {name:<12}{meaning}" for name, meaning in _MEANINGS.items())
    parser = argparse.ArgumentParser(
        prog="script/bench",
        description="Measures Flowverdict on this machine.",
        epilog=f"measurements:\n{listed}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help="default: all but chaos, history, prometheus, soak and storage",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    arguments = parser.parse_args()
    unknown = set(arguments.names) - set(_MEANINGS)
    if unknown:
        parser.error(f"unknown: {', '.join(sorted(unknown))}; choose from {', '.join(_MEANINGS)}")
    figures: list[Figure] = []
    status = 0
    for name in arguments.names or MEASUREMENTS:
        print(f"measuring: {_MEANINGS[name]} …", file=sys.stderr)
        try:
            figures += (MEASUREMENTS | _LONG)[name]()
        except CannotMeasure as error:
            print(f"script/bench: {name}: {error}", file=sys.stderr)
            status = 1
    machine = (
        f"{platform.machine()}, Linux {platform.release()}, Python {platform.python_version()}"
    )
    table = Table("measurement", "what", box=box.SIMPLE_HEAD, title=machine, title_justify="left")
    table.add_column("value", justify="right")
    table.add_column("unit")
    for figure in figures:
        table.add_row(figure.measurement, figure.what, f"{figure.value:,.0f}", figure.unit)
    Console().print(table)
    if arguments.json:
        document = {"machine": machine, "figures": [asdict(figure) for figure in figures]}
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return status


if __name__ == "__main__":
    sys.exit(main())
