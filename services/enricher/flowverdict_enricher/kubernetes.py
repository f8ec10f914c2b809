"""Names from a cluster: its pods, listed and watched.

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
from datetime import datetime
from typing import Any

import msgspec
import urllib3
from kubernetes import client, config

from flowverdict_contracts.addresses import to_bytes
from flowverdict_enricher.directory import Directory, Endpoint
from flowverdict_runtime.service import CannotRun, Context

__all__ = ["check", "follow"]

log = logging.getLogger(__name__)

PAGE = 500
WATCH_SECONDS = 100
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.5, 30.0
SILENCE_SECONDS = 130
"""A watch that gives nothing for longer than the server was asked to keep it is dead."""


class _Ip(msgspec.Struct):
    ip: str = ""


class _Owner(msgspec.Struct):
    kind: str
    name: str
    controller: bool = False


class _Metadata(msgspec.Struct, rename="camel"):
    name: str = ""
    namespace: str = ""
    uid: str = ""
    resource_version: str = ""
    labels: dict[str, str] = {}
    owner_references: list[_Owner] = []
    creation_timestamp: datetime | None = None
    continue_: str = msgspec.field(default="", name="continue")


class _Spec(msgspec.Struct, rename="camel"):
    node_name: str = ""
    host_network: bool = False


class _Status(msgspec.Struct):
    phase: str = ""
    pod_ips: list[_Ip] = msgspec.field(default_factory=list, name="podIPs")
    host_ip: str = msgspec.field(default="", name="hostIP")
    host_ips: list[_Ip] = msgspec.field(default_factory=list, name="hostIPs")
    start_time: datetime | None = msgspec.field(default=None, name="startTime")


class _Pod(msgspec.Struct):
    metadata: _Metadata
    spec: _Spec = msgspec.field(default_factory=_Spec)
    status: _Status = msgspec.field(default_factory=_Status)


class _PodList(msgspec.Struct):
    metadata: _Metadata
    items: list[_Pod]


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


_PASSING = (_Refused, urllib3.exceptions.HTTPError, msgspec.MsgspecError, ValueError, OSError)


def _connect(kubeconfig: str) -> Any:
    try:
        if kubeconfig:
            config.load_kube_config(kubeconfig)
        else:
            config.load_incluster_config()
    except (config.ConfigException, OSError) as error:
        raise CannotRun(
            f"no Kubernetes to ask ({error}): run in a pod, or set FLOWVERDICT_KUBECONFIG, "
            "or FLOWVERDICT_NAMES=inventory"
        ) from None
    return client.ApiClient()


def _get(api: Any, query: dict[str, Any], read_seconds: float) -> urllib3.BaseHTTPResponse:
    """The open response to a GET of the pods of all namespaces."""
    request = api.param_serialize(
        "GET",
        "/api/v1/pods",
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
        raise _Refused(_refusal(response.status))
    return response


def _refusal(status: int) -> str:
    if status == 401:
        return "the API does not know our credentials (401)"
    if status == 403:
        return "the API forbids it (403): grant get, list and watch on pods in all namespaces"
    return f"the API answers {status}"


def workload_of(pod: _Metadata) -> tuple[str, str]:
    """Name and kind of what made a pod: its controller, or the Deployment of its ReplicaSet.

    A Deployment names its ReplicaSets after itself and the pod-template-hash label
    (pkg/controller/deployment/sync.go).
    """
    owner = next((each for each in pod.owner_references if each.controller), None)
    if owner is None:
        return "", ""
    template = pod.labels.get("pod-template-hash", "")
    if owner.kind == "ReplicaSet" and template and owner.name.endswith(f"-{template}"):
        return owner.name.removesuffix(f"-{template}"), "Deployment"
    return owner.name, owner.kind


def _apply(pod: _Pod, directory: Directory) -> None:
    now = time.time_ns()
    meta, status, node = pod.metadata, pod.status, pod.spec.node_name
    host = {each.ip for each in status.host_ips} | {status.host_ip}
    addresses = [to_bytes(ip) for ip in host if ip]
    # A pod that is only just bound to its node does not tell the node's address yet.
    if node and addresses:
        directory.put(f"node/{node}", Endpoint("node", node=node), addresses, 0, now)
    if status.phase in ("Succeeded", "Failed"):
        # Its address is free for another from now on, though the pod object stays.
        directory.end(meta.uid, now)
        return
    workload, kind = workload_of(meta)
    endpoint = Endpoint(
        "pod",
        namespace=meta.namespace,
        pod=meta.name,
        workload=workload,
        workload_kind=kind,
        node=node,
    )
    own = [] if pod.spec.host_network else [each.ip for each in status.pod_ips if each.ip]
    began = status.start_time or meta.creation_timestamp
    since = int(began.timestamp() * 1e9) if began else now
    directory.put(meta.uid, endpoint, map(to_bytes, own), since, now)


def _list(api: Any, directory: Directory) -> str:
    """Read all pods into `directory`; returns the version to watch from."""
    owners, following = set(), ""
    while True:
        response = _get(api, {"limit": PAGE, "continue": following}, 30)
        page = msgspec.json.decode(response.read(), type=_PodList)
        for pod in page.items:
            _apply(pod, directory)
            owners.add(pod.metadata.uid)
            owners.add(f"node/{pod.spec.node_name}")
        following = page.metadata.continue_
        if not following:
            directory.keep_only(owners, time.time_ns())
            return page.metadata.resource_version


def _lines(response: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
    rest = b""
    for chunk in response.stream(1 << 16, decode_content=True):
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line)


def _watch(api: Any, directory: Directory, version: str, context: Context) -> str:
    """Apply changes after `version` until the server ends the watch; returns the last version."""
    query = {
        "watch": "true",
        "allowWatchBookmarks": "true",
        "resourceVersion": version,
        "timeoutSeconds": WATCH_SECONDS,
    }
    response = _get(api, query, SILENCE_SECONDS)
    context.health.ready("names")
    try:
        for line in _lines(response):
            event = msgspec.json.decode(line, type=_Event)
            if event.type == "ERROR":
                failure = msgspec.json.decode(event.object, type=_Failure)
                if failure.code == 410:
                    raise _Gone
                raise _Refused(f"the watch ends with {failure.code}: {failure.message}")
            pod = msgspec.json.decode(event.object, type=_Pod)
            version = pod.metadata.resource_version
            if event.type == "DELETED":
                directory.end(pod.metadata.uid, time.time_ns())
            elif event.type != "BOOKMARK":
                _apply(pod, directory)
    finally:
        response.close()
    return version


def _follow_for_ever(api: Any, directory: Directory, context: Context) -> None:
    version, pause = "", FIRST_PAUSE_SECONDS
    while not context.stopping.is_set():
        try:
            if not version:
                version = _list(api, directory)
                log.info("pods listed", extra={"owners": len(directory)})
            version = _watch(api, directory, version, context)
            pause = FIRST_PAUSE_SECONDS
        except _Gone:
            log.info("the watch is too old, listing again")
            version = ""
        except _PASSING as error:
            context.health.waiting("names", f"Kubernetes: {error or type(error).__name__}")
            # What happened meanwhile is only in a fresh list if the watch itself was lost.
            version = version if isinstance(error, urllib3.exceptions.HTTPError) else ""
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, LAST_PAUSE_SECONDS)


async def follow(kubeconfig: str, directory: Directory, context: Context) -> None:
    """Keep `directory` as the cluster is, until the service is to stop.

    Raises:
        CannotRun: where there are no credentials for a cluster.
    """
    api = _connect(kubeconfig)
    # A thread of its own, which may hang in a read: the process ends without waiting for it.
    arguments = (api, directory, context)
    threading.Thread(
        target=_follow_for_ever, args=arguments, name="kubernetes", daemon=True
    ).start()
    await context.stopping.wait()


def check(kubeconfig: str) -> int:
    """Print whether pods can be listed; 0 where they can."""
    try:
        response = _get(_connect(kubeconfig), {"limit": 1}, 10)
        response.close()
    except (CannotRun, _Gone, *_PASSING) as error:
        print(f"broken   Kubernetes: {error}")
        return 1
    print("ok       Kubernetes: pods can be listed")
    return 0
