"""Kubernetes: may the enricher read what it needs?"""

from collections.abc import Iterator
from typing import Any

import urllib3
from kubernetes import client, config

from flowverdict_doctor.finding import Finding, broken, ok
from flowverdict_doctor.settings import DoctorSettings

__all__ = ["findings"]

_NEEDED = (
    ("", "pods"),
    ("", "nodes"),
    ("", "services"),
    ("discovery.k8s.io", "endpointslices"),
    ("batch", "jobs"),
)
_TIMEOUT = (5, 10)


def _allowed(api: Any, group: str, resource: str, verb: str) -> bool:
    attributes = {"group": group, "resource": resource, "verb": verb}
    review = {"spec": {"resourceAttributes": attributes}}
    answer = api.create_self_subject_access_review(review, _request_timeout=_TIMEOUT)
    return bool(answer.status.allowed)


def findings(settings: DoctorSettings) -> Iterator[Finding]:
    """Lines about Kubernetes, as the service account of this pod or the kubeconfig's user."""
    what = "Kubernetes"
    try:
        if settings.kubeconfig:
            config.load_kube_config(settings.kubeconfig)
        else:
            config.load_incluster_config()
    except (config.ConfigException, OSError) as error:
        if settings.kubeconfig:
            yield broken(what, str(error), "FLOWVERDICT_KUBECONFIG names the file")
        else:
            yield ok(what, "not looked at: this is no pod and FLOWVERDICT_KUBECONFIG is not set")
        return
    with client.ApiClient() as connection:
        # Who asks wants an answer now.
        connection.rest_client.pool_manager.connection_pool_kw["retries"] = 0
        api = client.AuthorizationV1Api(connection)
        try:
            refused = [
                f"{verb} {resource}"
                for group, resource in _NEEDED
                for verb in ("list", "watch")
                if not _allowed(api, group, resource, verb)
            ]
        except client.ApiException as error:
            advice = "does the API know who asks? its log says"
            yield broken(what, f"the API answers {error.status} {error.reason}", advice)
            return
        except (urllib3.exceptions.HTTPError, OSError) as error:
            yield broken(what, f"the API: {error}", "can it be reached from here?")
            return
    if refused:
        yield broken(
            what,
            f"may not {', '.join(refused)}",
            "bind the ClusterRole flowverdict-enricher of deploy/k8s/base/enricher.yaml",
        )
    else:
        yield ok(what, "pods, nodes, services, endpoint slices and jobs can be listed and watched")
