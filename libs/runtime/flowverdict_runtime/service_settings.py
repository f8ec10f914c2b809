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

__all__ = [
    "DEFAULT_STREAMS",
    "CommonSettings",
    "NatsSettings",
    "StreamSettings",
    "listen_setting",
    "nats_settings",
]


@dataclass(frozen=True, slots=True)
class StreamSettings:
    """How streams and consumers are created, within what the NATS server or account allows."""

    stream_replicas: int = setting(
        integer(1, 5), "1", "replicas of streams created here; NATS needs at least as many servers"
    )
    stream_bytes: int = setting(
        integer(1 << 20, 1 << 44),
        str(1 << 30),
        "size of each stream of flows created here; that of verdicts is a quarter",
    )
    duplicate_window_seconds: int = setting(
        integer(1, 3600),
        "3600",
        "for how long a stream created here recognises a message that is sent again",
    )
    max_ack_pending: int = setting(
        integer(64, 1_000_000),
        "4096",
        "messages that a consumer created here may have in hand, as a limit of the account",
    )

    @property
    def streams(self) -> "StreamSettings":
        """These, of settings that have more."""
        return self


DEFAULT_STREAMS = load(StreamSettings, {})


@dataclass(frozen=True, slots=True)
class NatsSettings(StreamSettings):
    """How to reach NATS, log in to it and verify it."""

    nats_url: str = setting(nats_url, "nats://127.0.0.1:4222", "a NATS server with JetStream")
    nats_user: str = setting(optional_text, "", "NATS user, if NATS requires one")
    nats_password: str = setting(optional_text, "", "that user's password")
    nats_ca: str = setting(
        optional_text, "", "file with the CA certificates to verify NATS with, if it uses TLS"
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
