"""Compares the desired state with what Grafana has, and changes only what differs.

Changes by others are kept: fields of a data source that we do not set, the folder that a dashboard
was moved to, its saved time range and variable selections, and whether an alert rule is paused.
"""

import time
from collections.abc import Callable
from typing import Any, TypeVar
from urllib.parse import urlsplit

import requests
from grafana_client import GrafanaApi
from grafana_client.client import GrafanaClientError, GrafanaServerError

from flowverdict_provisioner.alerts import FOLDER_UID, GROUP_INTERVAL_SECONDS
from flowverdict_provisioner.difference import Change, Json, differences, with_choices_of
from flowverdict_provisioner.settings import ProvisionerSettings
from flowverdict_runtime.settings import redact

__all__ = ["Grafana", "GrafanaError", "Refused"]

_FOLDER_TITLE = "Flowverdict"
_MESSAGE = "flowverdict-provisioner"
_KEPT_IN_DASHBOARD = ("time", "refresh", "timezone")
_KEPT_IN_RULE = ("isPaused",)
_PAUSE_SECONDS = 2.0
_NOT_FOUND, _CONFLICT, _VERSION_CONFLICT, _TOO_MANY = 404, 409, 412, 429
_NOT_LOGGED_IN, _FORBIDDEN = 401, 403

T = TypeVar("T")


class GrafanaError(RuntimeError):
    """Grafana does not answer in time, or refuses; the message says which and what to do."""


class Refused(GrafanaError):
    """Grafana refuses this change; others may succeed."""


class Grafana:
    """A Grafana server.

    Each method reads the current state and changes what differs. If a response is lost, it reads
    the state again, since the change may have been applied.

    Args:
        settings: Grafana's address and credentials.
        dry: True to change nothing and only report what would change.
        tell: called once for each reason to wait, with the reason.
    """

    def __init__(
        self, settings: ProvisionerSettings, dry: bool, tell: Callable[[str], None]
    ) -> None:
        self._url = redact(settings.grafana_url)
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
        # A redirected POST or PUT would turn into a GET.
        self._api.client.s.max_redirects = 0

    def check(self) -> str:
        """Name of the Grafana organisation that the credentials belong to.

        Raises:
            GrafanaError: if it does not answer, or rejects the credentials.
        """
        organisation = self._retried(lambda: _object(self._api.client.GET("/org")))
        if "name" not in organisation:
            raise GrafanaError(f"the answer from {self._url} is not Grafana's")
        return str(organisation["name"])

    def name_of(self, uid: str) -> str:
        """Name of the data source with this uid.

        Raises:
            GrafanaError: if there is none, or it cannot be read.
        """
        found = self._retried(
            lambda: self._find(lambda: self._api.datasource.get_datasource_by_uid(uid))
        )
        if found is None:
            raise Refused(f"Grafana at {self._url} has no data source with the uid {uid}")
        return str(found.get("name", uid))

    def folder(self) -> Change:
        """Ensure that the folder for new dashboards and the alert rules exists."""
        return self._retried(self._folder)

    def data_source(self, wanted: Json) -> Change:
        """Create a data source from `sources`, or update it."""
        return self._retried(lambda: self._data_source(wanted))

    def dashboard(self, wanted: Json, folder_uid: str = FOLDER_UID) -> Change:
        """Create a dashboard from `boards`, already built, in that folder, or update it."""
        return self._retried(lambda: self._dashboard(wanted, folder_uid))

    def alert_rule(self, wanted: Json) -> Change:
        """Create an alert rule from `alerts`, or update it."""
        return self._retried(lambda: self._alert_rule(wanted))

    def alert_group(self, name: str) -> Change:
        """Set the evaluation interval of a rule group; its first rule creates the group."""
        return self._retried(lambda: self._alert_group(name))

    def _folder(self) -> Change:
        found = self._find(lambda: self._api.folder.get_folder(FOLDER_UID))
        if found is not None:
            return Change("folder", str(found.get("title", "")), "unchanged")
        self._change(lambda: self._api.folder.create_folder(_FOLDER_TITLE, FOLDER_UID))
        return Change("folder", _FOLDER_TITLE, "created")

    def _data_source(self, wanted: Json) -> Change:
        name, uid = wanted["name"], wanted["uid"]
        found = self._find(lambda: self._api.datasource.get_datasource_by_uid(uid))
        if found is None:
            self._change(lambda: self._api.datasource.create_datasource(wanted))
            return Change("data source", name, "created")
        # Grafana never returns secrets.
        shown = {key: value for key, value in wanted.items() if key != "secureJsonData"}
        details = tuple(differences(shown, found))
        if not details:
            return Change("data source", name, "unchanged")
        json_data = {**(found.get("jsonData") or {}), **wanted["jsonData"]}
        merged = {**found, **wanted, "jsonData": json_data}
        self._change(lambda: self._api.datasource.update_datasource_by_uid(uid, merged))
        return Change("data source", name, "updated", details)

    def _dashboard(self, wanted: Json, folder_uid: str) -> Change:
        title = wanted["title"]
        found = self._find(lambda: self._api.dashboard.get_dashboard(wanted["uid"]))
        body: Json = {"message": _MESSAGE, "overwrite": False}
        if found is None:
            body |= {"dashboard": {**wanted, "id": None, "version": 0}, "folderUid": folder_uid}
            self._change(lambda: self._api.dashboard.update_dashboard(body))
            return Change("dashboard", title, "created")
        stored = _object(found.get("dashboard"))
        kept = {key: stored[key] for key in _KEPT_IN_DASHBOARD if key in stored}
        ours = with_choices_of(stored, {**wanted, **kept})
        details = tuple(differences(ours, stored))
        if not details:
            return Change("dashboard", title, "unchanged")
        body["dashboard"] = {**ours, "id": stored["id"], "version": stored["version"]}
        body["folderUid"] = found.get("meta", {}).get("folderUid", "")
        self._change(lambda: self._api.dashboard.update_dashboard(body))
        return Change("dashboard", title, "updated", details)

    def _alert_rule(self, wanted: Json) -> Change:
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

    def _alert_group(self, name: str) -> Change:
        rules = self._api.alertingprovisioning
        found = self._find(lambda: rules.get_rule_group(FOLDER_UID, name))
        wanted = {"interval": GROUP_INTERVAL_SECONDS}
        if found is None:
            return Change("alert group", name, "created")
        details = tuple(differences(wanted, found))
        if not details:
            return Change("alert group", name, "unchanged")
        merged = {**found, **wanted}
        self._change(
            lambda: rules.update_rule_group(FOLDER_UID, name, merged, disable_provenance=True)
        )
        return Change("alert group", name, "updated", details)

    def _change(self, action: Callable[[], Any]) -> None:
        if not self._dry:
            _object(action())

    def _find(self, action: Callable[[], Any]) -> Json | None:
        try:
            return _object(action())
        except GrafanaClientError as error:
            if error.status_code == _NOT_FOUND:
                return None
            raise

    def _retried(self, action: Callable[[], T]) -> T:
        """The result of `action`, retried while Grafana is unavailable.

        `action` reads what there is first, so a conflict that it meets twice is none with somebody
        who does the same at this moment.
        """
        deadline, reported = time.monotonic() + self._wait_seconds, ""
        conflict = ""
        while True:
            try:
                return action()
            except requests.TooManyRedirects as error:
                where = error.response.headers.get("Location") if error.response else "elsewhere"
                raise GrafanaError(
                    f"Grafana at {self._url} redirects to {where}: set FLOWVERDICT_GRAFANA_URL"
                    " to its final address"
                ) from None
            except (GrafanaServerError, requests.RequestException, ValueError) as error:
                why = _reason(error)
            except GrafanaClientError as error:
                is_conflict = error.status_code in (_CONFLICT, _VERSION_CONFLICT)
                if is_conflict and error.message != conflict:
                    conflict = error.message
                    continue
                if error.status_code != _TOO_MANY and not _is_newer(error):
                    raise self._refused(error) from None
                why = f"it refuses for now: {error.message}"
            if time.monotonic() > deadline:
                raise GrafanaError(f"gave up on Grafana at {self._url}: {why}")
            if why != reported:
                limit = f"up to {self._wait_seconds:g} s"
                self._tell(f"waiting for Grafana at {self._url}, {limit}: {why}")
                reported = why
            time.sleep(_PAUSE_SECONDS)

    def _refused(self, error: GrafanaClientError) -> GrafanaError:
        if error.status_code == _NOT_LOGGED_IN:
            hint = "check FLOWVERDICT_GRAFANA_TOKEN, or _USER and _PASSWORD"
            return GrafanaError(f"Grafana at {self._url} denies access: {error.message}; {hint}")
        if error.status_code in (_FORBIDDEN, _CONFLICT):
            return Refused(f"Grafana at {self._url}: {error.message}")
        if error.status_code == _NOT_FOUND:
            return GrafanaError(
                f"{self._url} has no such API: is it Grafana, and is the path complete?"
            )
        return Refused(f"Grafana at {self._url} refuses the request: {error.message}")


def _object(answer: Any) -> Json:
    if not isinstance(answer, dict):
        raise ValueError(f"{type(answer).__name__} instead of an object")  # like bad JSON
    return answer


def _is_newer(error: GrafanaClientError) -> bool:
    """Whether somebody has saved a newer version of the object."""
    response = error.response if isinstance(error.response, dict) else {}
    return error.status_code == _VERSION_CONFLICT and response.get("status") == "version-mismatch"


def _reason(error: Exception) -> str:
    if isinstance(error, GrafanaServerError):
        return f"it returned {error.status_code}"
    if isinstance(error, requests.Timeout):
        return "it does not answer"
    if isinstance(error, requests.ConnectionError):
        return "nothing listens there, or the connection was lost"
    return f"its answer is not Grafana's: {error}"
