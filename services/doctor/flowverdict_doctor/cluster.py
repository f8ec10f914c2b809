"""Checks Kubernetes: can the enricher read what it needs, and are Flowverdict's pods ready?"""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client, config

from flowverdict_doctor.finding import Finding, broken, ok, skipped, warning
from flowverdict_doctor.settings import DoctorSettings
from flowverdict_runtime.kubernetes_facts import WATCHED, why_not_ready

__all__ = ["findings"]

_WHAT = "Kubernetes"
_IN_POD = "KUBERNETES_SERVICE_HOST"
_TIMEOUT = (5, 10)
_INVALID_KUBECONFIG = (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError)
"""What the client raises if a file is not a valid kubeconfig."""
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_SELECTOR, _NAME_LABEL = "app.kubernetes.io/part-of=flowverdict", "app.kubernetes.io/name"


def _allowed(api: Any, group: str, resource: str, verb: str) -> bool:
    attributes = {"group": group, "resource": resource, "verb": verb}
    review = {"spec": {"resourceAttributes": attributes}}
    answer = api.create_self_subject_access_review(review, _request_timeout=_TIMEOUT)
    return bool(answer.status.allowed)


def _permissions(connection: Any) -> Finding:
    api = client.AuthorizationV1Api(connection)
    refused = [
        f"{verb} {resource.name}"
        for resource in reversed(WATCHED)
        for verb in ("list", "watch")
        if not _allowed(api, resource.group, resource.name, verb)
    ]
    if refused:
        return broken(
            _WHAT,
            f"not allowed to {', '.join(refused)}",
            "bind the ClusterRole flowverdict-enricher from deploy/k8s/base/enricher.yaml",
        )
    return ok(_WHAT, "pods, nodes, services, endpoint slices and jobs can be listed and watched")


def _pods(connection: Any) -> Iterator[Finding]:
    namespace = _NAMESPACE.read_text() if _NAMESPACE.exists() else "flowverdict"
    api: Any = client.CoreV1Api(connection)
    found = api.list_namespaced_pod(namespace, label_selector=_SELECTOR, _request_timeout=_TIMEOUT)
    parts: dict[str, dict[str, str]] = {}
    for pod in found.items:
        name = pod.metadata.labels.get(_NAME_LABEL, pod.metadata.name)
        # Pods of finished jobs are kept only for their logs.
        if pod.status.phase not in ("Succeeded", "Failed") and name != "doctor":
            parts.setdefault(name, {})[pod.metadata.name] = why_not_ready(pod)
    if not parts:
        yield warning(_WHAT, f"no Flowverdict pods in {namespace}", "kubectl apply -k deploy/k8s")
    for name, pods in sorted(parts.items()):
        unready = {pod: why for pod, why in pods.items() if why}
        detail = f"{len(pods) - len(unready)} of {len(pods)} pods ready"
        if unready:
            first, why = next(iter(unready.items()))
            advice = f"kubectl -n {namespace} describe pod {first}, then read its logs"
            yield broken(name, f"{detail}; {first}: {why}", advice)
        else:
            yield ok(name, detail)


def _kubeconfig(settings: DoctorSettings) -> tuple[str, str]:
    """What says which kubeconfig to use, and its path, empty for this pod's service account."""
    if settings.kubeconfig or _IN_POD in os.environ:
        return "FLOWVERDICT_KUBECONFIG", settings.kubeconfig
    if os.environ.get("KUBECONFIG"):
        return "KUBECONFIG", os.environ["KUBECONFIG"]
    usual = Path("~/.kube/config").expanduser()
    return str(usual), str(usual) if usual.exists() else ""


def findings(settings: DoctorSettings) -> Iterator[Finding]:
    """Check Kubernetes, as this pod's service account or the kubeconfig's user."""
    setting, path = _kubeconfig(settings)
    try:
        if path:
            config.load_kube_config(path)
        elif _IN_POD in os.environ:
            config.load_incluster_config()
        else:
            advice = "set FLOWVERDICT_KUBECONFIG to a kubeconfig file"
            yield skipped(_WHAT, "not in a pod, and there is no kubeconfig", advice)
            return
    except (config.ConfigException, *_INVALID_KUBECONFIG) as error:
        what = f"{path} is not a valid kubeconfig" if path else "this pod's service account"
        yield broken(_WHAT, f"{what}: {error}", f"check {setting}")
        return
    with client.ApiClient() as connection:
        # No retries: whoever runs the doctor is waiting for the answer.
        connection.rest_client.pool_manager.connection_pool_kw["retries"] = 0
        try:
            yield _permissions(connection)
            yield from _pods(connection)
        except client.ApiException as error:
            advice = "are the credentials valid? see the API server's log"
            yield broken(_WHAT, f"the API server returned {error.status} {error.reason}", advice)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            yield broken(_WHAT, f"the API server failed: {error}", "is it reachable from here?")
