"""Creates the Secret `flowverdict-credentials`, or adds missing passwords to it; runs as a Job.

Existing keys are kept, so it is safe to run any number of times. It never prints a secret.
"""

import base64
import secrets
import sys
from pathlib import Path

from kubernetes import client, config

NAME = "flowverdict-credentials"
NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")
PASSWORDS = (
    "nats-collector",
    "nats-enricher",
    "nats-exporter",
    "nats-influx-writer",
    "nats-rca",
    "nats-reader",
    "nats-admin",
    "nats-verdicts-admin",
    "influxdb-password",
    "influxdb-token",
    "grafana-password",
)
ATTEMPTS = 5


def password() -> str:
    """A new password of 192 random bits.

    It starts with a letter: nats-server parses a variable that looks like a number as a number.
    """
    return "p" + secrets.token_hex(24)


def fill(core: client.CoreV1Api, namespace: str) -> list[str]:
    """Add the missing keys; returns their names.

    Raises:
        ApiException: if the API returns an error, such as a conflict with a concurrent change.
    """
    try:
        secret = core.read_namespaced_secret(NAME, namespace)
    except client.ApiException as error:
        if error.status != 404:
            raise
        core.create_namespaced_secret(
            namespace,
            client.V1Secret(
                metadata=client.V1ObjectMeta(name=NAME),
                string_data={name: password() for name in PASSWORDS},
            ),
        )
        return list(PASSWORDS)
    missing = [name for name in PASSWORDS if not (secret.data or {}).get(name)]
    if missing:
        assert secret.metadata is not None
        data = {name: base64.b64encode(password().encode()).decode() for name in missing}
        # Sending the version that was read keeps two concurrent runs from overwriting each other.
        metadata = {"resourceVersion": secret.metadata.resource_version}
        core.patch_namespaced_secret(NAME, namespace, {"metadata": metadata, "data": data})
    return missing


def main() -> int:
    """Fill the Secret of this pod's own namespace; returns the exit status."""
    config.load_config()
    namespace = NAMESPACE_FILE.read_text() if NAMESPACE_FILE.exists() else "flowverdict"
    core = client.CoreV1Api()
    for attempt in range(1, ATTEMPTS + 1):
        try:
            added = fill(core, namespace)
        except client.ApiException as error:
            if error.status == 409 and attempt < ATTEMPTS:
                continue
            print(f"secret {namespace}/{NAME}: {error.status} {error.reason}", file=sys.stderr)
            return 1
        print(
            f"secret {namespace}/{NAME}: generated {', '.join(added) if added else 'nothing new'}"
        )
        return 0
    return 1


if __name__ == "__main__":
    sys.exit(main())
