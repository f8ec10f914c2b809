"""The command `flowverdict-rca`: the service, `fetch`, `analyse` and `report`."""

import os
from pathlib import Path

from flowverdict_rca.offline import analyse
from flowverdict_rca.prometheus import fetch
from flowverdict_rca.report.command import ReportError, report
from flowverdict_rca.series import OfflineError
from flowverdict_rca.server import SERVICE
from flowverdict_runtime.lifecycle import parser_of, run_service
from flowverdict_runtime.service_settings import nats_settings
from flowverdict_runtime.settings import SettingsError
from flowverdict_runtime.terminal import complain, printable

__all__ = ["run"]

_TOKEN = "FLOWVERDICT_PROMETHEUS_TOKEN"  # noqa: S105 # a variable's name
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


def _headers(token_file: Path | None, tenant: str | None) -> dict[str, str]:
    """What a request to Prometheus carries."""
    headers = {"X-Scope-OrgID": tenant} if tenant else {}
    token = os.environ.get(_TOKEN, "").strip()
    if token_file is not None:
        try:
            token = token_file.read_text().strip()
        except (OSError, UnicodeDecodeError) as error:
            raise OfflineError(f"{token_file}: {error}") from None
    if token and not (token.isascii() and token.isprintable()):
        raise OfflineError(f"{token_file or _TOKEN} does not hold one line of text")
    if token:
        headers["Authorization"] = f"Bearer {token}"
    return headers


def run() -> int:
    """Parse the command line and do what it says; returns the exit status."""
    parser = parser_of(SERVICE)
    commands = parser.add_subparsers(dest="command", title="commands (default: run the service)")
    fetches = commands.add_parser(
        "fetch", help="save retransmission counters from Prometheus to a file"
    )
    fetches.add_argument(
        "url",
        metavar="PROMETHEUS_URL",
        help="for example http://localhost:9090; it may contain a user name and password",
    )
    fetches.add_argument(
        "--minutes", type=_minutes, default=120, help="how far back (default: 120)"
    )
    fetches.add_argument("--out", type=Path, default=DEFAULT_FILE, help=f"default: {DEFAULT_FILE}")
    fetches.add_argument(
        "--token-file", type=Path, metavar="FILE", help=f"holds a bearer token (default: {_TOKEN})"
    )
    fetches.add_argument("--tenant", help="sent as X-Scope-OrgID (Mimir, Cortex, Thanos)")
    analyses = commands.add_parser(
        "analyse",
        help="print itemsets and rules from a fetched file; a pair with any retransmission FAILs",
    )
    analyses.add_argument(
        "file", type=Path, metavar="FILE", help="from fetch, or JSON of Prometheus' API or promtool"
    )
    analyses.add_argument(
        "--min-support", type=fraction, help="default: 0.2, and 1/n for more than 5 addresses"
    )
    analyses.add_argument("--min-confidence", type=fraction, default=0.7, help="default: 0.7")
    analyses.add_argument("--json", action="store_true", help="one JSON document")
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
            headers = _headers(arguments.token_file, arguments.tenant)
            count = fetch(arguments.url, arguments.out, arguments.minutes, headers)
            print(f"{count} series saved to {arguments.out}")
            return 0
        if arguments.command == "analyse":
            if not analyse(
                arguments.file, arguments.min_support, arguments.min_confidence, arguments.json
            ):
                raise OfflineError("no rule: lower --min-support or --min-confidence")
            return 0
        if arguments.command == "report":
            incident_id = report(nats_settings(arguments.nats), arguments.incident, arguments.out)
            print(printable(f"incident {incident_id}: {arguments.out}"))
            return 0
    except (OfflineError, ReportError, SettingsError) as error:
        complain("flowverdict-rca", error)
        return 1
    return run_service(SERVICE, arguments.check)
