"""The `flowverdict-provisioner` command: apply changes, preview them, or write files."""

import argparse
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib.metadata import version
from pathlib import Path

from flowverdict_provisioner.alerts import FOLDER_UID, alert_groups, alert_rules
from flowverdict_provisioner.boards import BOARDS
from flowverdict_provisioner.dashboard_json import build
from flowverdict_provisioner.difference import Change
from flowverdict_provisioner.grafana import Grafana, GrafanaError, Refused
from flowverdict_provisioner.settings import ProvisionerSettings
from flowverdict_provisioner.sources import data_sources, given_uids
from flowverdict_runtime.lifecycle import CANNOT_RUN, INVALID_SETTINGS
from flowverdict_runtime.settings import SettingsError, describe, load, redact, unknown_settings
from flowverdict_runtime.terminal import printable

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
    parser.add_argument("--version", action="version", version=version("flowverdict-provisioner"))
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
    print(f"flowverdict-provisioner: {printable(text)}", file=sys.stderr, flush=True)


def _steps(
    settings: ProvisionerSettings, grafana: Grafana
) -> Iterator[tuple[str, str, Callable[[], Change]]]:
    """What each object is, its name, and what creates or updates it."""
    sources, given = data_sources(settings), given_uids(settings)
    opened_with = {each["type"]: (each["uid"], each["name"]) for each in sources}
    for source in sources:
        yield "data source", source["name"], partial(grafana.data_source, source)
    for kind, uid in given.items():
        opened_with[kind] = uid, uid
        with contextlib.suppress(Refused):
            opened_with[kind] = uid, grafana.name_of(uid)
        yield "data source", opened_with[kind][1], partial(_left_alone, grafana, uid)
    has_folder = True

    def folder() -> Change:
        nonlocal has_folder
        has_folder = False
        change = grafana.folder()
        has_folder = True
        return change

    yield "folder", "Flowverdict", folder
    for board in BOARDS:
        where = FOLDER_UID if has_folder else ""
        model = build(board, opened_with, settings.pod_links)
        yield "dashboard", board.title, partial(grafana.dashboard, model, where)
    paused = "alertmanager" in opened_with
    for rule in alert_rules(paused, opened_with["prometheus"][0]):
        yield "alert rule", rule["title"], partial(grafana.alert_rule, rule)
    for group in alert_groups():
        yield "alert group", group, partial(grafana.alert_group, group)


def _left_alone(grafana: Grafana, uid: str) -> Change:
    return Change("data source", grafana.name_of(uid), "left alone")


def _apply(settings: ProvisionerSettings, dry: bool) -> int:
    """Create or update everything; returns how many of them Grafana refuses."""
    refused = 0
    for what, name, change_it in _steps(settings, Grafana(settings, dry, _log)):
        try:
            change = change_it()
        except Refused as error:
            refused += 1
            print(f"{what:<12}{name:<32}refused", flush=True)
            _log(f"{what} {name}: {error}")
            continue
        action = f"would be {change.action}" if dry and change.details else change.action
        action = f"would be {action}" if dry and change.action == "created" else action
        print(f"{change.what:<12}{change.name:<32}{action}", flush=True)
        for detail in change.details[:_SHOWN_DETAILS]:
            print(f"{'':<12}  {detail}")
        if len(change.details) > _SHOWN_DETAILS:
            print(f"{'':<12}  and {len(change.details) - _SHOWN_DETAILS} more")
    return refused


def _export(folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for board in BOARDS:
        file = folder / f"{board.uid}.json"
        file.write_text(json.dumps(build(board), indent=2, ensure_ascii=False) + "\n")
        print(file)


def _check(settings: ProvisionerSettings) -> None:
    organisation = Grafana(settings, True, _log).check()
    url = redact(settings.grafana_url)
    print(printable(f"ok       Grafana at {url}: organisation {organisation}"))


def run() -> int:
    """Parse the command line and run it; returns the exit status.

    2 if a setting is invalid, 1 if Grafana is unavailable or refuses.
    """
    arguments = _parser().parse_args()
    try:
        if arguments.export is not None:
            _export(arguments.export)
            return 0
        for sentence in unknown_settings(ProvisionerSettings, only_misspelt=True):
            _log(sentence)
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
            refused = _apply(settings, arguments.diff)
            if refused:
                _log(f"Grafana refused {refused} of these; the others are as they should be")
                return CANNOT_RUN
    except SettingsError as error:
        _log(str(error))
        return INVALID_SETTINGS
    except (GrafanaError, OSError) as error:
        _log(str(error))
        return CANNOT_RUN
    return 0
