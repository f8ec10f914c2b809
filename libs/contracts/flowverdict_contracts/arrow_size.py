"""The unpacked size of an Arrow stream, determined without unpacking it.

A few kilobytes of compressed zeros can unpack to gigabytes. Layouts are those of Message.fbs in the
Arrow format (arrow.apache.org/docs/format/Columnar.html, "Serialization and Interprocess
Communication"), read as FlatBuffers (flatbuffers.dev, "internals").
"""

import struct
import sys

import pyarrow as pa

__all__ = ["unpacked_bytes"]

# Field numbers in their tables.
_MESSAGE_HEADER, _DICTIONARY_DATA, _BUFFERS, _COMPRESSION = 2, 1, 2, 3
_BATCHES = ("record batch", "dictionary")
_NOT_COMPRESSED = -1
_LENGTH = struct.Struct("<q")


def unpacked_bytes(stream: bytes, at_most: int = sys.maxsize) -> int:
    """Bytes of all buffers of all batches in an Arrow IPC stream.

    Args:
        stream: the stream.
        at_most: beyond that, the rest is not looked at.

    Raises:
        ArrowException, EOFError, ValueError, struct.error: if the stream is malformed.
    """
    reader = pa.ipc.MessageReader.open_stream(stream)
    total = 0
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return total
        if message.type in _BATCHES:
            metadata, body = memoryview(message.metadata), memoryview(message.body)
            total += _batch_bytes(metadata, body, message.type == "dictionary")
            if total > at_most:
                return total


def _batch_bytes(metadata: memoryview, body: memoryview, is_dictionary: bool) -> int:
    batch = _table(metadata, _follow(metadata, 0), _MESSAGE_HEADER)
    if is_dictionary and batch is not None:
        batch = _table(metadata, batch, _DICTIONARY_DATA)
    vector = None if batch is None else _table(metadata, batch, _BUFFERS)
    if batch is None or vector is None:
        return 0
    (count,) = struct.unpack_from("<I", metadata, vector)
    buffers = struct.iter_unpack("<qq", metadata[vector + 4 : vector + 4 + 16 * count])
    is_compressed = _field(metadata, batch, _COMPRESSION) is not None
    total = 0
    for offset, length in buffers:
        if offset < 0 or length < 0 or offset + length > len(body):
            raise ValueError("a buffer is not in its message")
        if not is_compressed or not length:
            total += length
            continue
        # Each buffer is preceded by its unpacked length.
        (unpacked,) = _LENGTH.unpack_from(body, offset)
        if unpacked < _NOT_COMPRESSED:
            raise ValueError("a buffer has a negative length")
        total += length if unpacked == _NOT_COMPRESSED else unpacked
    return total


def _follow(data: memoryview, at: int) -> int:
    """The position that the offset at `at` points to."""
    (offset,) = struct.unpack_from("<I", data, at)
    return at + int(offset)


def _field(data: memoryview, table: int, number: int) -> int | None:
    """The position of a table's field; None if it is absent."""
    (to_fields,) = struct.unpack_from("<i", data, table)
    fields = table - to_fields
    (size,) = struct.unpack_from("<H", data, fields)
    if 4 + 2 * number >= size:
        return None
    (offset,) = struct.unpack_from("<H", data, fields + 4 + 2 * number)
    return table + offset if offset else None


def _table(data: memoryview, table: int, number: int) -> int | None:
    """The position of the table or vector a field refers to; None if it is absent."""
    at = _field(data, table, number)
    return None if at is None else _follow(data, at)
