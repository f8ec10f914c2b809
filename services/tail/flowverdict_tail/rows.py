"""Converts messages to plain rows, to be printed as JSON."""

from collections.abc import Callable, Iterator
from typing import Any

import msgspec
from nats.aio.msg import Msg

from flowverdict_contracts import enriched, raw, raw_records, verdicts
from flowverdict_contracts.addresses import to_text
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.subjects import SUBJECT_ENRICHED, SUBJECT_RAW_ALL, SUBJECT_VERDICTS
from flowverdict_contracts.timestamps import to_rfc3339

__all__ = ["STREAMS", "Row"]

Row = dict[str, Any]

_ROWS_AT_ONCE = 256
"""As Python objects a row takes 5 kB, and a message of 55 kB may have 250,000."""


def _times(header: IntervalHeader) -> Row:
    return {
        "node": header.node,
        "start": to_rfc3339(header.start_ns),
        "end": to_rfc3339(header.end_ns),
    }


def raw_rows(message: Msg) -> Iterator[Row]:
    """The flows of a raw message; field names and units are those of the contract.

    Raises:
        MalformedMessage: if the message is malformed.
    """
    read = raw_records.read(message.headers, message.data)
    times = _times(read.header)
    for record in read.records:
        row = {name: record[name].item() for name in raw_records.RECORD.names or ()}
        row["src"] = to_text(record["src"].tobytes())
        row["dst"] = to_text(record["dst"].tobytes())
        row["role"] = raw.ROLES[row["role"]]
        row["dns_name"] = read.names.get(row["dns_name"], "")
        yield times | row


def flow_rows(message: Msg) -> Iterator[Row]:
    """The flows of an enriched message.

    Raises:
        MalformedMessage: if the message is malformed.
    """
    times = _times(IntervalHeader.decode(message.headers, enriched.SCHEMA))
    batch = enriched.decode(message.data)
    for start in range(0, batch.num_rows, _ROWS_AT_ONCE):
        for row in batch.slice(start, _ROWS_AT_ONCE).to_pylist():
            yield times | row


def verdict_rows(message: Msg) -> Iterator[Row]:
    """The verdict in a message.

    Raises:
        MalformedMessage: if the message is malformed.
    """
    row: Row = msgspec.to_builtins(verdicts.decode(message.data))
    yield row


STREAMS: dict[str, tuple[str, Callable[[Msg], Iterator[Row]]]] = {
    "raw": (SUBJECT_RAW_ALL, raw_rows),
    "flows": (SUBJECT_ENRICHED, flow_rows),
    "verdicts": (SUBJECT_VERDICTS, verdict_rows),
}
"""Maps a name on the command line to its subject and the reader of its messages."""
