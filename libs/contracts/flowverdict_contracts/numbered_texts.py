"""What the records of a raw message refer to by number, after them.

Each is its number, four bytes (two before `flows.raw/6`), the length of its text, two bytes, both
little-endian, and the text, which is printable ASCII.
"""

import struct
from collections.abc import Mapping

from flowverdict_contracts import MalformedMessage

__all__ = ["decode", "encode"]

_ENTRY, _SHORT_ENTRY = struct.Struct("<IH"), struct.Struct("<HH")
_LONGEST = 1020
"""Text of the longest name that a DNS query can have, 255 bytes, if each needs to be escaped."""


def encode(texts: Mapping[int, str]) -> bytes:
    """Texts by their numbers, packed."""
    return b"".join(
        _ENTRY.pack(number, len(text)) + text.encode("ascii") for number, text in texts.items()
    )


def decode(packed: bytes, *, short: bool = False) -> dict[int, str]:
    """Texts by their numbers, which are `short` before `flows.raw/6`.

    Raises:
        MalformedMessage: if they are not whole, or not printable.
    """
    texts, at, entry = {}, 0, _SHORT_ENTRY if short else _ENTRY
    while at < len(packed):
        try:
            number, length = entry.unpack_from(packed, at)
            text = packed[at + entry.size : at + entry.size + length].decode("ascii")
        except (struct.error, UnicodeDecodeError):
            raise MalformedMessage("a name is malformed") from None
        if len(text) < length or length > _LONGEST or not text.isprintable():
            raise MalformedMessage("a name is malformed")
        texts[number] = text
        at += entry.size + length
    return texts
