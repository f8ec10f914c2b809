"""The names that were looked up, after the records of a raw message.

Each is its number and the length of its text, two bytes each, little-endian, and the text, which is
ASCII. A record refers to it by its number (`raw.FIELDS`, `dns_name`).
"""

import re
import struct
from collections.abc import Mapping

from flowverdict_contracts import MalformedMessage

__all__ = ["decode", "encode", "text_of"]

_ENTRY = struct.Struct("<HH")
_CUT = "..."
_LONGEST = 1020
"""Text of the longest name that a query can have, 255 bytes, if each needs to be escaped."""
_PLAIN = re.compile(r"[-\w*/]", re.ASCII)


def encode(names: Mapping[int, str]) -> bytes:
    """Names by their numbers, packed."""
    return b"".join(
        _ENTRY.pack(number, len(text)) + text.encode("ascii") for number, text in names.items()
    )


def decode(packed: bytes) -> dict[int, str]:
    """Names by their numbers.

    Raises:
        MalformedMessage: if they are not whole, or not printable.
    """
    names, at = {}, 0
    while at < len(packed):
        try:
            number, length = _ENTRY.unpack_from(packed, at)
            text = packed[at + _ENTRY.size : at + _ENTRY.size + length].decode("ascii")
        except (struct.error, UnicodeDecodeError):
            raise MalformedMessage("a looked up name is malformed") from None
        if len(text) < length or length > _LONGEST or not text.isprintable():
            raise MalformedMessage("a looked up name is malformed")
        names[number] = text
        at += _ENTRY.size + length
    return names


def text_of(labels: bytes) -> str:
    """A name as in a query (RFC 1035, 3.1) as text, without a dot at its end.

    What is no letter, digit, hyphen, underscore, asterisk or slash is written as a backslash and
    three decimal digits (RFC 4343, 2.1). A name that has no end is cut, and ends with three dots.
    """
    stripped = labels.rstrip(b"\0")
    is_whole = len(stripped) < len(labels)
    parts, at = [], 0
    while at < len(stripped):
        label = stripped[at + 1 : at + 1 + stripped[at]]
        parts.append("".join(map(_character, label)))
        at += 1 + stripped[at]
    return (".".join(parts) or ".") + ("" if is_whole and at == len(stripped) else _CUT)


def _character(byte: int) -> str:
    return chr(byte) if _PLAIN.match(chr(byte)) else f"\\{byte:03d}"
