"""Creates, awaits and removes the experiment's objects in Kubernetes."""

import functools
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client, config

from flowverdict_runtime.kubernetes_facts import why_not_ready

__all__ = ["EXPERIMENT", "FLOWVERDICT", "ClusterError", "Objects", "manifests"]

EXPERIMENT, FLOWVERDICT = "flowverdict-experiment", "flowverdict"
"""The namespaces of the experiment's pods and of Flowverdict."""

_FOLDER = Path(__file__).parents[2] / "deploy/k8s/overlays/experiment"
_TIMEOUT = (5, 30)
# The API returns the object being deleted; the client expects a Status and fails to parse it.
_RAW_RESPONSE: Any = {"_preload_content": False, "_request_timeout": _TIMEOUT}
_POLL_SECONDS = 0.2
_FATAL = ("ImagePullBackOff", "ErrImageNeverPull", "InvalidImageName", "CreateContainerError")
_UNREACHABLE = (urllib3.exceptions.HTTPError, OSError)


class ClusterError(RuntimeError):
    """The cluster cannot run the experiment; the message says why."""


def manifests() -> Iterator[dict[str, Any]]:
    """The namespace, the service and the pods from deploy/k8s/overlays/experiment."""
    for name in ("namespace.yaml", "pods.yaml"):
        yield from yaml.safe_load_all((_FOLDER / name).read_text())


class Objects:
    """Pods, services and namespaces of one cluster.

    Args:
        kubeconfig: a file; empty for the default ($KUBECONFIG, ~/.kube/config), or the pod's own.
        context: a context in that file; empty for the current one.

    Raises:
        ClusterError: if no cluster is configured.
    """

    def __init__(self, kubeconfig: str = "", context: str = "") -> None:
        try:
            config.load_config(config_file=kubeconfig or None, context=context or None)
        except (
            config.ConfigException,
            OSError,
            ValueError,
            TypeError,
            AttributeError,
            yaml.YAMLError,
        ) as error:
            raise ClusterError(f"no cluster configured: {error}") from None
        self._core = client.CoreV1Api()
        self._batch = client.BatchV1Api()

    def create(self, thing: dict[str, Any]) -> None:
        """Create a namespace, a service or a pod; an existing one is left as it is."""
        kind, name = thing["kind"], thing["metadata"]["name"]
        namespace = thing["metadata"].get("namespace")
        # The client also accepts plain data, but its type hints cover only its own models.
        core: Any = self._core
        make = {
            "Namespace": core.create_namespace,
            "Service": functools.partial(core.create_namespaced_service, namespace),
            "Pod": functools.partial(core.create_namespaced_pod, namespace),
        }[kind]
        self._ask(
            lambda: make(thing, _request_timeout=_TIMEOUT), f"create {kind} {name}", unless=409
        )

    def pod(self, namespace: str, name: str) -> Any:
        """The pod, or None if there is none."""
        return self._ask(
            lambda: self._core.read_namespaced_pod(name, namespace, _request_timeout=_TIMEOUT),
            f"read pod {name}",
            unless=404,
        )

    def template(self, namespace: str, cron_job: str) -> dict[str, Any]:
        """The pod template of a cron job, as plain data.

        Raises:
            ClusterError: if there is none.
        """
        found = self._ask(
            lambda: self._batch.read_namespaced_cron_job(
                cron_job, namespace, _request_timeout=_TIMEOUT
            ),
            f"read cron job {cron_job}",
            unless=404,
        )
        if found is None:
            raise ClusterError(
                f"no Flowverdict in namespace {namespace}: run kubectl apply -k deploy/k8s first"
            )
        plain: dict[str, Any] = client.ApiClient().sanitize_for_serialization(found)
        template: dict[str, Any] = plain["spec"]["jobTemplate"]["spec"]["template"]
        return template

    def log(self, namespace: str, name: str) -> str:
        """What the pod has printed so far."""
        core: Any = self._core
        text = self._ask(
            # As bytes: the client turns text that looks like JSON into Python's own notation.
            lambda: core.read_namespaced_pod_log(
                name, namespace, _preload_content=False, _request_timeout=_TIMEOUT
            ).data.decode(errors="replace"),
            f"read the log of pod {name}",
            unless=404,
        )
        return str(text or "")

    def delete_pod(self, namespace: str, name: str) -> None:
        """Remove a pod; a missing one is not an error."""
        self._ask(
            lambda: self._core.delete_namespaced_pod(name, namespace, **_RAW_RESPONSE),
            f"remove pod {name}",
            unless=404,
        )

    def delete_namespace(self, name: str) -> None:
        """Remove a namespace and everything in it; a missing one is not an error."""
        self._ask(
            lambda: self._core.delete_namespace(name, **_RAW_RESPONSE),
            f"remove namespace {name}",
            unless=404,
        )

    def namespace_exists(self, name: str) -> bool:
        """Whether the namespace exists; true also while it is being deleted."""
        return bool(
            self._ask(
                lambda: self._core.read_namespace(name, _request_timeout=_TIMEOUT),
                f"read namespace {name}",
                unless=404,
            )
        )

    def wait(self, what: str, condition: Callable[[], bool], seconds: float) -> None:
        """Wait until `condition` is true.

        Raises:
            ClusterError: if it is not in time.
        """
        deadline = time.monotonic() + seconds
        while not condition():
            if time.monotonic() > deadline:
                raise ClusterError(f"gave up after {seconds:.0f} s waiting for {what}")
            time.sleep(_POLL_SECONDS)

    def wait_ready(self, namespace: str, name: str, seconds: float) -> None:
        """Wait until a pod is ready.

        Raises:
            ClusterError: if it ends instead or is not ready in time; the message says why.
        """
        why = ""

        def ready() -> bool:
            nonlocal why
            pod = self.pod(namespace, name)
            if pod is None:
                raise ClusterError(f"pod {name} is gone")
            why = why_not_ready(pod)
            if any(reason in why for reason in _FATAL):
                raise ClusterError(f"pod {name} cannot start")
            if pod.status.phase in ("Failed", "Succeeded"):
                raise ClusterError(f"pod {name} has ended: {self.log(namespace, name)[-500:]}")
            return not why

        try:
            self.wait(f"pod {name} to be ready", ready, seconds)
        except ClusterError as error:
            raise ClusterError(f"{error}; {why}" if why else str(error)) from None

    def _ask(self, action: Callable[[], Any], what: str, unless: int) -> Any:
        try:
            answer = action()
        except client.ApiException as error:
            if error.status == unless:
                return None
            raise ClusterError(f"cannot {what}: {error.status} {_error_message(error)}") from None
        except _UNREACHABLE as error:
            raise ClusterError(f"cannot {what}: the API does not answer ({error})") from None
        return answer


def _error_message(error: client.ApiException) -> str:
    """The API's error message, or the HTTP reason phrase."""
    try:
        return str(json.loads(error.body or "")["message"])
    except (ValueError, KeyError, TypeError):
        return str(error.reason)
