"""Names from a file, for the lab, tests and machines without Kubernetes.

JSON, for example:

    {"nodes": [{"name": "worker0", "addresses": ["10.0.0.10"], "zone": "a"}],
     "pods": [{"namespace": "default", "name": "pod-a", "addresses": ["10.244.0.2"],
               "node": "worker0", "workload": "web", "workload_kind": "Deployment"}],
     "services": [{"namespace": "default", "name": "web", "addresses": ["10.96.0.7"],
                   "pods": ["pod-a"]}]}
"""

import asyncio
import itertools
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import msgspec

from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.enriched import Names
from flowverdict_enricher.directory import ALWAYS, Directory
from flowverdict_enricher.labels import labels_text
from flowverdict_runtime.context import CannotRun, Context

__all__ = ["Inventory", "follow", "read"]


class InventoryNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A node and the addresses of its host network."""

    name: str
    addresses: tuple[str, ...] = ()
    zone: str = ""


class InventoryPod(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A pod; `workload` is what owns it, `workload_kind` is for example Deployment.

    One on its node's network has no addresses, but a `uid`: that in the name of its control group.
    """

    namespace: str
    name: str
    addresses: tuple[str, ...] = ()
    uid: str = ""
    node: str = ""
    workload: str = ""
    workload_kind: str = ""
    labels: dict[str, str] = {}


class InventoryService(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A service, its cluster IPs, and the pods behind it."""

    namespace: str
    name: str
    addresses: tuple[str, ...]
    pods: tuple[str, ...] = ()


class Inventory(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The contents of an inventory file."""

    nodes: tuple[InventoryNode, ...] = ()
    pods: tuple[InventoryPod, ...] = ()
    services: tuple[InventoryService, ...] = ()


def read(path: Path) -> Inventory:
    """The inventory in `path`.

    Raises:
        CannotRun: if the file is missing or not an inventory; the message says where and why.
    """
    try:
        inventory = msgspec.json.decode(path.read_bytes(), type=Inventory)
        owned = [node.addresses for node in inventory.nodes]
        owned += [pod.addresses for pod in inventory.pods]
        owned += [service.addresses for service in inventory.services]
        for address in itertools.chain(*owned):
            to_bytes(address)
    except OSError as error:
        raise CannotRun(f"inventory {path}: {error.strerror}") from None
    except (msgspec.MsgspecError, ValueError) as error:
        raise CannotRun(f"inventory {path}: {error}") from None
    return inventory


def apply(
    inventory: Inventory,
    directory: Directory,
    since_ns: int,
    now_ns: int,
    label_keys: Sequence[str] = (),
) -> None:
    """Update the directory from `inventory`; anything new is dated `since_ns`.

    The labels of pods that have one of `label_keys` are part of their names.
    """
    behind: dict[tuple[str, str], list[str]] = {}
    for service in inventory.services:
        for name in service.pods:
            behind.setdefault((service.namespace, name), []).append(service.name)
    wanted = _wanted(inventory, behind, label_keys)
    directory.keep_only(wanted, now_ns)
    directory.host_pods.keep_only((pod.uid for pod in inventory.pods), now_ns)
    for owner, (names, addresses) in wanted.items():
        own = [*map(to_bytes, addresses)]
        directory.put(owner, names, own, since_ns, now_ns)
        services = behind.get((names.namespace, names.pod), [])
        directory.backends.put(owner, ((names.namespace, each) for each in services), own)
    for pod in inventory.pods:
        if pod.uid:
            names, _ = wanted[f"pod/{pod.namespace}/{pod.name}"]
            services = behind.get((pod.namespace, pod.name), [])
            directory.host_pods.put(pod.uid, names, ((pod.namespace, each) for each in services))


def _wanted(
    inventory: Inventory, behind: Mapping[tuple[str, str], list[str]], label_keys: Sequence[str]
) -> dict[str, tuple[Names, tuple[str, ...]]]:
    """Names and addresses of everything in the inventory, by a unique id."""
    wanted: dict[str, tuple[Names, tuple[str, ...]]] = {}
    zones = {node.name: node.zone for node in inventory.nodes}
    hosted: dict[str, list[str]] = {}
    for pod in inventory.pods:
        if pod.uid:
            hosted.setdefault(pod.node, []).append(f"{pod.namespace}/{pod.name}")
    for node in inventory.nodes:
        candidates = ",".join(sorted(hosted.get(node.name, ())))
        wanted[f"node/{node.name}"] = (
            Names("node", node=node.name, zone=node.zone, candidates=candidates),
            node.addresses,
        )
    for pod in inventory.pods:
        wanted[f"pod/{pod.namespace}/{pod.name}"] = (
            Names(
                "pod",
                namespace=pod.namespace,
                pod=pod.name,
                workload=pod.workload,
                workload_kind=pod.workload_kind,
                node=pod.node,
                zone=zones.get(pod.node, ""),
                service=min(behind.get((pod.namespace, pod.name), ()), default=""),
                labels=labels_text(pod.labels, label_keys),
            ),
            pod.addresses,
        )
    for service in inventory.services:
        wanted[f"service/{service.namespace}/{service.name}"] = (
            Names("service", namespace=service.namespace, service=service.name),
            service.addresses,
        )
    return wanted


async def follow(
    path: Path, directory: Directory, context: Context, label_keys: Sequence[str] = ()
) -> None:
    """Fill `directory` from `path`, and again whenever the file changes, until the service stops.

    Raises:
        CannotRun: if the file is invalid at the start; later, the last valid version stays in use.
    """
    apply(read(path), directory, ALWAYS, time.time_ns(), label_keys)
    context.health.ready("names")
    last = (await asyncio.to_thread(path.stat)).st_mtime_ns
    while not context.stopping.is_set():
        await context.pause(1)
        try:
            changed = (await asyncio.to_thread(path.stat)).st_mtime_ns
            if changed == last:
                continue
            now = time.time_ns()
            apply(read(path), directory, now, now, label_keys)
        except OSError as error:
            context.health.waiting("names", f"inventory {path}: {error.strerror}")
        except CannotRun as error:
            context.health.waiting("names", str(error))
        else:
            last = changed
            context.health.ready("names")
