"""The command `flowverdict-rca`: the service, `fetch`, `analyse` and `report`."""

import sys
from pathlib import Path

from flowverdict_rca import offline
from flowverdict_rca.report.command import ReportError, report
from flowverdict_rca.server import SERVICE
from flowverdict_runtime.lifecycle import parser_of, run_service
from flowverdict_runtime.service_settings import nats_settings
from flowverdict_runtime.settings import SettingsError

__all__ = ["run"]

DEFAULT_FILE = Path("tcp_retransmissions.jsonl")
REPORT_FILE = Path("report.html")


def fraction(text: str) -> float:
    value = float(text)
    if not 0 < value <= 1:
        raise ValueError
    return value


def _minutes(text: str) -> float:
    value = float(text)
    if not 0 < value < 1e7:
        raise ValueError
    return value


def run() -> int:
    """Parse the command line and do what it says; returns the exit status."""
    parser = parser_of(SERVICE)
    commands = parser.add_subparsers(dest="command", title="commands (default: run the service)")
    fetch = commands.add_parser(
        "fetch", help="save retransmission counters from Prometheus to a file"
    )
    fetch.add_argument("url", metavar="PROMETHEUS_URL", help="for example http://localhost:9090")
    fetch.add_argument("--minutes", type=_minutes, default=120, help="how far back (default: 120)")
    fetch.add_argument("--out", type=Path, default=DEFAULT_FILE, help=f"default: {DEFAULT_FILE}")
    analyse = commands.add_parser(
        "analyse",
        help="print itemsets and rules from a fetched file; a pair with any retransmission FAILs",
    )
    analyse.add_argument("file", type=Path, metavar="FILE")
    analyse.add_argument("--min-support", type=fraction, default=0.2, help="default: 0.2")
    analyse.add_argument("--min-confidence", type=fraction, default=0.7, help="default: 0.7")
    analyse.add_argument("--json", action="store_true", help="one JSON document")
    report_ = commands.add_parser("report", help="write one HTML file about an incident")
    report_.add_argument("--incident", metavar="ID", help="default: the newest")
    report_.add_argument("--out", type=Path, default=REPORT_FILE, help=f"default: {REPORT_FILE}")
    report_.add_argument(
        "--nats",
        metavar="URL",
        help="NATS server (default: FLOWVERDICT_NATS_URL, or nats://127.0.0.1:4222)",
    )
    arguments = parser.parse_args()
    try:
        if arguments.command == "fetch":
            count = offline.fetch(arguments.url, arguments.out, arguments.minutes)
            print(f"{count} series saved to {arguments.out}")
            return 0
        if arguments.command == "analyse":
            offline.analyse(
                arguments.file, arguments.min_support, arguments.min_confidence, arguments.json
            )
            return 0
        if arguments.command == "report":
            incident_id = report(nats_settings(arguments.nats), arguments.incident, arguments.out)
            print(f"incident {incident_id}: {arguments.out}")
            return 0
    except (offline.OfflineError, ReportError, SettingsError) as error:
        print(f"flowverdict-rca: {error}", file=sys.stderr)
        return 1
    return run_service(SERVICE, arguments.check)
