"""Settings that services share: NATS, logging, where to listen."""

import os
from dataclasses import dataclass

from flowverdict_runtime.ports import PORTS
from flowverdict_runtime.settings import (
    Address,
    address,
    choice,
    integer,
    load,
    nats_url,
    optional_text,
    setting,
)

__all__ = ["CommonSettings", "NatsSettings", "listen_setting", "nats_settings"]


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """How to reach NATS, log in to it and verify it."""

    nats_url: str = setting(nats_url, "nats://127.0.0.1:4222", "a NATS server with JetStream")
    nats_user: str = setting(optional_text, "", "NATS user, if NATS requires one")
    nats_password: str = setting(optional_text, "", "that user's password")
    nats_ca: str = setting(
        optional_text, "", "file with the CA certificates to verify NATS with, if it uses TLS"
    )
    stream_replicas: int = setting(
        integer(1, 5), "1", "replicas of streams created here; NATS needs at least as many servers"
    )


@dataclass(frozen=True, slots=True)
class CommonSettings(NatsSettings):
    """Settings that every service has."""

    log_level: str = setting(
        choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "lowest level to log"
    )


def nats_settings(url: str | None) -> NatsSettings:
    """The settings from the environment; a `url` from the command line takes precedence.

    Raises:
        SettingsError: if one of them is invalid.
    """
    return load(NatsSettings, {**os.environ, **({"FLOWVERDICT_NATS_URL": url} if url else {})})


def listen_setting(service: str) -> Address:
    """The setting `FLOWVERDICT_LISTEN`, with this service's own default port."""
    meaning = "address to serve /healthz, /readyz and /metrics on"
    listen: Address = setting(address, f"127.0.0.1:{PORTS[service]}", meaning)
    return listen
