"""The command `flowverdict-tail`."""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Callable

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from flowverdict_contracts import MalformedMessage, enriched, verdicts
from flowverdict_contracts.header import IntervalHeader
from flowverdict_contracts.subjects import SUBJECT_ENRICHED, SUBJECT_VERDICTS
from flowverdict_runtime.connection import nats_options, shown
from flowverdict_runtime.logs import Throttle
from flowverdict_runtime.service import WRONG_SETTINGS, NatsSettings, nats_settings
from flowverdict_runtime.settings import SettingsError, describe
from flowverdict_tail.overview import Overview
from flowverdict_tail.rows import STREAMS
from flowverdict_tail.table import LiveTable

__all__ = ["run"]

_REFRESH_SECONDS = 0.5


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowverdict-tail",
        description="Shows what passes on NATS. Without a stream, an overview: open incidents,\n"
        "the pairs that fail most, rates. With one, that stream: a live table on a terminal, else\n"
        "JSON lines.",
        epilog=describe(NatsSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "stream",
        nargs="?",
        choices=sorted(STREAMS),
        help="raw: what collectors publish; flows: the same with names; verdicts",
    )
    parser.add_argument("--json", action="store_true", help="JSON lines, also on a terminal")
    parser.add_argument(
        "--nats",
        metavar="URL",
        help="where NATS is (default: FLOWVERDICT_NATS_URL, or nats://127.0.0.1:4222)",
    )
    return parser


def _stopping() -> asyncio.Event:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


def _malformed(message: Msg, error: MalformedMessage) -> None:
    print(f"flowverdict-tail: malformed on {message.subject}: {error}", file=sys.stderr)


def _connected(client: Client, url: str, shown_now: RenderableType) -> RenderableType:
    """What is shown, below a warning where it is from before the connection was lost."""
    if client.is_connected:
        return shown_now
    lost = f"NOT CONNECTED to {shown(url)}; what follows is from before"
    return Group(Text(lost, style="bold white on red"), shown_now)


async def _overview(settings: NatsSettings) -> None:
    stopping, overview = _stopping(), Overview()

    async def heard_flows(message: Msg) -> None:
        try:
            header = IntervalHeader.decode(message.headers, enriched.SCHEMA)
            overview.add_flows(header, enriched.decode(message.data))
        except MalformedMessage as error:
            _malformed(message, error)

    async def heard_verdict(message: Msg) -> None:
        try:
            overview.add_verdict(verdicts.decode(message.data))
        except MalformedMessage as error:
            _malformed(message, error)

    client = await _connect(settings, stopping)
    if client is None:
        return
    await client.subscribe(SUBJECT_ENRICHED, cb=heard_flows)
    await client.subscribe(SUBJECT_VERDICTS, cb=heard_verdict)
    try:
        await _show(lambda: _connected(client, settings.nats_url, overview.render()), stopping)
    finally:
        await client.close()


async def _tail(stream: str, settings: NatsSettings, as_json: bool) -> None:
    stopping = _stopping()
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
            _malformed(message, error)
        except BrokenPipeError:
            stopping.set()

    client = await _connect(settings, stopping)
    if client is None:
        return
    await client.subscribe(subject, cb=heard)
    try:
        if as_json:
            await stopping.wait()
        else:
            await _show(table.render, stopping)
    finally:
        await client.close()


async def _connect(settings: NatsSettings, stopping: asyncio.Event) -> Client | None:
    """A connection, waited for as long as it takes; None where the command is to end before."""
    throttle, url = Throttle(), settings.nats_url

    async def failed(error: Exception) -> None:
        if throttle.admit("nats") is not None:
            why = f"NATS at {shown(url)}: {error}; trying again"
            print(f"flowverdict-tail: {why}", file=sys.stderr)

    connecting = asyncio.create_task(
        nats.connect(
            **nats_options(settings), connect_timeout=3, max_reconnect_attempts=-1, error_cb=failed
        )
    )
    ending = asyncio.create_task(stopping.wait())
    await asyncio.wait({connecting, ending}, return_when=asyncio.FIRST_COMPLETED)
    ending.cancel()
    if connecting.done():
        return connecting.result()
    connecting.cancel()
    return None


async def _show(render: Callable[[], RenderableType], stopping: asyncio.Event) -> None:
    with Live(render(), console=Console(), auto_refresh=False) as live:
        while not stopping.is_set():
            live.update(render(), refresh=True)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), _REFRESH_SECONDS)


def run() -> int:
    """Parse the command line and show until interrupted; returns the exit status."""
    arguments = _parser().parse_args()
    on_terminal = sys.stdout.isatty()
    if arguments.stream is None and (arguments.json or not on_terminal):
        print(
            "flowverdict-tail: name a stream (raw, flows, verdicts); the overview needs a terminal",
            file=sys.stderr,
        )
        return 2
    try:
        settings = nats_settings(arguments.nats)
        if arguments.stream is None:
            asyncio.run(_overview(settings))
        else:
            asyncio.run(_tail(arguments.stream, settings, arguments.json or not on_terminal))
    except SettingsError as error:
        print(f"flowverdict-tail: {error}", file=sys.stderr)
        return WRONG_SETTINGS
    except (NatsError, OSError) as error:
        print(f"flowverdict-tail: NATS at {shown(settings.nats_url)}: {error}", file=sys.stderr)
        return 1
    return 0
