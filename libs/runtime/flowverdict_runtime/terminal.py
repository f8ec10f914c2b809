"""Makes untrusted text safe to print on a terminal."""

import re

__all__ = ["printable"]

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with control characters and bidirectional overrides replaced."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)
