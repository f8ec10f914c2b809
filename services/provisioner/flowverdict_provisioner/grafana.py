"""Compares what is wanted with what Grafana has, and changes only what differs.

What others made stays as it is: fields of a data source that are not ours, the folder that a
dashboard was moved to, the time range and the choices saved in it, whether an alert rule is paused.
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

__all__ = ["Grafana", "GrafanaError"]

_FOLDER_TITLE = "Flowverdict"
_MESSAGE = "flowverdict-provisioner"
_KEPT_IN_DASHBOARD = ("time", "refresh", "timezone")
_KEPT_IN_RULE = ("isPaused",)
_PAUSE_SECONDS = 2.0
_NOT_FOUND, _CONFLICT, _VERSION_CONFLICT, _TOO_MANY = 404, 409, 412, 429
_REFUSED = (401, 403)

T = TypeVar("T")


class GrafanaError(RuntimeError):
    """Grafana does not answer in time, or refuses; the message says which and what to do."""


class Grafana:
    """One Grafana.

    Each method looks, and changes what differs. Where an answer is lost it looks again, since the
    change may have been made.

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
        # A change that is redirected would become a mere question.
        self._api.client.s.max_redirects = 0

    def check(self) -> str:
        """Name of the organisation whose Grafana this is.

        Raises:
            GrafanaError: if it does not answer, or does not take the credentials.
        """
        organisation = self._patiently(lambda: _object(self._api.client.GET("/org")))
        if "name" not in organisation:
            raise GrafanaError(f"the answer of {self._url} is not Grafana's")
        return str(organisation["name"])

    def folder(self) -> Change:
        """The folder that new dashboards and the alert rules are in."""
        return self._patiently(self._folder)

    def data_source(self, wanted: Json) -> Change:
        """A data source of `sources`."""
        return self._patiently(lambda: self._data_source(wanted))

    def dashboard(self, wanted: Json) -> Change:
        """A dashboard of `boards`, built."""
        return self._patiently(lambda: self._dashboard(wanted))

    def alert_rule(self, wanted: Json) -> Change:
        """An alert rule of `alerts`."""
        return self._patiently(lambda: self._alert_rule(wanted))

    def alert_group(self, name: str) -> Change:
        """How often the rules of a group are evaluated; it exists with its first rule."""
        return self._patiently(lambda: self._alert_group(name))

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
        # Grafana never gives secrets away.
        shown = {key: value for key, value in wanted.items() if key != "secureJsonData"}
        details = tuple(differences(shown, found))
        if not details:
            return Change("data source", name, "unchanged")
        json_data = {**(found.get("jsonData") or {}), **wanted["jsonData"]}
        merged = {**found, **wanted, "jsonData": json_data}
        self._change(lambda: self._api.datasource.update_datasource_by_uid(uid, merged))
        return Change("data source", name, "updated", details)

    def _dashboard(self, wanted: Json) -> Change:
        title = wanted["title"]
        found = self._find(lambda: self._api.dashboard.get_dashboard(wanted["uid"]))
        body: Json = {"message": _MESSAGE, "overwrite": False}
        if found is None:
            body |= {"dashboard": {**wanted, "id": None, "version": 0}, "folderUid": FOLDER_UID}
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

    def _patiently(self, action: Callable[[], T]) -> T:
        """`action`'s result, done again while Grafana is away or somebody changes the same."""
        deadline, told = time.monotonic() + self._wait_seconds, ""
        while True:
            try:
                return action()
            except requests.TooManyRedirects as error:
                where = error.response.headers.get("Location") if error.response else "elsewhere"
                raise GrafanaError(
                    f"Grafana at {self._url} redirects to {where}: give FLOWVERDICT_GRAFANA_URL"
                    " the address where it is"
                ) from None
            except (GrafanaServerError, requests.RequestException, ValueError) as error:
                why = _reason(error)
            except GrafanaClientError as error:
                if error.status_code not in (_CONFLICT, _VERSION_CONFLICT, _TOO_MANY):
                    raise self._refused(error) from None
                why = "somebody else changes the same, or it has too much to do"
            if time.monotonic() > deadline:
                raise GrafanaError(f"Grafana at {self._url} does not do it in time: {why}")
            if why != told:
                limit = f"up to {self._wait_seconds:g} s"
                self._tell(f"waiting for Grafana at {self._url}, {limit}: {why}")
                told = why
            time.sleep(_PAUSE_SECONDS)

    def _refused(self, error: GrafanaClientError) -> GrafanaError:
        if error.status_code in _REFUSED:
            hint = "FLOWVERDICT_GRAFANA_TOKEN, or _USER and _PASSWORD, say who may change it"
            return GrafanaError(f"Grafana at {self._url} refuses ({error.status_code}); {hint}")
        if error.status_code == _NOT_FOUND:
            return GrafanaError(
                f"{self._url} has no such API: is it a Grafana, and the whole path?"
            )
        return GrafanaError(f"Grafana at {self._url} refuses: {error.message}")


def _object(answer: Any) -> Json:
    if not isinstance(answer, dict):
        raise ValueError(f"{type(answer).__name__} instead of an object")  # as JSON's
    return answer


def _reason(error: Exception) -> str:
    if isinstance(error, GrafanaServerError):
        return f"it answers {error.status_code}"
    if isinstance(error, requests.Timeout):
        return "it does not answer"
    if isinstance(error, requests.ConnectionError):
        return "nothing listens there, or the connection broke"
    return f"its answer is not Grafana's: {error}"
