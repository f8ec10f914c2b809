"""The command line: look at everything, print a line each."""

import argparse
import asyncio
import json
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

from flowverdict_doctor import cluster, node, stores, streams
from flowverdict_doctor.finding import BROKEN, OK, WARNING, Finding, broken
from flowverdict_doctor.settings import DoctorSettings
from flowverdict_runtime.lifecycle import INVALID_SETTINGS
from flowverdict_runtime.settings import SettingsError, describe, load
from flowverdict_runtime.terminal import printable

__all__ = ["run"]

_COLOURS = {OK: "32", WARNING: "33", BROKEN: "31"}

PARTS: dict[str, Callable[[DoctorSettings], Iterable[Finding]]] = {
    "node": lambda _: node.findings(),
    "nats": lambda settings: asyncio.run(streams.findings(settings)),
    "kubernetes": cluster.findings,
    "stores": stores.findings,
}


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowverdict-doctor",
        description="Looks at this node, NATS, Kubernetes and the stores, and says of each what\n"
        "is broken and what to do. Changes nothing. Exit status 1 if something is broken.",
        epilog=describe(DoctorSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "parts", nargs="*", metavar="PART", help=f"only these: {', '.join(PARTS)} (default: all)"
    )
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    return parser


def _show(finding: Finding, as_json: bool) -> None:
    if as_json:
        print(json.dumps(asdict(finding)), flush=True)
        return
    level = f"{finding.level:<8}"
    if sys.stdout.isatty():
        level = f"\033[{_COLOURS[finding.level]}m{level}\033[0m"
    # What others sent is shown, not obeyed.
    print(f"{level} {printable(finding.what)}: {printable(finding.said)}", flush=True)
    if finding.advice:
        print(f"{'':<9}-> {printable(finding.advice)}", flush=True)


def _findings(part: str, settings: DoctorSettings) -> Iterator[Finding]:
    """What a part finds; where something answers what nobody expects, that."""
    try:
        yield from PARTS[part](settings)
    except SettingsError:
        raise
    except Exception as error:  # noqa: BLE001 # it is here to say what is wrong, and goes on
        why = f"answers something odd ({type(error).__name__}: {str(error)[:200]})"
        yield broken(part, why, "is there what the settings say? then please report this")


def run() -> int:
    """Parse the command line and look; returns the exit status.

    2 if a setting is wrong, 1 if something is broken.
    """
    arguments = _parser().parse_args()
    unknown = [part for part in arguments.parts if part not in PARTS]
    if unknown:
        print(
            f"flowverdict-doctor: there is no part {unknown[0]}; there are {', '.join(PARTS)}",
            file=sys.stderr,
        )
        return INVALID_SETTINGS
    worst = 0
    try:
        settings = load(DoctorSettings)
        for part in arguments.parts or PARTS:
            for finding in _findings(part, settings):
                _show(finding, arguments.json)
                worst |= finding.level == BROKEN
    except SettingsError as error:
        print(f"flowverdict-doctor: {error}", file=sys.stderr)
        return INVALID_SETTINGS
    return worst
