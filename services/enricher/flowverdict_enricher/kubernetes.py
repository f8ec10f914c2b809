"""Names from a cluster: its pods, nodes, services, endpoint slices and jobs, listed and watched.

The official client provides configuration, credentials and transport; the JSON is decoded here,
since its models take forty times as long. Listing and watching follow the API's documentation: page
the list, watch from its version with bookmarks, list again on 410 Gone
(kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
"""

import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import msgspec
import urllib3
from kubernetes import client, config

from flowverdict_enricher import objects
from flowverdict_enricher.cluster import Cluster
from flowverdict_enricher.directory import Directory
from flowverdict_runtime.context import CannotRun, Context
from flowverdict_runtime.kubernetes_facts import WATCHED
from flowverdict_runtime.logs import Throttle

__all__ = ["check", "follow"]

log = logging.getLogger(__name__)
_throttle = Throttle()

PAGE = 500
WATCH_SECONDS = 100
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.5, 30.0
SETTLED_SECONDS = 10
"""A watch that ends sooner is not resumed at once: the server may be in trouble."""
SILENCE_SECONDS = 130
"""A watch that is silent for longer than the server was asked to keep it open is dead."""


@dataclass(frozen=True, slots=True)
class _Resource:
    """What is listed and watched: its name in the API, its path, and the type of its objects."""

    name: str
    path: str
    kind: type[objects.Object]


_KINDS: dict[str, type[objects.Object]] = {
    "nodes": objects.Node,
    "services": objects.ClusterService,
    "endpointslices": objects.EndpointSlice,
    "jobs": objects.Job,
    "pods": objects.Pod,
}
_RESOURCES = tuple(_Resource(each.name, each.path, _KINDS[each.name]) for each in WATCHED)


class _ListMetadata(msgspec.Struct, rename="camel"):
    resource_version: str = ""
    continue_: str = msgspec.field(default="", name="continue")


class _List(msgspec.Struct):
    metadata: _ListMetadata
    items: list[msgspec.Raw] | None = None


class _Event(msgspec.Struct):
    type: str
    object: msgspec.Raw


class _Failure(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Gone(Exception):
    """The version to watch from has expired; list again."""


class _Refused(Exception):
    """The API answered with an error; the message says which and what to do."""


_TRANSIENT_ERRORS = (
    _Refused,
    urllib3.exceptions.HTTPError,
    msgspec.MsgspecError,
    ValueError,
    OSError,
)


class _Readiness:
    """Combines the resources' reasons into one, `names` in the service's health."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._reasons = {each.name: "reading" for each in _RESOURCES}
        self._changes = threading.Lock()

    def report(self, resource: _Resource, why: str) -> None:
        """Set why a resource cannot be followed now; empty if it can."""
        with self._changes:
            self._reasons[resource.name] = why
            waiting: dict[str, list[str]] = {}
            for name, each in self._reasons.items():
                if each:
                    waiting.setdefault(each, []).append(name)
            if waiting:
                reasons = "; ".join(
                    f"{', '.join(names)}: {each}" for each, names in waiting.items()
                )
                self._context.health.waiting("names", f"Kubernetes: {reasons}")
            else:
                self._context.health.ready("names")


def _connect(kubeconfig: str) -> Any:
    try:
        if kubeconfig:
            config.load_kube_config(kubeconfig)
        else:
            config.load_incluster_config()
    except (config.ConfigException, OSError, ValueError, TypeError, AttributeError) as error:
        if kubeconfig:
            raise CannotRun(
                f"FLOWVERDICT_KUBECONFIG is {kubeconfig!r}, not a valid kubeconfig: {error}"
            ) from None
        raise CannotRun(
            f"no Kubernetes API ({error}): run in a pod, or set FLOWVERDICT_KUBECONFIG, "
            "or FLOWVERDICT_NAMES=inventory"
        ) from None
    connection = client.ApiClient()
    # The client would retry silently; we retry and log why.
    connection.rest_client.pool_manager.connection_pool_kw["retries"] = 0
    return connection


def _get(
    api: Any, resource: _Resource, query: dict[str, Any], read_seconds: float
) -> urllib3.BaseHTTPResponse:
    """The open response to a GET of a resource in all namespaces."""
    request = api.param_serialize(
        "GET",
        resource.path,
        query_params=[(name, str(value)) for name, value in query.items() if value != ""],
        header_params={"Accept": "application/json"},
        auth_settings=["BearerToken"],
    )
    answer = api.call_api(*request, _request_timeout=(5, read_seconds))
    response: urllib3.BaseHTTPResponse = answer.response
    if response.status == 410:
        response.close()
        raise _Gone
    if response.status != 200:
        response.close()
        raise _Refused(_refusal(resource, response.status))
    return response


def _refusal(resource: _Resource, status: int) -> str:
    if status == 401:
        return "the API rejects our credentials (401)"
    if status == 403:
        verbs = f"get, list and watch on {resource.name}"
        return f"the API denies access (403): grant {verbs} in all namespaces"
    return f"the API returned {status}"


def _why(error: Exception) -> str:
    # For a failed connection, the reason without the requested path.
    return str(getattr(error, "reason", "") or error) or type(error).__name__


def _decoded(raw: msgspec.Raw, resource: _Resource) -> objects.Object | None:
    """The object, or None if it is malformed, so that the others still get their names."""
    try:
        return msgspec.json.decode(raw, type=resource.kind)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        _throttle.warn(
            log,
            resource.name,
            "malformed object skipped",
            resource=resource.name,
            why=str(error),
        )
        return None


def _list(api: Any, resource: _Resource, state: Cluster) -> str:
    """Read all of a resource into `state`; returns the version to watch from."""
    uids: set[str] = set()
    limit, following = PAGE, ""
    while True:
        try:
            response = _get(api, resource, {"limit": limit, "continue": following}, 30)
        except _Gone:
            if not following:
                raise
            # Reading the pages took longer than the API server remembers; all at once cannot.
            log.info(
                "a page of the list has expired, reading it whole",
                extra={"resource": resource.name},
            )
            limit, following = 0, ""
            uids.clear()
            continue
        page = msgspec.json.decode(response.read(), type=_List)
        for raw in page.items or ():
            if (thing := _decoded(raw, resource)) is not None:
                state.put(thing)
                uids.add(thing.metadata.uid)
        following = page.metadata.continue_
        if not following:
            state.keep_only(resource.kind, uids)
            log.info("listed", extra={"resource": resource.name, "objects": len(uids)})
            return page.metadata.resource_version


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(1 << 16, decode_content=True):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line)


@dataclass(slots=True)
class _Position:
    """How far a resource has been read, and how long to wait before trying again.

    Attributes:
        pause: seconds.
        version: resource version to watch from; empty if it must be listed.
    """

    pause: float
    version: str = ""


def _watch(
    api: Any, resource: _Resource, state: Cluster, position: _Position, readiness: _Readiness
) -> None:
    """Apply changes after `position`, and advance it, until the server ends the watch."""
    query = {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": position.version,
        "timeoutSeconds": WATCH_SECONDS,
    }
    response = _get(api, resource, query, SILENCE_SECONDS)
    readiness.report(resource, "")
    try:
        for line in _lines(response):
            event = msgspec.json.decode(line, type=_Event)
            if event.type == "ERROR":
                failure = msgspec.json.decode(event.object, type=_Failure)
                if failure.code == 410:
                    raise _Gone
                raise _Refused(f"the watch ended with {failure.code}: {failure.message}")
            thing = _decoded(event.object, resource)
            if thing is None:
                continue
            if event.type == "DELETED":
                state.remove(resource.kind, thing.metadata.uid)
            elif event.type != "BOOKMARK":
                state.put(thing)
            position.version = thing.metadata.resource_version
            position.pause = FIRST_PAUSE_SECONDS
    finally:
        response.close()


def _keep_following(
    api: Any, resource: _Resource, state: Cluster, context: Context, readiness: _Readiness
) -> None:
    position = _Position(FIRST_PAUSE_SECONDS)
    while not context.stopping.is_set():
        began, pause = time.monotonic(), FIRST_PAUSE_SECONDS
        try:
            if not position.version:
                position.version = _list(api, resource, state)
            _watch(api, resource, state, position, readiness)
        except _Gone:
            log.info("the watch on %s has expired, listing again", resource.name)
            position.version, pause = "", position.pause
        except Exception as error:  # noqa: BLE001 # whatever happens, keep following
            readiness.report(resource, _why(error))
            pause = position.pause
            # After a lost connection the watch can resume; after any other error, list again.
            if not isinstance(error, urllib3.exceptions.HTTPError):
                position.version = ""
        if time.monotonic() - began < SETTLED_SECONDS:
            time.sleep(pause * random.uniform(0.5, 1.5))
            position.pause = min(position.pause * 2, LAST_PAUSE_SECONDS)
        else:
            position.pause = FIRST_PAUSE_SECONDS


async def follow(
    kubeconfig: str, directory: Directory, context: Context, label_keys: Sequence[str] = ()
) -> None:
    """Keep `directory` in sync with the cluster until the service stops.

    The labels of pods that have one of `label_keys` are part of their names.

    Raises:
        CannotRun: if there are no credentials for a cluster.
    """
    api = _connect(kubeconfig)
    state, readiness = Cluster(directory, label_keys), _Readiness(context)
    for resource in _RESOURCES:
        # Daemon threads, since they may hang in a read: the process exits without waiting.
        threading.Thread(
            target=_keep_following,
            args=(api, resource, state, context, readiness),
            name=f"kubernetes {resource.name}",
            daemon=True,
        ).start()
    await context.stopping.wait()


def check(kubeconfig: str) -> int:
    """Print whether all resources needed for names can be listed; 0 if they can."""
    try:
        api = _connect(kubeconfig)
        refused = []
        for resource in _RESOURCES:
            try:
                _get(api, resource, {"limit": 1}, 10).close()
            except (_Gone, _Refused) as error:
                refused.append(f"{resource.name}: {error}")
    except (CannotRun, *_TRANSIENT_ERRORS) as error:
        refused = [_why(error)]
    for why in refused:
        print(f"broken   Kubernetes: {why}")
    if refused:
        return 1
    print(f"ok       Kubernetes: {', '.join(each.name for each in _RESOURCES)} can be listed")
    return 0
