"""Names from a Docker engine: its containers and its networks.

A container takes a pod's place: its name is the pod's, its compose project the namespace, its
compose service the workload. Gateways of the networks are the host's own addresses there.
"""

import contextlib
import logging
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import docker
import docker.errors

from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.enriched import Names
from flowverdict_enricher.directory import ALWAYS, Directory
from flowverdict_runtime.context import Context
from flowverdict_runtime.logs import Throttle

__all__ = ["check", "follow"]

log = logging.getLogger(__name__)
_throttle = Throttle()

# Compose's labels (docs.docker.com/reference/compose-file/services, "labels").
_PROJECT, _SERVICE = "com.docker.compose.project", "com.docker.compose.service"
_ALONE = "docker"
"""The namespace of a container that no compose file made."""
_CHANGES = frozenset({"start", "die", "destroy", "rename", "connect", "disconnect"})
_TIMEOUT_SECONDS = 10
_RELIST_SECONDS = 60
"""Read anew so often also where nothing is heard of: a missed event is not missed for ever."""
FIRST_PAUSE_SECONDS, LAST_PAUSE_SECONDS = 0.5, 15.0


def _addresses(container: dict[str, Any]) -> Iterator[bytes]:
    for network in container["NetworkSettings"]["Networks"].values():
        for field in ("IPAddress", "GlobalIPv6Address"):
            if network.get(field):
                yield to_bytes(network[field])


def _gateways(network: dict[str, Any]) -> Iterator[bytes]:
    # A network without one, such as `none`, has nothing there.
    for part in network["IPAM"].get("Config") or ():
        if part.get("Gateway"):
            yield to_bytes(part["Gateway"].partition("/")[0])


def _endpoint(container: dict[str, Any], host: str) -> Names:
    labels = container.get("Labels") or {}
    workload = labels.get(_SERVICE, "")
    return Names(
        "pod",
        namespace=labels.get(_PROJECT, _ALONE),
        # Of several names, those with a further slash are links of others to it.
        pod=min((name.lstrip("/") for name in container["Names"]), key=lambda n: n.count("/")),
        workload=workload,
        workload_kind="ComposeService" if workload else "",
        node=host,
    )


def _list(api: Any, directory: Directory, host: str, since_ns: int) -> None:
    """Make the directory as the engine is now; what is new has been so `since_ns`."""
    now = time.time_ns()
    owners, gateways = {f"node/{host}"}, []
    for network in api.networks():
        with _malformed_skipped(network):
            gateways += list(_gateways(network))
    directory.put(f"node/{host}", Names("node", node=host), gateways, ALWAYS, now)
    for container in api.containers():
        with _malformed_skipped(container):
            owners.add(container["Id"])
            # After its first list it is the news that comes late, not the container.
            began = since_ns or container["Created"] * 1_000_000_000
            own = list(_addresses(container))
            directory.put(container["Id"], _endpoint(container, host), own, began, now)
    directory.keep_only(owners, now)


@contextlib.contextmanager
def _malformed_skipped(thing: Any) -> Iterator[None]:
    """A malformed object is logged and skipped, so that it keeps no other from its name."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        _throttle.warn(
            log, "malformed", "malformed object skipped", what=repr(thing)[:200], why=repr(error)
        )


def _watch(api: Any, directory: Directory, context: Context) -> None:
    """List, and again at each change, until the engine goes away."""
    host, since = api.info()["Name"], 0
    while not context.stopping.is_set():
        heard_from = int(time.time())
        _list(api, directory, host, since)
        context.health.ready("names")
        events = api.events(
            decode=True,
            since=heard_from,
            until=heard_from + _RELIST_SECONDS,
            filters={"type": ["container", "network"]},
        )
        for event in events:
            # Health checks are `exec_start: …`, and many.
            if event.get("Action") in _CHANGES:
                _list(api, directory, host, event.get("timeNano") or time.time_ns())
        since = time.time_ns()
        if time.time() - heard_from < FIRST_PAUSE_SECONDS:  # the stream ended at once
            time.sleep(FIRST_PAUSE_SECONDS)


def _follow_for_ever(url: str, directory: Directory, context: Context) -> None:
    pause = FIRST_PAUSE_SECONDS
    while not context.stopping.is_set():
        api, began = None, time.monotonic()
        try:
            api = docker.APIClient(base_url=url, version="auto", timeout=_TIMEOUT_SECONDS)
            _watch(api, directory, context)
        except Exception as error:  # noqa: BLE001 # whatever comes, names are followed on
            context.health.waiting("names", f"Docker at {url}: {error or type(error).__name__}")
            lasted = time.monotonic() - began
            pause = FIRST_PAUSE_SECONDS if lasted > LAST_PAUSE_SECONDS else pause
            time.sleep(pause * random.uniform(0.5, 1.5))
            pause = min(pause * 2, LAST_PAUSE_SECONDS)
        finally:
            if api is not None:
                api.close()


async def follow(url: str, directory: Directory, context: Context) -> None:
    """Keep `directory` as the engine at `url` is, until the service is to stop."""
    # A thread of its own, which may hang in a read: the process ends without waiting for it.
    arguments = (url, directory, context)
    threading.Thread(target=_follow_for_ever, args=arguments, name="docker", daemon=True).start()
    await context.stopping.wait()


def check(url: str) -> int:
    """Print whether the engine answers; 0 if it does."""
    try:
        api = docker.APIClient(base_url=url, version="auto", timeout=_TIMEOUT_SECONDS)
        count = len(api.containers())
        api.close()
    except Exception as error:  # noqa: BLE001 # also what is no Docker at all
        print(f"broken   Docker at {url}: {error}; FLOWVERDICT_DOCKER_URL says where it is")
        return 1
    print(f"ok       Docker at {url}: {count} containers run")
    return 0
