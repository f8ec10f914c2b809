"""Whether Kubernetes is removing the collector, rather than replacing one pod of it.

When it is removed, nothing may stay behind in the kernel. The pod itself cannot tell: it gets
SIGTERM in both cases. So a stopping collector asks the API server about its own DaemonSet and
namespace.
"""

import http.client
import json
import os
import platform
import ssl
from pathlib import Path

__all__ = ["is_being_removed"]

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_SECONDS = 3
_NO_LONGER_ALLOWED = (401, 403)


def is_being_removed(account: Path = _ACCOUNT) -> bool:
    """Whether the DaemonSet or its namespace is gone or going.

    False outside Kubernetes, and if the API server does not answer. That it refuses the answer
    counts as gone: the permission to ask is removed together with the DaemonSet.

    Args:
        account: where Kubernetes put the pod's credentials.
    """
    host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}") for name in ("HOST", "PORT"))
    try:
        token, namespace = ((account / name).read_text() for name in ("token", "namespace"))
        context = ssl.create_default_context(cafile=account / "ca.crt")
    except (OSError, ssl.SSLError):
        return False
    if not host or not port:
        return False
    name = platform.node().rpartition("-")[0]  # a pod is called DAEMONSET-RANDOM
    connection = http.client.HTTPSConnection(host, int(port), timeout=_SECONDS, context=context)
    try:
        return any(
            _is_going(connection, token, path)
            for path in (
                f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}",
                f"/api/v1/namespaces/{namespace}",
            )
        )
    except (OSError, http.client.HTTPException, ValueError):
        return False
    finally:
        connection.close()


def _is_going(connection: http.client.HTTPSConnection, token: str, path: str) -> bool:
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status == http.HTTPStatus.OK:
        return "deletionTimestamp" in json.loads(body)["metadata"]
    return answer.status in (*_NO_LONGER_ALLOWED, http.HTTPStatus.NOT_FOUND)
