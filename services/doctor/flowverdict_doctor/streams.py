"""Checks NATS: does it answer, do the streams exist, who reads them, and how far behind?"""

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime

from nats.js import JetStreamContext
from nats.js.api import ConsumerInfo, StreamInfo
from nats.js.errors import NotFoundError

from flowverdict_contracts.subjects import FLOWS_ENRICHED, FLOWS_RAW, STREAMS
from flowverdict_doctor.finding import Finding, broken, ok, warning
from flowverdict_doctor.settings import DoctorSettings
from flowverdict_runtime.one_shot import NatsUnavailable, connected_once
from flowverdict_runtime.retry import TRANSIENT_ERRORS
from flowverdict_runtime.stream_faults import faults_of, overlapping

__all__ = ["findings"]

_READERS = {FLOWS_RAW: ["enricher"], FLOWS_ENRICHED: ["exporter", "rca"]}
_WRITERS = {FLOWS_RAW: "a collector", FLOWS_ENRICHED: "an enricher"}
_CONNECT_SECONDS = 5.0
_LAG_WARNING = 1000
_LONGEST_BATCH_SECONDS = 3.0
_SILENT_SECONDS = 60.0
_FULL_RATIO = 0.9


def _stream(name: str, info: StreamInfo, ages: dict[str, float]) -> Iterator[Finding]:
    state, what = info.state, f"stream {name}"
    limit = info.config.max_bytes or 0
    size = f"{state.messages} messages, {state.bytes / 1e6:.1f} MB"
    age = ages.get(name)
    if name in _WRITERS and (age is None or age > _SILENT_SECONDS):
        since = "no messages yet" if age is None else f"no messages for {age:.0f} s"
        yield broken(what, f"{size}; {since}", f"is {_WRITERS[name]} running? see its log")
    elif limit > 0 and state.bytes > _FULL_RATIO * limit and age is not None:
        yield warning(
            what,
            f"{size} of {limit / 1e6:.0f} MB",
            f"once full, it drops messages early: nats stream edit {name} --max-bytes=…",
        )
    else:
        yield ok(what, size)


def _readers(
    name: str, consumers: list[ConsumerInfo], idle: frozenset[str], with_influx: bool
) -> Iterator[Finding]:
    found = {each.name: each for each in consumers}
    expected = _READERS[name]
    if with_influx and name == FLOWS_ENRICHED:
        expected = [*expected, "influx-writer"]
    for reader in expected:
        if reader not in found:
            yield broken(
                f"consumer {reader}", f"{name} has no consumer of this name", "is it running?"
            )
    for reader, info in found.items():
        behind = info.num_pending or 0
        what, detail = f"consumer {reader}", f"{behind} messages behind on {name}"
        if info.paused:
            advice = f"nats consumer resume {name} {reader}"
            yield broken(what, f"{detail}, and it is paused", advice)
        elif reader in idle:
            yield broken(what, f"{detail}, and nobody is reading", "is it running? see its log")
        elif behind > _LAG_WARNING:
            advice = "if this does not fall: scale the enricher, or see the log"
            yield warning(what, detail, advice)
        else:
            yield ok(what, detail)


def _seems_idle(info: ConsumerInfo) -> bool:
    """Whether messages are waiting, and nobody is waiting for messages."""
    return bool(info.num_pending) and not info.num_waiting


async def _idle(jetstream: JetStreamContext, consumers: list[ConsumerInfo]) -> frozenset[str]:
    """The consumers that nobody reads: a reader asks for more, or at least gets something."""
    suspects = {each.name: each for each in consumers if _seems_idle(each)}
    if suspects:
        await asyncio.sleep(_LONGEST_BATCH_SECONDS)
    found = set()
    for name, before in suspects.items():
        try:
            now = await jetstream.consumer_info(before.stream_name, name)
        except NotFoundError:  # created anew in the meantime
            continue
        if _seems_idle(now) and now.delivered == before.delivered:
            found.add(name)
    return frozenset(found)


async def _age_seconds(jetstream: JetStreamContext, name: str, info: StreamInfo) -> float | None:
    """Age of the stream's last message; None if there is none."""
    if not info.state.messages:
        return None
    try:
        last = await jetstream.get_msg(name, seq=info.state.last_seq)
    except NotFoundError:  # purged in the meantime
        return None
    assert last.time is not None
    return (datetime.now(UTC) - last.time).total_seconds()


async def _streams(jetstream: JetStreamContext, with_influx: bool) -> list[Finding]:
    lines: list[Finding] = []
    for name in STREAMS:
        try:
            info = await jetstream.stream_info(name)
        except NotFoundError:
            other = await overlapping(jetstream, STREAMS[name])
            if other:
                lines.append(broken(f"stream {name}", f"does not exist: {other}", ""))
            else:
                advice = "its services create it: are they up?"
                lines.append(broken(f"stream {name}", "does not exist", advice))
            continue
        if faults := list(faults_of(info.config, STREAMS[name])):
            lines += [broken(f"stream {name}", fault, "") for fault in faults]
            continue
        age = await _age_seconds(jetstream, name, info)
        lines += _stream(name, info, {} if age is None else {name: age})
        if name not in _READERS:  # it is followed without a consumer
            continue
        consumers = await jetstream.consumers_info(name)
        lines += _readers(name, consumers, await _idle(jetstream, consumers), with_influx)
    return lines


async def findings(settings: DoctorSettings) -> list[Finding]:
    """Check NATS."""
    url, what = settings.nats_url, "NATS"
    lines: list[Finding] = []
    try:
        async with connected_once(settings, _CONNECT_SECONDS) as client:
            jetstream = client.jetstream(timeout=3)
            account = await jetstream.account_info()
            lines.append(ok(what, f"{url}: JetStream with {account.streams} streams"))
            lines += await _streams(jetstream, bool(settings.influx_url))
    except NatsUnavailable as error:
        lines.append(broken(what, str(error), error.advice))
    except TRANSIENT_ERRORS as error:
        why = str(error) or type(error).__name__
        advice = "is JetStream enabled (-js), and is this user allowed to query it?"
        lines.append(broken(what, f"{url} answers, but JetStream does not: {why}", advice))
    return lines
