"""The `flowverdict-provisioner` command: apply changes, preview them, or write files."""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path

from flowverdict_provisioner.alerts import alert_groups, alert_rules
from flowverdict_provisioner.boards import BOARDS
from flowverdict_provisioner.dashboard_json import build
from flowverdict_provisioner.difference import Change
from flowverdict_provisioner.grafana import Grafana, GrafanaError
from flowverdict_provisioner.settings import ProvisionerSettings
from flowverdict_provisioner.sources import data_sources
from flowverdict_runtime.lifecycle import CANNOT_RUN, INVALID_SETTINGS
from flowverdict_runtime.settings import SettingsError, describe, load

__all__ = ["run"]

_SHOWN_DETAILS = 8
_WAIT = "FLOWVERDICT_GRAFANA_WAIT_SECONDS"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowverdict-provisioner",
        description="Adds data sources, dashboards and alert rules to Grafana; later runs change"
        " only what differs.",
        epilog=describe(ProvisionerSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    either = parser.add_mutually_exclusive_group()
    either.add_argument(
        "--diff", action="store_true", help="show what would change without changing anything"
    )
    either.add_argument(
        "--check", action="store_true", help="check that Grafana accepts the credentials"
    )
    either.add_argument(
        "--export",
        type=Path,
        metavar="DIR",
        help="write the dashboards' JSON for file provisioning or a sidecar; needs no Grafana",
    )
    return parser


def _log(text: str) -> None:
    print(f"flowverdict-provisioner: {text}", file=sys.stderr, flush=True)


def _changes(settings: ProvisionerSettings, dry: bool) -> Iterator[Change]:
    grafana = Grafana(settings, dry, _log)
    sources = data_sources(settings)
    for source in sources:
        yield grafana.data_source(source)
    yield grafana.folder()
    opened_with = {each["type"]: (each["uid"], each["name"]) for each in sources}
    for board in BOARDS:
        yield grafana.dashboard(build(board, opened_with))
    for rule in alert_rules(paused=bool(settings.alertmanager_url)):
        yield grafana.alert_rule(rule)
    for group in alert_groups():
        yield grafana.alert_group(group)


def _apply(settings: ProvisionerSettings, dry: bool) -> None:
    for change in _changes(settings, dry):
        action = f"would be {change.action}" if dry and change.details else change.action
        action = f"would be {action}" if dry and change.action == "created" else action
        print(f"{change.what:<12}{change.name:<32}{action}", flush=True)
        for detail in change.details[:_SHOWN_DETAILS]:
            print(f"{'':<12}  {detail}")
        if len(change.details) > _SHOWN_DETAILS:
            print(f"{'':<12}  and {len(change.details) - _SHOWN_DETAILS} more")


def _export(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        file = folder / f"{board.uid}.json"
        file.write_text(json.dumps(build(board), indent=2, ensure_ascii=False) + "\n")
        print(file)


def _check(settings: ProvisionerSettings) -> None:
    organisation = Grafana(settings, True, _log).check()
    print(f"ok       Grafana at {settings.grafana_url}: organisation {organisation}")


def run() -> int:
    """Parse the command line and run it; returns the exit status.

    2 if a setting is invalid, 1 if Grafana is unavailable or refuses.
    """
    arguments = _parser().parse_args()
    try:
        if arguments.export is not None:
            _export(arguments.export)
            return 0
        settings = load(ProvisionerSettings)
        if (arguments.check or arguments.diff) and _WAIT not in os.environ:
            # Only a run that changes something waits for Grafana to start; these answer at once.
            settings = dataclasses.replace(settings, grafana_wait_seconds=0)
        if not settings.grafana_token and not settings.grafana_password:
            _log("neither FLOWVERDICT_GRAFANA_TOKEN nor FLOWVERDICT_GRAFANA_PASSWORD is set")
            return INVALID_SETTINGS
        if arguments.check:
            _check(settings)
        else:
            _apply(settings, arguments.diff)
    except SettingsError as error:
        _log(str(error))
        return INVALID_SETTINGS
    except (GrafanaError, OSError) as error:
        _log(str(error))
        return CANNOT_RUN
    return 0
