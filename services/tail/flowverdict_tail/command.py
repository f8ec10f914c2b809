"""The command `flowverdict-tail`."""

import argparse
import asyncio
import contextlib
import json
import signal
import sys
from collections.abc import Awaitable, Callable, Mapping
from importlib.metadata import version

import nats
from nats.aio.client import Client
from nats.aio.msg import Msg
from nats.errors import Error as NatsError
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.text import Text

from flowverdict_contracts import MalformedMessage, enriched, raw_records, verdicts
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.subjects import (
    FAIL_RATIO_KEY,
    RCA_STATE_BUCKET,
    SUBJECT_ENRICHED,
    SUBJECT_RAW_ALL,
    SUBJECT_VERDICTS,
)
from flowverdict_flows.batches import batch_of
from flowverdict_flows.name_table import addresses_only
from flowverdict_runtime.lifecycle import INVALID_SETTINGS
from flowverdict_runtime.logs import Throttle
from flowverdict_runtime.nats_connection import nats_options
from flowverdict_runtime.service_settings import NatsSettings, nats_settings
from flowverdict_runtime.settings import SettingsError, describe, redact, unknown_settings
from flowverdict_runtime.terminal import complain
from flowverdict_tail.keyboard import ending_with_q
from flowverdict_tail.overview import Overview
from flowverdict_tail.rows import STREAMS
from flowverdict_tail.table import LiveFlows, LiveVerdicts

__all__ = ["run"]

_REFRESH_SECONDS = 0.5
_PRINTED_AT_ONCE = 256


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="flowverdict-tail",
        description="Shows live NATS messages. Without a stream: an overview of open incidents,\n"
        "worst pairs and rates. With a stream: a live table on a terminal, otherwise JSON lines.\n"
        "q or Ctrl+C ends it.",
        epilog=describe(NatsSettings),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument(
        "stream",
        nargs="?",
        choices=sorted(STREAMS),
        help="raw: what collectors publish; flows: the same with names; verdicts",
    )
    parser.add_argument("--json", action="store_true", help="JSON lines, even on a terminal")
    parser.add_argument(
        "--nats",
        metavar="URL",
        help="NATS server (default: FLOWVERDICT_NATS_URL, or nats://127.0.0.1:4222)",
    )
    parser.add_argument("--version", action="version", version=version("flowverdict-tail"))
    return parser


def _stopping() -> asyncio.Event:
    stopping = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stopping.set)
    return stopping


def _malformed(message: Msg, error: MalformedMessage) -> None:
    complain("flowverdict-tail", f"malformed message on {message.subject}: {error}")


def _connected(client: Client, url: str, shown_now: RenderableType) -> RenderableType:
    """`shown_now`, below a warning if it dates from before the connection was lost."""
    if client.is_connected:
        return shown_now
    lost = f"NOT CONNECTED to {redact(url)}; this data is from before the connection was lost"
    return Group(Text(lost, style="bold white on red"), shown_now)


async def _watch(
    settings: NatsSettings,
    shown: Overview | LiveFlows | LiveVerdicts,
    handlers: Mapping[str, Callable[[Msg], None]],
) -> None:
    """Pass the messages on each subject to its handler, and show the result."""
    stopping = _stopping()

    def receiving(handle: Callable[[Msg], None]) -> Callable[[Msg], Awaitable[None]]:
        async def receive(message: Msg) -> None:
            try:
                handle(message)
            except MalformedMessage as error:
                _malformed(message, error)

        return receive

    with ending_with_q(stopping):
        client = await _connect(settings, stopping)
        if client is None:
            return
        try:
            if not isinstance(shown, LiveVerdicts):
                shown.fail_ratio = await _fail_ratio(client)
            for subject, handle in handlers.items():
                await client.subscribe(subject, cb=receiving(handle))
            await _show(lambda: _connected(client, settings.nats_url, shown.render()), stopping)
        finally:
            await client.close()


async def _fail_ratio(client: Client) -> float | None:
    """The threshold that is in force, as the RCA worker announces it; None if there is none."""
    with contextlib.suppress(NatsError, TimeoutError, ValueError):
        jetstream = client.jetstream(timeout=2)
        subject = f"$KV.{RCA_STATE_BUCKET}.{FAIL_RATIO_KEY}"
        return float((await jetstream.get_last_msg(f"KV_{RCA_STATE_BUCKET}", subject)).data or b"")
    return None


async def _overview(settings: NatsSettings) -> None:
    overview = Overview()

    def flows(message: Msg) -> None:
        header = IntervalHeader.decode(message.headers, enriched.SCHEMA)
        overview.add_flows(header, enriched.decode(message.data))

    def verdict(message: Msg) -> None:
        overview.add_verdict(verdicts.decode(message.data))

    await _watch(settings, overview, {SUBJECT_ENRICHED: flows, SUBJECT_VERDICTS: verdict})


async def _live(stream: str, settings: NatsSettings) -> None:
    if stream == "verdicts":
        shown_verdicts = LiveVerdicts()
        await _watch(
            settings,
            shown_verdicts,
            {SUBJECT_VERDICTS: lambda m: shown_verdicts.add(verdicts.decode(m.data))},
        )
        return
    shown_flows = LiveFlows()

    def raw(message: Msg) -> None:
        read = raw_records.read(message.headers, message.data)
        batch = batch_of(read.records, addresses_only(read.records), read.names)
        shown_flows.add(enriched.completed(batch))

    def flows(message: Msg) -> None:
        IntervalHeader.decode(message.headers, enriched.SCHEMA)
        shown_flows.add(enriched.decode(message.data))

    handlers = {"raw": {SUBJECT_RAW_ALL: raw}, "flows": {SUBJECT_ENRICHED: flows}}
    await _watch(settings, shown_flows, handlers[stream])


async def _print_json(stream: str, settings: NatsSettings) -> None:
    stopping = _stopping()
    subject, rows_of = STREAMS[stream]

    async def receive(message: Msg) -> None:
        try:
            for number, row in enumerate(rows_of(message)):
                print(json.dumps(row), flush=True)
                if number % _PRINTED_AT_ONCE == 0:
                    await asyncio.sleep(0)  # to be stopped, and to answer NATS
                if stopping.is_set():
                    return
        except MalformedMessage as error:
            _malformed(message, error)
        except BrokenPipeError:
            stopping.set()

    client = await _connect(settings, stopping)
    if client is None:
        return
    try:
        await client.subscribe(subject, cb=receive)
        await stopping.wait()
    finally:
        await client.close()


async def _connect(settings: NatsSettings, stopping: asyncio.Event) -> Client | None:
    """A connection, waiting for it indefinitely; None if the command is stopped first."""
    throttle, url = Throttle(), settings.nats_url

    async def failed(error: Exception) -> None:
        if throttle.admits("nats"):
            why = f"NATS at {redact(url)}: {error}; retrying"
            complain("flowverdict-tail", why)

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
            "flowverdict-tail: the overview needs a terminal; name a stream (raw, flows, verdicts)",
            file=sys.stderr,
        )
        return 2
    try:
        for sentence in unknown_settings(NatsSettings, only_misspelt=True):
            complain("flowverdict-tail", sentence)
        settings = nats_settings(arguments.nats)
        if arguments.stream is None:
            asyncio.run(_overview(settings))
        elif arguments.json or not on_terminal:
            asyncio.run(_print_json(arguments.stream, settings))
        else:
            asyncio.run(_live(arguments.stream, settings))
    except SettingsError as error:
        complain("flowverdict-tail", error)
        return INVALID_SETTINGS
    except (NatsError, OSError) as error:
        complain("flowverdict-tail", f"NATS at {redact(settings.nats_url)}: {error}")
        return 1
    return 0
