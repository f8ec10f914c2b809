"""What the records of a raw message refer to by number, after them.

Each is its number, four bytes, the length of its text, two bytes, both little-endian, and the text,
which is printable ASCII.
"""

import struct
from collections.abc import Mapping

from flowverdict_contracts import MalformedMessage

__all__ = ["decode", "encode"]

_ENTRY = struct.Struct("<IH")
_LONGEST = 1020
"""Text of the longest name that a DNS query can have, 255 bytes, if each needs to be escaped."""


def encode(texts: Mapping[int, str]) -> bytes:
    """Texts by their numbers, packed."""
    return b"".join(
        _ENTRY.pack(number, len(text)) + text.encode("ascii") for number, text in texts.items()
    )


def decode(packed: bytes) -> dict[int, str]:
    """Texts by their numbers.

    Raises:
        MalformedMessage: if they are not whole, or not printable.
    """
    texts, at = {}, 0
    while at < len(packed):
        try:
            number, length = _ENTRY.unpack_from(packed, at)
            text = packed[at + _ENTRY.size : at + _ENTRY.size + length].decode("ascii")
        except (struct.error, UnicodeDecodeError):
            raise MalformedMessage("a name is malformed") from None
        if len(text) < length or length > _LONGEST or not text.isprintable():
            raise MalformedMessage("a name is malformed")
        texts[number] = text
        at += _ENTRY.size + length
    return texts
