"""The names of DNS lookups as text."""

import re

__all__ = ["text_of"]

_CUT = "..."
_PLAIN = re.compile(r"[-\w*/]", re.ASCII)


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
