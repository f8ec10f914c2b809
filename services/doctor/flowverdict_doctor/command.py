"""The command line: runs the checks and prints one line per result."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict
from importlib.metadata import version

from flowverdict_doctor import cluster, node, stores, streams
from flowverdict_doctor.finding import BROKEN, OK, SKIPPED, WARNING, Finding, broken
from flowverdict_doctor.settings import DoctorSettings
from flowverdict_runtime.lifecycle import INVALID_SETTINGS
from flowverdict_runtime.settings import SettingsError, describe, load, unknown_settings
from flowverdict_runtime.terminal import complain, printable

__all__ = ["run"]

_COLOURS = {OK: "32", WARNING: "33", BROKEN: "31", SKIPPED: "2"}

PARTS: dict[str, Callable[[DoctorSettings], Iterable[Finding]]] = {
    "node": lambda _: node.findings(),
    "nats": lambda settings: asyncio.run(streams.findings(settings)),
    "kubernetes": cluster.findings,
    "stores": stores.findings,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowverdict-doctor",
        description="Checks this node, NATS, Kubernetes and the stores; reports what is broken\n"
        "and how to fix it. Changes nothing. Exits with status 1 if anything is broken.",
        epilog=describe(DoctorSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"what to check: {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object per line")
    parser.add_argument("--version", action="version", version=version("flowverdict-doctor"))
    return parser


def _show(finding: Finding, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(finding)), flush=True)
        return
    level = f"{finding.level:<8}"
    if sys.stdout.isatty():
        level = f"\033[{_COLOURS[finding.level]}m{level}\033[0m"
    # Escaped: untrusted text must not control the terminal.
    print(f"{level} {printable(finding.what)}: {printable(finding.detail)}", flush=True)
    if finding.advice:
        print(f"{'':<9}-> {printable(finding.advice)}", flush=True)


def _findings(part: str, settings: DoctorSettings) -> Iterator[Finding]:
    """Run one part's checks; an unexpected error becomes a finding too."""
    try:
        yield from PARTS[part](settings)
    except SettingsError:
        raise
    except Exception as error:  # noqa: BLE001 # report it and go on with the next part
        why = f"check failed unexpectedly ({type(error).__name__}: {str(error)[:200]})"
        yield broken(part, why, "are the addresses in the settings right? then please report a bug")


def run() -> int:
    """Parse the command line and run the checks; returns the exit status.

    2 if a setting is invalid, 1 if something is broken.
    """
    arguments = _parser().parse_args()
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        print(
            f"flowverdict-doctor: unknown part {unknown[0]}; choose from {', '.join(PARTS)}",
            file=sys.stderr,
        )
        return INVALID_SETTINGS
    worst = 0
    try:
        for sentence in unknown_settings(DoctorSettings, only_misspelt=True):
            complain("flowverdict-doctor", sentence)
        settings = load(DoctorSettings)
        for part in arguments.parts or PARTS:
            for finding in _findings(part, settings):
                _show(finding, arguments.json)
                worst |= finding.level == BROKEN
    except SettingsError as error:
        complain("flowverdict-doctor", error)
        return INVALID_SETTINGS
    return worst
