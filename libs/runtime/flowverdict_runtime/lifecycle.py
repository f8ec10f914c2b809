"""The command line and the life cycle around a service's own `run`."""

import argparse
import asyncio
import logging
import signal
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any, Generic, Protocol, TypeVar

from flowverdict_runtime import logs
from flowverdict_runtime.context import CannotRun, Context
from flowverdict_runtime.health import Health
from flowverdict_runtime.http_server import serve
from flowverdict_runtime.service_settings import StreamSettings
from flowverdict_runtime.settings import (
    Address,
    Settings,
    SettingsError,
    describe,
    load,
    unknown_settings,
)
from flowverdict_runtime.terminal import complain

__all__ = [
    "CANNOT_RUN",
    "INVALID_SETTINGS",
    "Service",
    "ServiceSettings",
    "main",
    "parser_of",
    "reporting",
    "run_service",
]

log = logging.getLogger(__name__)

INVALID_SETTINGS = 2
CANNOT_RUN = 1


class ServiceSettings(Settings, Protocol):
    """What the life cycle needs from a service's settings."""

    @property
    def log_level(self) -> str:
        """Lowest level to log."""

    @property
    def listen(self) -> Address:
        """Address to serve /healthz, /readyz and /metrics on."""

    @property
    def streams(self) -> StreamSettings:
        """How streams are created."""


S = TypeVar("S", bound=ServiceSettings)


@dataclass(frozen=True, slots=True)
class Service(Generic[S]):
    """A service: its name, purpose, settings, main coroutine and self-check.

    `run` returns once `Context.stopping` is set and everything is drained. `check` tests whether
    the service could run here, prints what it finds, and returns the process's exit status.
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


async def _run_until_stopped(service: Service[S], settings: S) -> None:
    context = Context(streams=settings.streams)
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, context.stopping.set)
    listening = serve(context.health, settings.listen)
    log.info(
        "started, version %s",
        version(f"flowverdict-{service.name}"),
        extra={"listen": str(listening)},
    )
    for sentence in unknown_settings(service.settings):
        log.warning(sentence)
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
        "--check", action="store_true", help="report whether the service could run here, and exit"
    )
    parser.add_argument(
        "--version", action="version", version=version(f"flowverdict-{service.name}")
    )
    return parser


def reporting(service: Service[S], action: Callable[[], int]) -> int:
    """Do it; returns its exit status, or that of the error that it prints instead.

    2 if a setting is missing or invalid, 1 if the service cannot run on this machine.
    """
    try:
        return action()
    except (SettingsError, CannotRun) as error:
        complain(f"flowverdict-{service.name}", error)
        return INVALID_SETTINGS if isinstance(error, SettingsError) else CANNOT_RUN


def run_service(service: Service[S], check: bool) -> int:
    """Run or check `service` with the environment's settings; returns the exit status.

    2 if a setting is missing or invalid, 1 if the service cannot run on this machine.
    """

    def run() -> int:
        settings = load(service.settings)
        if check:
            for sentence in unknown_settings(service.settings):
                print(f"warning  {sentence}")
            return asyncio.run(service.check(settings))
        logs.configure(service.name, settings.log_level)
        asyncio.run(_run_until_stopped(service, settings))
        return 0

    return reporting(service, run)


def main(service: Service[S]) -> int:
    """The service's command: parse the command line, then run or check."""
    return run_service(service, parser_of(service).parse_args().check)
