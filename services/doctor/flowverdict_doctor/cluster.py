"""Kubernetes: may the enricher read what it needs, and are Flowverdict's own pods ready?"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import urllib3
import yaml
from kubernetes import client, config

from flowverdict_doctor.finding import Finding, broken, ok, warning
from flowverdict_doctor.settings import DoctorSettings
from flowverdict_runtime.kubernetes_facts import WATCHED, why_not_ready

__all__ = ["findings"]

_WHAT = "Kubernetes"
_TIMEOUT = (5, 10)
NO_CONFIG = (OSError, ValueError, TypeError, AttributeError, yaml.YAMLError)
"""What the client lets through where a file is no kubeconfig."""
_NAMESPACE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
_OURS, _NAME = "app.kubernetes.io/part-of=flowverdict", "app.kubernetes.io/name"


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
            f"may not {', '.join(refused)}",
            "bind the ClusterRole flowverdict-enricher of deploy/k8s/base/enricher.yaml",
        )
    return ok(_WHAT, "pods, nodes, services, endpoint slices and jobs can be listed and watched")


def _pods(connection: Any) -> Iterator[Finding]:
    namespace = _NAMESPACE.read_text() if _NAMESPACE.exists() else "flowverdict"
    api: Any = client.CoreV1Api(connection)
    found = api.list_namespaced_pod(namespace, label_selector=_OURS, _request_timeout=_TIMEOUT)
    parts: dict[str, dict[str, str]] = {}
    for pod in found.items:
        name = pod.metadata.labels.get(_NAME, pod.metadata.name)
        # Those of jobs that have ended are only still there for their logs.
        if pod.status.phase not in ("Succeeded", "Failed") and name != "doctor":
            parts.setdefault(name, {})[pod.metadata.name] = why_not_ready(pod)
    if not parts:
        yield warning(_WHAT, f"no pod of Flowverdict in {namespace}", "kubectl apply -k deploy/k8s")
    for name, pods in sorted(parts.items()):
        unready = {pod: why for pod, why in pods.items() if why}
        said = f"{len(pods) - len(unready)} of {len(pods)} pods ready"
        if unready:
            first, why = next(iter(unready.items()))
            advice = f"kubectl -n {namespace} describe pod {first}, and its logs"
            yield broken(name, f"{said}; {first}: {why}", advice)
        else:
            yield ok(name, said)


def findings(settings: DoctorSettings) -> Iterator[Finding]:
    """Lines about Kubernetes, as the service account of this pod or the kubeconfig's user."""
    try:
        if settings.kubeconfig:
            config.load_kube_config(settings.kubeconfig)
        else:
            config.load_incluster_config()
    except (config.ConfigException, *NO_CONFIG) as error:
        if settings.kubeconfig:
            why = f"{settings.kubeconfig} is no kubeconfig: {error}"
            yield broken(_WHAT, why, "FLOWVERDICT_KUBECONFIG names the file")
        else:
            yield ok(_WHAT, "not looked at: this is no pod and FLOWVERDICT_KUBECONFIG is not set")
        return
    with client.ApiClient() as connection:
        # Who asks wants an answer now.
        connection.rest_client.pool_manager.connection_pool_kw["retries"] = 0
        try:
            yield _permissions(connection)
            yield from _pods(connection)
        except client.ApiException as error:
            advice = "does the API know who asks? its log says"
            yield broken(_WHAT, f"the API answers {error.status} {error.reason}", advice)
        except (urllib3.exceptions.HTTPError, OSError, ValueError) as error:
            yield broken(_WHAT, f"the API: {error}", "can it be reached from here?")
