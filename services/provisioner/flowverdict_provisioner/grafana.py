"""Compares what is wanted with what Grafana has, and changes only what differs.

What others made stays as it is: fields of a data source that are not ours, the folder that a
dashboard was moved to, the time range saved in it, whether an alert rule is paused.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from grafana_client import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaException, GrafanaServerError

from flowverdict_provisioner.alerts import FOLDER_UID
from flowverdict_provisioner.settings import ProvisionerSettings

__all__ = ["Change", "Grafana", "GrafanaError", "differences"]

_FOLDER_TITLE = "Flowverdict"
_MESSAGE = "flowverdict-provisioner"
_KEPT_IN_DASHBOARD = ("time", "refresh", "timezone")
_KEPT_IN_RULE = ("isPaused",)
_PAUSE_SECONDS = 2.0
_TRIES_AT_A_VERSION = 5
_NOT_FOUND, _VERSION_CONFLICT, _REFUSED = 404, 412, (401, 403)

T = TypeVar("T")
Json = dict[str, Any]


class GrafanaError(RuntimeError):
    """Grafana does not answer in time, or refuses; the message says which and what to do."""


@dataclass(frozen=True, slots=True)
class Change:
    """What was or would be done with one thing in Grafana.

    Attributes:
        action: `created`, `updated` or `unchanged`.
        details: what differs, for an update.
    """

    what: str
    name: str
    action: str
    details: tuple[str, ...] = ()


class Grafana:
    """One Grafana.

    Args:
        settings: where it is, and who changes it.
        dry: True to change nothing and only say what would be changed.
        tell: is told, once for each reason, why it has to wait.
    """

    def __init__(
        self, settings: ProvisionerSettings, dry: bool, tell: Callable[[str], None]
    ) -> None:
        self._url = settings.grafana_url
        self._wait_seconds = settings.grafana_wait_seconds
        self._dry = dry
        self._tell = tell
        parts = urlsplit(settings.grafana_url)
        auth = settings.grafana_token or (settings.grafana_user, settings.grafana_password)
        self._api = GrafanaApi(
            auth,
            host=parts.hostname,
            port=parts.port,
            url_path_prefix=parts.path.strip("/") + "/" if parts.path.strip("/") else "",
            protocol=parts.scheme,
            timeout=10,
        )

    def folder(self) -> Change:
        """The folder that new dashboards and the alert rules are in."""
        found = self._find(lambda: self._api.folder.get_folder(FOLDER_UID))
        if found is not None:
            return Change("folder", found["title"], "unchanged")
        self._change(lambda: self._api.folder.create_folder(_FOLDER_TITLE, FOLDER_UID))
        return Change("folder", _FOLDER_TITLE, "created")

    def data_source(self, wanted: Json) -> Change:
        """A data source of `sources`."""
        name, uid = wanted["name"], wanted["uid"]
        found = self._find(lambda: self._api.datasource.get_datasource_by_uid(uid))
        if found is None:
            self._change(lambda: self._api.datasource.create_datasource(wanted))
            return Change("data source", name, "created")
        # Grafana never gives secrets away.
        shown = {key: value for key, value in wanted.items() if key != "secureJsonData"}
        details = tuple(differences(shown, found))
        if not details:
            return Change("data source", name, "unchanged")
        merged = {
            **found,
            **wanted,
            "jsonData": {**found.get("jsonData", {}), **wanted["jsonData"]},
        }
        self._change(lambda: self._api.datasource.update_datasource_by_uid(uid, merged))
        return Change("data source", name, "updated", details)

    def dashboard(self, wanted: Json) -> Change:
        """A dashboard of `boards`, built."""
        for _ in range(_TRIES_AT_A_VERSION):
            try:
                return self._dashboard(wanted)
            except GrafanaClientError as error:
                # Somebody saved it meanwhile: look again.
                if error.status_code != _VERSION_CONFLICT:
                    raise self._refused(error) from None
        raise GrafanaError(f"somebody else keeps changing the dashboard {wanted['title']}")

    def _dashboard(self, wanted: Json) -> Change:
        title = wanted["title"]
        found = self._find(lambda: self._api.dashboard.get_dashboard(wanted["uid"]))
        body: Json = {"message": _MESSAGE, "overwrite": False}
        if found is None:
            body |= {"dashboard": {**wanted, "id": None, "version": 0}, "folderUid": FOLDER_UID}
            self._change(lambda: self._api.dashboard.update_dashboard(body))
            return Change("dashboard", title, "created")
        stored = found["dashboard"]
        kept = {key: stored[key] for key in _KEPT_IN_DASHBOARD if key in stored}
        ours = {**wanted, **kept}
        details = tuple(differences(ours, stored))
        if not details:
            return Change("dashboard", title, "unchanged")
        body["dashboard"] = {**ours, "id": stored["id"], "version": stored["version"]}
        body["folderUid"] = found.get("meta", {}).get("folderUid", "")
        self._change(lambda: self._api.dashboard.update_dashboard(body))
        return Change("dashboard", title, "updated", details)

    def alert_rule(self, wanted: Json) -> Change:
        """An alert rule of `alerts`."""
        rules, uid = self._api.alertingprovisioning, wanted["uid"]
        found = self._find(lambda: rules.get_alertrule(uid))
        if found is None:
            # Without provenance, so that it can be paused and routed in Grafana.
            self._change(lambda: rules.create_alertrule(wanted, disable_provenance=True))
            return Change("alert rule", wanted["title"], "created")
        kept = {key: found[key] for key in _KEPT_IN_RULE if key in found}
        details = tuple(differences({**wanted, **kept}, found))
        if not details:
            return Change("alert rule", wanted["title"], "unchanged")
        merged = {**found, **wanted, **kept}
        self._change(lambda: rules.update_alertrule(uid, merged, disable_provenance=True))
        return Change("alert rule", wanted["title"], "updated", details)

    def _change(self, action: Callable[[], object]) -> None:
        if not self._dry:
            self._patiently(action)

    def _find(self, action: Callable[[], Json]) -> Json | None:
        try:
            return self._patiently(action)
        except GrafanaClientError as error:
            if error.status_code == _NOT_FOUND:
                return None
            raise

    def _patiently(self, action: Callable[[], T]) -> T:
        """`action`'s result, tried again while Grafana is away or has not started yet."""
        deadline, told = time.monotonic() + self._wait_seconds, ""
        while True:
            try:
                return action()
            except (GrafanaServerError, requests.RequestException, ValueError) as error:
                why = _reason(error)
            except GrafanaClientError as error:
                if error.status_code in (_NOT_FOUND, _VERSION_CONFLICT):
                    raise
                if error.status_code != requests.codes.too_many_requests:
                    raise self._refused(error) from None
                why = "it has too much to do"
            if time.monotonic() > deadline:
                raise GrafanaError(f"Grafana at {self._url} does not do it in time: {why}")
            if why != told:
                self._tell(f"waiting for Grafana at {self._url}: {why}")
                told = why
            time.sleep(_PAUSE_SECONDS)

    def _refused(self, error: GrafanaException) -> GrafanaError:
        if error.status_code in _REFUSED:
            hint = "FLOWVERDICT_GRAFANA_TOKEN, or _USER and _PASSWORD, say who may change it"
            return GrafanaError(f"Grafana at {self._url} refuses ({error.status_code}); {hint}")
        return GrafanaError(f"Grafana at {self._url} refuses: {error.message}")


def _reason(error: Exception) -> str:
    if isinstance(error, GrafanaServerError):
        return f"it answers {error.status_code}"
    if isinstance(error, requests.Timeout):
        return "it does not answer"
    if isinstance(error, requests.ConnectionError):
        return "nothing listens there"
    return f"its answer is not Grafana's: {error}"


def differences(wanted: Any, stored: Any, where: str = "") -> Iterator[str]:
    """What of `wanted` is not so in `stored`, a line each; what only `stored` has is left out."""
    if isinstance(wanted, dict) and isinstance(stored, dict):
        for key, value in wanted.items():
            yield from differences(value, stored.get(key), f"{where}.{key}" if where else key)
    elif isinstance(wanted, list) and isinstance(stored, list):
        if len(wanted) != len(stored):
            yield f"{where}: {len(stored)} entries, should be {len(wanted)}"
            return
        for number, (one, other) in enumerate(zip(wanted, stored, strict=True)):
            yield from differences(one, other, f"{where}[{number}]")
    elif wanted != stored and not (wanted in ("", [], {}, False, 0) and stored is None):
        yield f"{where}: {_short(stored)} → {_short(wanted)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"
