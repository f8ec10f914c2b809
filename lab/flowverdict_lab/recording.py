"""Recordings of raw messages with their timestamps: gzipped JSON lines.

The first line describes the recording: the inventory, the fault, the phases. Every other line is a
message: when it was stored (UTC nanoseconds), subject, headers, and the body in base64.
"""

import base64
import gzip
import json
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
from nats.js import JetStreamContext

from flowverdict_contracts.interval_header import SENT
from flowverdict_contracts.subjects import FLOWS_RAW
from flowverdict_contracts.verdicts import Kind, in_words
from flowverdict_runtime.stored_messages import stored_messages

__all__ = ["About", "Expected", "RawMessage", "RecordingError", "read", "replay", "save"]

FORMAT = "flowverdict-recording/1"


class RecordingError(RuntimeError):
    """The file is missing or is not a recording; the message says which."""


class Expected(msgspec.Struct, frozen=True):
    """A component that a right verdict may name, by kind and name as in its cause."""

    kind: Kind
    name: str

    def __str__(self) -> str:
        return in_words(self.kind, self.name)


class About(msgspec.Struct, frozen=True, kw_only=True):
    """The description of a recording.

    Attributes:
        fault: in words.
        expected: what a right verdict may name; empty if there was no fault.
        inventory: names for the addresses, as the enricher reads them (JSON text).
        phases: start and end of each, by name, in UTC nanoseconds.
    """

    format: str = FORMAT
    fault: str
    expected: tuple[Expected, ...]
    inventory: str
    phases: dict[str, tuple[int, int]]


@dataclass(frozen=True, slots=True)
class RawMessage:
    """One raw message as stored in the stream."""

    time_ns: int
    subject: str
    headers: Mapping[str, str]
    body: bytes


async def save(jetstream: JetStreamContext, about: About, path: Path) -> None:
    """Write everything now in FLOWS_RAW to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as out:
        out.write(msgspec.json.encode(about).decode() + "\n")
        async for message in stored_messages(jetstream, FLOWS_RAW):
            line = {
                "time_ns": message.stored_ns,
                "subject": message.subject,
                "headers": {
                    name: value
                    for name, value in message.headers.items()
                    if name.startswith(("Flowverdict-", "Nats-Msg-Id"))
                },
                "body": base64.b64encode(message.data).decode(),
            }
            out.write(json.dumps(line) + "\n")


def read(path: Path) -> tuple[About, Iterator[RawMessage]]:
    """A recording's description, and its messages in order.

    Raises:
        RecordingError: if the file cannot be read or is not a recording, even while iterating.
    """
    lines = _lines(path)
    try:
        about = msgspec.json.decode(next(lines, ""), type=About)
    except msgspec.MsgspecError as error:
        raise RecordingError(f"{path} is not a recording: {error}") from None
    if about.format != FORMAT:
        raise RecordingError(f"{path} has the format {about.format}; this version reads {FORMAT}")
    return about, (_message(path, line) for line in lines)


def _lines(path: Path) -> Iterator[str]:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            yield from file
    except (OSError, EOFError, zlib.error, UnicodeDecodeError) as error:
        raise RecordingError(f"{path} cannot be read: {error}") from None


def _message(path: Path, line: str) -> RawMessage:
    try:
        parsed: dict[str, Any] = json.loads(line)
        return RawMessage(
            parsed["time_ns"],
            parsed["subject"],
            parsed["headers"],
            base64.b64decode(parsed["body"]),
        )
    except (ValueError, KeyError, TypeError) as error:
        raise RecordingError(f"{path} has a line that is not a message: {error!r}") from None


async def replay(jetstream: JetStreamContext, messages: Iterator[RawMessage]) -> int:
    """Publish messages as fast as NATS accepts them; returns the end of the last interval."""
    end_ns = 0
    for message in messages:
        # When it was sent says nothing about the clock of now.
        headers = {name: value for name, value in message.headers.items() if name != SENT}
        await jetstream.publish(message.subject, message.body, headers=headers)
        end_ns = int(message.headers["Flowverdict-Interval"].split("-")[1])
    return end_ns
