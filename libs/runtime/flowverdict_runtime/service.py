"""The command line and the life cycle around a service's own `run`."""

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import sys
from collections.abc import Callable, Coroutine
from dataclasses import dataclass, field
from importlib.metadata import version
from typing import Any, Generic, TypeVar

from flowverdict_runtime import logs
from flowverdict_runtime.health import Health, serve
from flowverdict_runtime.settings import (
    Address,
    SettingsError,
    address,
    choice,
    describe,
    integer,
    load,
    nats_url,
    optional_text,
    setting,
)

__all__ = [
    "CannotRun",
    "CommonSettings",
    "Context",
    "NatsSettings",
    "Service",
    "listen_setting",
    "main",
    "nats_settings",
    "parser_of",
    "run_service",
]

log = logging.getLogger(__name__)

WRONG_SETTINGS = 2
CANNOT_RUN = 1


class CannotRun(RuntimeError):
    """Something that the service cannot do without is missing; the message says what to do."""


@dataclass(frozen=True, slots=True)
class NatsSettings:
    """Where NATS is, who asks, and whom to trust."""

    nats_url: str = setting(nats_url, "nats://127.0.0.1:4222", "where NATS with JetStream is")
    nats_user: str = setting(optional_text, "", "the user on NATS, where it asks for one")
    nats_password: str = setting(optional_text, "", "that user's password")
    nats_ca: str = setting(
        optional_text, "", "file of the certificate authorities that vouch for a NATS with TLS"
    )
    stream_replicas: int = setting(
        integer(1, 5), "1", "copies that NATS keeps of a stream made here; it needs as many servers"
    )


@dataclass(frozen=True, slots=True)
class CommonSettings(NatsSettings):
    """Settings that every service has."""

    log_level: str = setting(
        choice("DEBUG", "INFO", "WARNING", "ERROR"), "INFO", "logs from here up"
    )


def nats_settings(url: str | None) -> NatsSettings:
    """The environment's settings, with another `url` where a command line gives one.

    Raises:
        SettingsError: where one of them is wrong.
    """
    return load(NatsSettings, {**os.environ, **({"FLOWVERDICT_NATS_URL": url} if url else {})})


def listen_setting(port: int) -> Address:
    """The setting `FLOWVERDICT_LISTEN`, with this service's own default port."""
    meaning = "where /healthz, /readyz and /metrics answer"
    listen: Address = setting(address, f"127.0.0.1:{port}", meaning)
    return listen


@dataclass(slots=True)
class Context:
    """What a running service is handed: its health, and the sign that it is to stop."""

    health: Health = field(default_factory=Health)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    failure: str = ""
    stream_replicas: int = 1

    def fail(self, why: str) -> None:
        """Stop the service, which then ends with an error, for its supervisor to start it again."""
        self.failure = why
        self.stopping.set()

    async def pause(self, seconds: float) -> None:
        """Sleep, but not longer than until the service is to stop."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self.stopping.wait(), seconds)


S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class Service(Generic[S]):
    """A service: its name, what it is for, its settings, its life and its check.

    `run` returns once `Context.stopping` is set and all is drained. `check` finds out whether the
    service could run here, prints what it finds, and returns the process's exit status.
    """

    name: str
    purpose: str
    settings: type[S]
    run: Callable[[S, Context], Coroutine[Any, Any, None]]
    check: Callable[[S], Coroutine[Any, Any, int]]


async def _beat(health: Health) -> None:
    while True:
        health.beat()
        await asyncio.sleep(1)


async def _live(service: Service[S], settings: S) -> None:
    context = Context()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, context.stopping.set)
    listen: Address = settings.listen  # type: ignore[attr-defined]  # every service declares it
    where = serve(context.health, listen)
    log.info(
        "started, version %s", version(f"flowverdict-{service.name}"), extra={"listen": str(where)}
    )
    beat = asyncio.create_task(_beat(context.health))
    context.health.ready("start")
    try:
        await service.run(settings, context)
        if context.failure:
            raise CannotRun(context.failure)
    finally:
        beat.cancel()
        log.info("stopped")


def parser_of(service: Service[S]) -> argparse.ArgumentParser:
    """The command line of `service`, with its settings in the help text."""
    parser = argparse.ArgumentParser(
        prog=f"flowverdict-{service.name}",
        description=service.purpose,
        epilog=describe(service.settings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "--check", action="store_true", help="say whether it could run here, and exit"
    )
    parser.add_argument(
        "--version", action="version", version=version(f"flowverdict-{service.name}")
    )
    return parser


def run_service(service: Service[S], check: bool) -> int:
    """Run or check `service` with the environment's settings; returns the exit status.

    2 where a setting is missing or wrong, 1 where the service cannot run on this machine.
    """
    try:
        settings = load(service.settings)
        if check:
            return asyncio.run(service.check(settings))
        logs.configure(service.name, settings.log_level)  # type: ignore[attr-defined]
        asyncio.run(_live(service, settings))
    except SettingsError as error:
        print(f"flowverdict-{service.name}: {error}", file=sys.stderr)
        return WRONG_SETTINGS
    except CannotRun as error:
        print(f"flowverdict-{service.name}: {error}", file=sys.stderr)
        return CANNOT_RUN
    return 0


def main(service: Service[S]) -> int:
    """The service's command: parse the command line, then run or check."""
    return run_service(service, parser_of(service).parse_args().check)
