"""Names from a Docker engine: its containers and its networks.

A container is treated as a pod: its Compose project is the namespace, its Compose service the
workload. The gateways of the networks are the host's own addresses.
"""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Annotated, Any

import docker
import docker.errors
import msgspec

from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.enriched import Names
from flowverdict_enricher.directory import ALWAYS, Directory
from flowverdict_enricher.labels import labels_text
from flowverdict_runtime.context import Context
from flowverdict_runtime.logs import Throttle
from flowverdict_runtime.settings import redact
from flowverdict_runtime.terminal import printable

__all__ = ["check", "follow"]

log = logging.getLogger(__name__)
_throttle = Throttle()

# Compose's labels (docs.docker.com/reference/compose-file/services, "labels").
_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"
_NO_PROJECT = "docker"
"""The namespace of a container that Compose did not create."""
_CHANGES = frozenset({"start", "die", "destroy", "rename", "connect", "disconnect"})
_TIMEOUT_SECONDS = 10
_RELIST_SECONDS = 60
"""How often to list again even without events, in case one was missed."""
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.5, 15.0


def _addresses(container: dict[str, Any]) -> Iterator[bytes]:
    for network in container["NetworkSettings"]["Networks"].values():
        for field in ("IPAddress", "GlobalIPv6Address"):
            if network.get(field):
                yield to_bytes(network[field])


def _gateways(network: dict[str, Any]) -> Iterator[bytes]:
    # A network without a gateway, such as `none`, has no entry.
    for part in network["IPAM"].get("Config") or ():
        if part.get("Gateway"):
            yield to_bytes(part["Gateway"].partition("/")[0])


def _endpoint(container: dict[str, Any], host: str, label_keys: Sequence[str]) -> Names:
    labels = container.get("Labels") or {}
    workload = labels.get(_SERVICE, "")
    return Names(
        "pod",
        namespace=labels.get(_PROJECT, _NO_PROJECT),
        # Of several names, those with a second slash are other containers' links to it.
        pod=min((name.lstrip("/") for name in container["Names"]), key=lambda n: n.count("/")),
        workload=workload,
        workload_kind="ComposeService" if workload else "",
        node=host,
        labels=labels_text(labels, label_keys),
    )


class _Container(msgspec.Struct):
    """What every container in the engine's list has."""

    Id: str
    Created: Annotated[int, msgspec.Meta(ge=0, lt=1 << 33)]
    Names: Annotated[list[str], msgspec.Meta(min_length=1)]
    Labels: dict[str, str] | None = None
    HostConfig: dict[str, Any] = {}


def _list(
    api: Any, directory: Directory, host: str, since_ns: int, label_keys: Sequence[str]
) -> None:
    """Update the directory from the engine; anything new is dated `since_ns`, if not 0."""
    now = time.time_ns()
    owners, gateways, hosted = {f"node/{host}"}, [], dict[str, Names]()
    for network in api.networks():
        with _skip_malformed(network):
            gateways += list(_gateways(network))
    for container in api.containers():
        with _skip_malformed(container):
            typed = msgspec.convert(container, _Container)
            owners.add(typed.Id)
            # Only in the first list can a container have had its addresses since its creation.
            began = since_ns or typed.Created * 1_000_000_000
            own, names = list(_addresses(container)), _endpoint(container, host, label_keys)
            directory.put(typed.Id, names, own, began, now)
            if typed.HostConfig.get("NetworkMode") == "host":
                hosted[typed.Id] = names
                directory.host_pods.put(typed.Id, names)
    directory.keep_only(owners, now)
    directory.host_pods.keep_only(hosted, now)
    candidates = ",".join(sorted(f"{each.namespace}/{each.pod}" for each in hosted.values()))
    directory.put(
        f"node/{host}", Names("node", node=host, candidates=candidates), gateways, ALWAYS, now
    )


@contextlib.contextmanager
def _skip_malformed(thing: Any) -> Iterator[None]:
    """Log and skip a malformed object, so that the others still get their names."""
    try:
        yield
    except (msgspec.MsgspecError, KeyError, TypeError, ValueError, AttributeError) as error:
        _throttle.warn(
            log, "malformed", "malformed object skipped", what=repr(thing)[:200], why=repr(error)
        )


def _watch(api: Any, directory: Directory, context: Context, label_keys: Sequence[str]) -> None:
    """List now and after each change, until the engine disconnects."""
    host, since = api.info()["Name"], 0
    while not context.stopping.is_set():
        events_from = int(time.time())
        _list(api, directory, host, since, label_keys)
        context.health.ready("names")
        events = api.events(
            decode=True,
            since=events_from,
            until=events_from + _RELIST_SECONDS,
            filters={"type": ["container", "network"]},
        )
        for event in events:
            # Health checks cause many `exec_start: …` events.
            if event.get("Action") in _CHANGES:
                at = event.get("timeNano")
                is_time = isinstance(at, int) and 0 < at <= time.time_ns()
                changed = at if is_time else time.time_ns()
                _list(api, directory, host, changed, label_keys)
        since = time.time_ns()
        if time.time() - events_from < FIRST_PAUSE_SECONDS:  # the stream ended at once
            time.sleep(FIRST_PAUSE_SECONDS)


def _keep_following(
    url: str, directory: Directory, context: Context, label_keys: Sequence[str]
) -> None:
    pause = FIRST_PAUSE_SECONDS
    while not context.stopping.is_set():
        api, began = None, time.monotonic()
        try:
            api = docker.APIClient(base_url=url, version="auto", timeout=_TIMEOUT_SECONDS)
            _watch(api, directory, context, label_keys)
        except Exception as error:  # noqa: BLE001 # whatever happens, keep following
            why = redact(str(error)) or type(error).__name__
            context.health.waiting("names", f"Docker at {redact(url)}: {why}")
            lasted = time.monotonic() - began
            pause = FIRST_PAUSE_SECONDS if lasted > LAST_PAUSE_SECONDS else pause
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, LAST_PAUSE_SECONDS)
        finally:
            if api is not None:
                api.close()


async def follow(
    url: str, directory: Directory, context: Context, label_keys: Sequence[str] = ()
) -> None:
    """Keep `directory` in sync with the engine at `url` until the service stops.

    The labels of containers that have one of `label_keys` are part of their names.
    """
    # A daemon thread, since it may hang in a read: the process exits without waiting for it.
    arguments = (url, directory, context, label_keys)
    threading.Thread(target=_keep_following, args=arguments, name="docker", daemon=True).start()
    await context.stopping.wait()


def check(url: str) -> int:
    """Print whether the engine answers; 0 if it does."""
    try:
        api = docker.APIClient(base_url=url, version="auto", timeout=_TIMEOUT_SECONDS)
        count = len(api.containers())
        api.close()
    except Exception as error:  # noqa: BLE001 # it may not be Docker at all
        why = printable(redact(str(error)))
        print(f"broken   Docker at {redact(url)}: {why}; check FLOWVERDICT_DOCKER_URL")
        return 1
    print(f"ok       Docker at {redact(url)}: {count} running containers")
    return 0
