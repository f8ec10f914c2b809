"""Helpers for tests with NATS users and certificates: passwords, a connection, the pipeline."""

import asyncio
import contextlib
import os
import re
import subprocess
import sys
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import nats
import pytest
from nats.aio.client import Client

from flowverdict_lab.pipeline import Pipeline
from flowverdict_runtime.nats_connection import nats_options
from flowverdict_runtime.service_settings import NatsSettings
from flowverdict_runtime.settings import load

CONF = Path(__file__).parents[1] / "deploy/nats/users.conf"
USERS = re.findall(r"user: ([\w-]+)", CONF.read_text())


def password_of(user: str) -> str:
    return f"p{user}1e5"


def give_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """Set the variables from which a NATS server reads the users' passwords."""
    for user in USERS:
        name = user.upper().replace("-", "_")
        monkeypatch.setenv(f"NATS_PASSWORD_{name}", password_of(user))


def settings_of(user: str, url: str, ca: str = "") -> NatsSettings:
    return load(
        NatsSettings,
        {
            "FLOWVERDICT_NATS_URL": url,
            "FLOWVERDICT_NATS_USER": user,
            "FLOWVERDICT_NATS_PASSWORD": password_of(user),
            "FLOWVERDICT_NATS_CA": ca,
        },
    )


def certificates(folder: Path) -> None:
    """Create the files that cert-manager puts into the Secret nats-tls, for 127.0.0.1."""
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"]
    authority = ["-keyout", "ca.key", "-out", "ca.crt", "-subj", "/CN=authority"]
    of_servers = ["-CA", "ca.crt", "-CAkey", "ca.key", "-keyout", "tls.key", "-out", "tls.crt"]
    names = ["-subj", "/CN=nats", "-addext", "subjectAltName=IP:127.0.0.1"]
    folder.mkdir()
    for more in (authority, of_servers + names):
        argv = ["openssl", "req", "-x509", *key, *more]
        subprocess.run(argv, cwd=folder, check=True, capture_output=True)


@contextlib.asynccontextmanager
async def connected_as(
    user: str, url: str, ca: str = ""
) -> AsyncIterator[tuple[Client, list[str]]]:
    """A connection, and the permission errors that the server sends to it."""
    refused: list[str] = []

    async def on_error(error: Exception) -> None:
        if "permissions violation" in str(error):
            refused.append(str(error))

    options = nats_options(settings_of(user, url, ca))
    client = await nats.connect(
        **options, error_cb=on_error, max_reconnect_attempts=-1, reconnect_time_wait=0.1
    )
    try:
        yield client, refused
    finally:
        await client.close()


async def refused_check(url: str, **settings: str) -> str:
    """The output of `flowverdict-rca --check` when NATS must reject it."""
    environ = {**os.environ, "FLOWVERDICT_NATS_URL": url, **settings}
    argv = [sys.executable, "-m", "flowverdict_rca", "--check"]
    done = await asyncio.to_thread(
        subprocess.run, argv, env=environ, capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1
    return str(done.stdout)


class UsersPipeline(Pipeline):
    """The pipeline, each service with its own user."""

    def start(self, service: str, environ: Mapping[str, str] | None = None) -> None:
        user = service.replace("_", "-")
        settings = {
            "FLOWVERDICT_NATS_USER": user,
            "FLOWVERDICT_NATS_PASSWORD": password_of(user),
        }
        super().start(service, {**settings, **(environ or {})})
