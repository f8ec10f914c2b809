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
import time
from pathlib import Path

__all__ = ["Removal"]

_ACCOUNT = Path("/var/run/secrets/kubernetes.io/serviceaccount")
_TIMEOUT_SECONDS = 3
_ASKED_AGAIN_SECONDS = 3
_NO_LONGER_ALLOWED = (401, 403)


class Removal:
    """Asks the API server about the collector's own DaemonSet and namespace.

    Args:
        account: where Kubernetes put the pod's credentials; without them, outside Kubernetes and
            if the answer is refused from the start, nothing counts as a removal.
    """

    def __init__(self, account: Path = _ACCOUNT) -> None:
        self._account = account
        self.can_tell = self._ask() is False

    def is_under_way(self) -> bool:
        """Whether the DaemonSet or its namespace is gone or going.

        False if the API server does not answer. That it refuses the answer counts as gone if it
        still does seconds later: the permission to ask is removed together with the DaemonSet.
        """
        if not self.can_tell:
            return False
        answer = self._ask()
        if answer is None:
            time.sleep(_ASKED_AGAIN_SECONDS)
            answer = self._ask()
        return answer is not False

    def _ask(self) -> bool | None:
        """Whether it is going; None if the answer is refused, False if there is none."""
        host, port = (os.environ.get(f"KUBERNETES_SERVICE_{name}") for name in ("HOST", "PORT"))
        try:
            token, namespace = (
                (self._account / name).read_text() for name in ("token", "namespace")
            )
            context = ssl.create_default_context(cafile=self._account / "ca.crt")
        except (OSError, ssl.SSLError):
            return False
        if not host or not port:
            return False
        name = platform.node().rpartition("-")[0]  # a pod is called DAEMONSET-RANDOM
        connection = http.client.HTTPSConnection(
            host, int(port), timeout=_TIMEOUT_SECONDS, context=context
        )
        try:
            answers = [
                _is_going(connection, token, path)
                for path in (
                    f"/apis/apps/v1/namespaces/{namespace}/daemonsets/{name}",
                    f"/api/v1/namespaces/{namespace}",
                )
            ]
        except (OSError, http.client.HTTPException, ValueError, KeyError):
            return False
        finally:
            connection.close()
        if True in answers:
            return True
        return None if None in answers else False


def _is_going(connection: http.client.HTTPSConnection, token: str, path: str) -> bool | None:
    connection.request("GET", path, headers={"Authorization": f"Bearer {token}"})
    answer = connection.getresponse()
    body = answer.read()
    if answer.status in _NO_LONGER_ALLOWED:
        return None
    if answer.status == http.HTTPStatus.OK:
        return "deletionTimestamp" in json.loads(body)["metadata"]
    return answer.status == http.HTTPStatus.NOT_FOUND
