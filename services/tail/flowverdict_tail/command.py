"""The command `flowverdict-tail`."""

import argparse
import asyncio
import contextlib
import json
import os
import signal
import sys

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from rich.console import Console
from rich.live import Live

from flowverdict_contracts import MalformedMessage
from flowverdict_runtime.connection import shown
from flowverdict_runtime.logs import Throttle
from flowverdict_tail.rows import STREAMS
from flowverdict_tail.table import LiveTable

__all__ = ["run"]

_REFRESH_SECONDS = 0.5


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowverdict-tail",
        description="Prints what passes on NATS: a live table on a terminal, else JSON lines.",
    )
    parser.add_argument(
        "stream",
        choices=sorted(STREAMS),
        help="raw: what collectors publish; flows: the same with names; verdicts",
    )
    parser.add_argument("--json", action="store_true", help="JSON lines, also on a terminal")
    parser.add_argument(
        "--nats",
        metavar="URL",
        default=os.environ.get("FLOWVERDICT_NATS_URL") or "nats://127.0.0.1:4222",
        help="where NATS is (default: FLOWVERDICT_NATS_URL, or nats://127.0.0.1:4222)",
    )
    return parser


async def _tail(stream: str, url: str, as_json: bool) -> None:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    subject, rows_of = STREAMS[stream]
    table = LiveTable(stream)

    async def heard(message: Msg) -> None:
        try:
            for row in rows_of(message):
                if as_json:
                    print(json.dumps(row), flush=True)
                else:
                    table.add(row)
        except MalformedMessage as error:
            print(f"flowverdict-tail: malformed on {message.subject}: {error}", file=sys.stderr)
        except BrokenPipeError:
            stopping.set()

    client = await _connect(url, stopping)
    if client is None:
        return
    await client.subscribe(subject, cb=heard)
    try:
        if as_json:
            await stopping.wait()
        else:
            await _show(table, stopping)
    finally:
        await client.close()


async def _connect(url: str, stopping: asyncio.Event) -> Client | None:
    """A connection, waited for as long as it takes; None where the command is to end before."""
    throttle = Throttle()

    async def failed(error: Exception) -> None:
        if throttle.admit("nats") is not None:
            why = f"NATS at {shown(url)}: {error}; trying again"
            print(f"flowverdict-tail: {why}", file=sys.stderr)

    connecting = asyncio.create_task(
        nats.connect(url, connect_timeout=3, max_reconnect_attempts=-1, error_cb=failed)
    )
    ending = asyncio.create_task(stopping.wait())
    await asyncio.wait({connecting, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if connecting.done():
        return connecting.result()
    connecting.cancel()
    return None


async def _show(table: LiveTable, stopping: asyncio.Event) -> None:
    with Live(table.render(), console=Console(), auto_refresh=False) as live:
        while not stopping.is_set():
            live.update(table.render(), refresh=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _REFRESH_SECONDS)


def run() -> int:
    """Parse the command line and print until interrupted; returns the exit status."""
    arguments = _parser().parse_args()
    try:
        asyncio.run(
            _tail(arguments.stream, arguments.nats, arguments.json or not sys.stdout.isatty())
        )
    except (NatsError, OSError) as error:
        print(f"flowverdict-tail: NATS at {shown(arguments.nats)}: {error}", file=sys.stderr)
        return 1
    return 0
