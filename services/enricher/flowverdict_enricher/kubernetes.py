"""Names from a cluster: its pods, nodes, services, endpoint slices and jobs, listed and watched.

The official client gives configuration, credentials and transport; the JSON is decoded here, since
its models take forty times as long. List and watch as the API's own documentation asks: page the
list, watch from its version with bookmarks, list again on 410 Gone
(kubernetes.io/docs/reference/using-api/api-concepts/#efficient-detection-of-changes).
"""

import logging
import random
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import msgspec
import urllib3
from kubernetes import client, config

from flowverdict_enricher import cluster
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
"""A watch that gives nothing for longer than the server was asked to keep it is dead."""


@dataclass(frozen=True, slots=True)
class _Resource:
    """What is listed and watched: its name in the API, where, and what its objects are."""

    name: str
    path: str
    kind: type[cluster.Object]


_KINDS: dict[str, type[cluster.Object]] = {
    "nodes": cluster.Node,
    "services": cluster.ClusterService,
    "endpointslices": cluster.EndpointSlice,
    "jobs": cluster.Job,
    "pods": cluster.Pod,
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
    """The version to watch from is no longer kept; list again."""


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
    """One reason for all resources, in the service's health as `names`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._reasons = {each.name: "reading" for each in _RESOURCES}
        self._changes = threading.Lock()

    def tell(self, resource: _Resource, why: str) -> None:
        """Why a resource cannot be followed now; empty if it can."""
        with self._changes:
            self._reasons[resource.name] = why
            waiting: dict[str, list[str]] = {}
            for name, each in self._reasons.items():
                if each:
                    waiting.setdefault(each, []).append(name)
            if waiting:
                said = "; ".join(f"{', '.join(names)}: {each}" for each, names in waiting.items())
                self._context.health.waiting("names", f"Kubernetes: {said}")
            else:
                self._context.health.ready("names")


def _connect(kubeconfig: str) -> Any:
    try:
        if kubeconfig:
            config.load_kube_config(kubeconfig)
        else:
            config.load_incluster_config()
    except (config.ConfigException, OSError) as error:
        raise CannotRun(
            f"no Kubernetes API ({error}): run in a pod, or set FLOWVERDICT_KUBECONFIG, "
            "or FLOWVERDICT_NAMES=inventory"
        ) from None
    connection = client.ApiClient()
    # It retries in silence; we retry and log why.
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
        return f"the API forbids it (403): grant get, list and watch on {resource.name} everywhere"
    return f"the API answers {status}"


def _why(error: Exception) -> str:
    # Of a connection that cannot be made, the reason without the path that was asked for.
    return str(getattr(error, "reason", "") or error) or type(error).__name__


def _decoded(raw: msgspec.Raw, resource: _Resource) -> cluster.Object | None:
    """The object, or None for one that is not as the API says: all others are named still."""
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
    following = ""
    while True:
        response = _get(api, resource, {"limit": PAGE, "continue": following}, 30)
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
    """How far a resource is known, and how long to wait before trying again.

    Attributes:
        pause: seconds.
        version: empty if it is to be listed.
    """

    pause: float
    version: str = ""


def _watch(
    api: Any, resource: _Resource, state: Cluster, position: _Position, readiness: _Readiness
) -> None:
    """Apply changes after `position` until the server ends the watch, and move it along."""
    query = {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": position.version,
        "timeoutSeconds": WATCH_SECONDS,
    }
    response = _get(api, resource, query, SILENCE_SECONDS)
    readiness.tell(resource, "")
    try:
        for line in _lines(response):
            event = msgspec.json.decode(line, type=_Event)
            if event.type == "ERROR":
                failure = msgspec.json.decode(event.object, type=_Failure)
                if failure.code == 410:
                    raise _Gone
                raise _Refused(f"the watch ends with {failure.code}: {failure.message}")
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


def _follow_for_ever(
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
            log.info("the watch of %s is too old, listing again", resource.name)
            position.version, pause = "", position.pause
        except Exception as error:  # noqa: BLE001 # whatever comes, names are followed on
            readiness.tell(resource, _why(error))
            pause = position.pause
            # What happened meanwhile is only in a fresh list if the watch itself was lost.
            if not isinstance(error, urllib3.exceptions.HTTPError):
                position.version = ""
        if time.monotonic() - began < SETTLED_SECONDS:
            time.sleep(pause * random.uniform(0.5, 1.5))
            position.pause = min(position.pause * 2, LAST_PAUSE_SECONDS)
        else:
            position.pause = FIRST_PAUSE_SECONDS


async def follow(kubeconfig: str, directory: Directory, context: Context) -> None:
    """Keep `directory` as the cluster is, until the service is to stop.

    Raises:
        CannotRun: if there are no credentials for a cluster.
    """
    api = _connect(kubeconfig)
    state, readiness = Cluster(directory), _Readiness(context)
    for resource in _RESOURCES:
        # Threads of their own, which may hang in a read: the process ends without waiting for them.
        threading.Thread(
            target=_follow_for_ever,
            args=(api, resource, state, context, readiness),
            name=f"kubernetes {resource.name}",
            daemon=True,
        ).start()
    await context.stopping.wait()


def check(kubeconfig: str) -> int:
    """Print whether all that names come from can be listed; 0 if it can."""
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
