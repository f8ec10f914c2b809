"""The Job that makes passwords, against an API."""

import base64
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.stand_ins.kubernetes import KubernetesStandIn

PROGRAM = Path(__file__).parents[1] / "deploy/k8s/components/credentials/make_credentials.py"
SECRET = "/api/v1/namespaces/flowverdict/secrets/flowverdict-credentials"


@pytest.fixture
def api() -> Iterator[KubernetesStandIn]:
    stand_in = KubernetesStandIn()
    stand_in.start()
    yield stand_in
    stand_in.stop()


def make(api: KubernetesStandIn, folder: Path) -> subprocess.CompletedProcess[str]:
    environ = {**os.environ, "KUBECONFIG": str(api.kubeconfig(folder))}
    argv = [sys.executable, str(PROGRAM)]
    return subprocess.run(
        argv, env=environ, capture_output=True, text=True, timeout=60, check=False
    )


def passwords(api: KubernetesStandIn) -> dict[str, str]:
    return api.secret(SECRET)


def test_every_password_is_made_once_and_stays(api: KubernetesStandIn, tmp_path: Path) -> None:
    api.add(SECRET, {"kind": "Secret"})
    first = make(api, tmp_path)
    assert first.returncode == 0, first.stderr
    made = passwords(api)
    assert len(set(made.values())) == len(made) == 11
    assert all(len(each) > 40 and each[0].isalpha() for each in made.values())
    assert not any(each in first.stdout + first.stderr for each in made.values())
    second = make(api, tmp_path)
    assert second.returncode == 0
    assert "nothing new" in second.stdout
    assert passwords(api) == made


def test_the_secret_is_created_if_there_is_none(api: KubernetesStandIn, tmp_path: Path) -> None:
    api.add("/api/v1/namespaces/flowverdict", {"kind": "Namespace"})
    done = make(api, tmp_path)
    assert done.returncode == 0, done.stderr
    created = passwords(api)
    assert len(set(created.values())) == 11
    assert not any(each in done.stdout + done.stderr for each in created.values())


def test_what_somebody_set_stays_and_only_what_is_missing_is_made(
    api: KubernetesStandIn, tmp_path: Path
) -> None:
    mine = base64.b64encode(b"my own").decode()
    api.add(SECRET, {"kind": "Secret", "data": {"grafana-password": mine}})
    assert make(api, tmp_path).returncode == 0
    assert passwords(api)["grafana-password"] == "my own"
    assert len(passwords(api)) == 11


@pytest.mark.parametrize(("refuse", "status"), [("GET .*/secrets/", 403), ("PATCH", 500)])
def test_an_api_that_refuses_is_reported_and_retried_by_the_job(
    api: KubernetesStandIn, tmp_path: Path, refuse: str, status: int
) -> None:
    api.add(SECRET, {"kind": "Secret"})
    api.refuse[refuse] = status
    done = make(api, tmp_path)
    assert done.returncode == 1
    assert done.stderr.startswith(f"secret flowverdict/flowverdict-credentials: {status}")


def test_two_at_a_time_do_not_overwrite_each_others_passwords(
    api: KubernetesStandIn, tmp_path: Path
) -> None:
    api.add(SECRET, {"kind": "Secret"})
    patch = api.patch
    other: dict[str, str] = {}

    def late(path: str, change: dict[str, object]) -> tuple[int, dict[str, object]]:
        if not other:  # another one was quicker by a moment
            secret = api.objects[SECRET]
            other.update(dict.fromkeys(("nats-rca", "nats-reader"), "b3RoZXI="))
            api.add(SECRET, secret | {"data": dict(other)})
        return patch(path, change)

    api.patch = late  # type: ignore[method-assign]
    assert make(api, tmp_path).returncode == 0
    assert passwords(api)["nats-rca"] == "other"
    assert len(passwords(api)) == 11
