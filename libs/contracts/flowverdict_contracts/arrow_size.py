"""How large an Arrow stream is once unpacked, told before it is unpacked.

A few kilobytes of compressed zeros would be gigabytes. Layouts are those of Message.fbs in the
Arrow format (arrow.apache.org/docs/format/Columnar.html, "Serialization and Interprocess
Communication"), read as FlatBuffers (flatbuffers.dev, "internals").
"""

import struct

import pyarrow as pa

__all__ = ["unpacked_bytes"]

# Numbers of the fields in their tables.
_MESSAGE_HEADER, _DICTIONARY_DATA, _BUFFERS, _COMPRESSION = 2, 1, 2, 3
_BATCHES = ("record batch", "dictionary")
_NOT_COMPRESSED = -1


def unpacked_bytes(stream: bytes) -> int:
    """Bytes of all buffers of all batches in an Arrow IPC stream.

    Raises:
        ArrowException, EOFError, struct.error: where it is not one.
    """
    reader = pa.ipc.MessageReader.open_stream(stream)
    total = 0
    while True:
        try:
            message = reader.read_next_message()
        except StopIteration:
            return total
        if message.type in _BATCHES:
            metadata, body = message.metadata.to_pybytes(), message.body.to_pybytes()
            total += _batch_bytes(metadata, body, message.type == "dictionary")


def _batch_bytes(metadata: bytes, body: bytes, is_dictionary: bool) -> int:
    batch = _table(metadata, _follow(metadata, 0), _MESSAGE_HEADER)
    if is_dictionary and batch is not None:
        batch = _table(metadata, batch, _DICTIONARY_DATA)
    if batch is None:
        return 0
    is_compressed = _field(metadata, batch, _COMPRESSION) is not None
    vector = _table(metadata, batch, _BUFFERS)
    if vector is None:
        return 0
    (count,) = struct.unpack_from("<I", metadata, vector)
    total = 0
    for number in range(count):
        offset, length = struct.unpack_from("<qq", metadata, vector + 4 + 16 * number)
        unpacked = length
        if is_compressed and length:
            (told,) = struct.unpack_from("<q", body, offset)
            unpacked = length if told == _NOT_COMPRESSED else told
        if unpacked < 0:
            raise struct.error("a buffer has a negative length")
        total += unpacked
    return total


def _follow(data: bytes, at: int) -> int:
    """Where the offset that stands at `at` leads."""
    (offset,) = struct.unpack_from("<I", data, at)
    return at + int(offset)


def _field(data: bytes, table: int, number: int) -> int | None:
    """Where a field of a table stands; None where it is left out."""
    (to_fields,) = struct.unpack_from("<i", data, table)
    fields = table - to_fields
    (size,) = struct.unpack_from("<H", data, fields)
    if 4 + 2 * number >= size:
        return None
    (offset,) = struct.unpack_from("<H", data, fields + 4 + 2 * number)
    return table + offset if offset else None


def _table(data: bytes, table: int, number: int) -> int | None:
    """Where the table or vector that a field refers to begins."""
    at = _field(data, table, number)
    return None if at is None else _follow(data, at)
