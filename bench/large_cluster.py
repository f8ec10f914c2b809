"""A cluster of 100,000 pods: how long the enricher takes to learn their names, what it takes in
memory, and to follow 1,000 changes a second.

A real enricher lists and watches an API that is played by this process: 5,000 nodes, and 5,000
services of 20 pods each. A pod's object has 4 kB, of which half is what its owner did last
(managedFields).
"""

import json
import tempfile
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from bench.figure import Figure
from bench.processes import processor_seconds, resident_mebibytes
from flowverdict_lab.pipeline import Pipeline

__all__ = ["measure"]

_PODS, _NODES, _BEHIND = 100_000, 5_000, 20
_PAGE = 500
_CHANGES, _CHANGES_A_SECOND = 10_000, 1_000
_PATIENCE_SECONDS = 120
_CREATED = {"creationTimestamp": "2026-01-01T00:00:00Z", "resourceVersion": "1"}


def _address(network: int, number: int) -> str:
    return f"{network}.{number >> 16}.{number >> 8 & 255}.{number & 255}"


def _pod(number: int) -> dict[str, Any]:
    service, node = number // _BEHIND, number % _NODES
    workload, template, address = f"web-{service}", f"{service:09x}", _address(10, number)
    now = "2026-01-01T00:00:01Z"
    conditions = ("PodScheduled", "Initialized", "ContainersReady", "Ready")
    return {
        "metadata": {
            **_CREATED,
            "name": f"{workload}-{template}-{number % _BEHIND:05x}",
            "namespace": f"team-{service // 100}",
            "uid": f"6ba7b810-9dad-11d1-80b4-{number:012x}",
            "labels": {
                "app.kubernetes.io/name": workload,
                "app.kubernetes.io/version": "1.24.0",
                "pod-template-hash": template,
            },
            "annotations": {"checksum/config": "9f86d081884c7d65" * 4},
            "ownerReferences": [
                {
                    "apiVersion": "apps/v1",
                    "kind": "ReplicaSet",
                    "name": f"{workload}-{template}",
                    "uid": f"6ba7b811-9dad-11d1-80b4-{service:012x}",
                    "controller": True,
                }
            ],
            "managedFields": [{"manager": "kubelet", "fieldsV1": {"f:status": "x" * 2000}}],
        },
        "spec": {
            "nodeName": f"node-{node}",
            "containers": [{"name": "web", "image": f"registry.example/{workload}:1.24.0"}],
        },
        "status": {
            "phase": "Running",
            "conditions": [
                {"type": each, "status": "True", "lastTransitionTime": now} for each in conditions
            ],
            "podIP": address,
            "podIPs": [{"ip": address}],
            "startTime": now,
        },
    }


def _node(number: int) -> dict[str, Any]:
    zone = {"topology.kubernetes.io/zone": f"zone-{number % 3}"}
    return {
        "metadata": {**_CREATED, "name": f"node-{number}", "uid": f"node-{number}", "labels": zone},
        "spec": {"podCIDRs": [f"100.{number >> 8}.{number & 255}.0/24"]},
        "status": {"addresses": [{"type": "InternalIP", "address": _address(172, number)}]},
    }


def _meta_of_service(number: int) -> dict[str, Any]:
    return {**_CREATED, "name": f"web-{number}", "namespace": f"team-{number // 100}"}


def _service(number: int) -> dict[str, Any]:
    uid = {"uid": f"service-{number}"}
    spec = {"clusterIPs": [_address(11, number)]}
    return {"metadata": {**_meta_of_service(number), **uid}, "spec": spec}


def _slice(number: int) -> dict[str, Any]:
    pods = map(_pod, range(number * _BEHIND, (number + 1) * _BEHIND))
    endpoints = [
        {
            "addresses": [each["status"]["podIP"]],
            "conditions": {"ready": True, "serving": True, "terminating": False},
            "nodeName": each["spec"]["nodeName"],
            "targetRef": {"kind": "Pod", "uid": each["metadata"]["uid"]},
        }
        for each in pods
    ]
    labels = {"kubernetes.io/service-name": f"web-{number}"}
    meta = {**_meta_of_service(number), "uid": f"slice-{number}", "labels": labels}
    return {"metadata": meta, "endpoints": endpoints}


def _pages(objects: Iterator[dict[str, Any]]) -> list[list[bytes]]:
    encoded = [json.dumps(each).encode() for each in objects]
    return [encoded[at : at + _PAGE] for at in range(0, len(encoded), _PAGE)]


class _Api(ThreadingHTTPServer):
    """Lists the objects of each resource; a watch on pods has `changes` once they are to come."""

    def __init__(self, resources: dict[str, list[list[bytes]]], changes: list[bytes]) -> None:
        super().__init__(("127.0.0.1", 0), _Answer)
        self.resources, self.changes = resources, changes
        self.changing = threading.Event()
        threading.Thread(target=self.serve_forever, daemon=True).start()


class _Answer(BaseHTTPRequestHandler):
    server: _Api
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        url = urlsplit(self.path)
        resource, query = url.path.rpartition("/")[2], parse_qs(url.query)
        if "watch" in query:
            self._watch(resource)
            return
        pages = self.server.resources.get(resource) or [[]]
        at = int(query.get("continue", ["0"])[0])
        meta = {"resourceVersion": "1", "continue": str(at + 1) if at + 1 < len(pages) else ""}
        items = b",".join(pages[at])
        body = b'{"metadata": %s, "items": [%s]}' % (json.dumps(meta).encode(), items)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _watch(self, resource: str) -> None:
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        if resource == "pods":
            self.server.changing.wait()
            began = time.monotonic()
            for number, line in enumerate(self.server.changes):
                time.sleep(max(0.0, began + number / _CHANGES_A_SECOND - time.monotonic()))
                self.wfile.write(b"%x\r\n%s\r\n" % (len(line), line))
        time.sleep(_PATIENCE_SECONDS)


def _until(happened: Any) -> float:
    """Seconds until something has happened."""
    began = time.monotonic()
    while not happened():
        if time.monotonic() - began > _PATIENCE_SECONDS:
            raise TimeoutError(f"not within {_PATIENCE_SECONDS} s")
        time.sleep(0.2)
    return time.monotonic() - began


def _enricher(folder: Path, api: _Api) -> Pipeline:
    """An enricher with names from `api`, and its NATS."""
    kubeconfig = folder / "kubeconfig"
    config = {
        "current-context": "bench",
        "clusters": [
            {"name": "bench", "cluster": {"server": f"http://127.0.0.1:{api.server_port}"}}
        ],
        "users": [{"name": "bench", "user": {"token": "none"}}],
        "contexts": [{"name": "bench", "context": {"cluster": "bench", "user": "bench"}}],
    }
    kubeconfig.write_text(json.dumps(config))
    names = {"FLOWVERDICT_NAMES": "kubernetes", "FLOWVERDICT_KUBECONFIG": str(kubeconfig)}
    pipeline = Pipeline(folder, "{}", collector=False, environ=names)
    pipeline.logs.mkdir(parents=True)
    pipeline.start_nats()
    pipeline.start("enricher")
    return pipeline


def _learning(resources: dict[str, list[list[bytes]]]) -> tuple[float, float, float, float]:
    """Seconds until an enricher is ready, its mebibytes then, the processor's seconds that the
    changes took, and the seconds from the last of them until its pod's name was known.
    """
    changes = [
        b'{"type": "ADDED", "object": %s}\n' % json.dumps(_pod(_PODS + number)).encode()
        for number in range(_CHANGES)
    ]
    api = _Api(resources, changes)
    with tempfile.TemporaryDirectory() as folder:
        pipeline = _enricher(Path(folder), api)
        try:
            ready = _until(lambda: pipeline.ready("enricher"))
            pid = pipeline.pid("enricher")
            mebibytes, before = resident_mebibytes(pid), processor_seconds(pid)
            known = pipeline.metric("enricher", "flowverdict_enricher_names") + _CHANGES
            api.changing.set()
            began = time.monotonic()
            _until(lambda: pipeline.metric("enricher", "flowverdict_enricher_names") >= known)
            late = time.monotonic() - began - _CHANGES / _CHANGES_A_SECOND
            return ready, mebibytes, processor_seconds(pid) - before, late
        finally:
            pipeline.close()
            api.shutdown()
            api.server_close()


def measure() -> list[Figure]:
    """Time and memory of an enricher that knows 100,000 pods, less those of one that knows none."""
    numbers = range(_PODS // _BEHIND)
    empty_ready, empty_mebibytes, *_ = _learning({})
    ready, mebibytes, processor, late = _learning(
        {
            "pods": _pages(map(_pod, range(_PODS))),
            "nodes": _pages(map(_node, range(_NODES))),
            "services": _pages(map(_service, numbers)),
            "endpointslices": _pages(map(_slice, numbers)),
        }
    )
    a_second = _CHANGES / _CHANGES_A_SECOND
    return [
        Figure("large cluster", "an enricher without pods: ready", empty_ready, "s"),
        Figure("large cluster", "with 100,000 pods", ready, "s"),
        Figure("large cluster", "an enricher without pods", empty_mebibytes, "MiB"),
        Figure("large cluster", "more with 100,000 pods", mebibytes - empty_mebibytes, "MiB"),
        Figure(
            "large cluster", "1,000 changes a second", 100 * processor / a_second, "% of a core"
        ),
        Figure("large cluster", "the last change known after", late, "s"),
    ]
