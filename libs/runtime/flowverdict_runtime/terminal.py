"""Makes untrusted text safe to print on a terminal."""

import re
import sys

__all__ = ["complain", "printable"]

_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def printable(text: str) -> str:
    """`text` with control characters and bidirectional overrides replaced."""
    return _CONTROLS.sub("\N{REPLACEMENT CHARACTER}", text)


def complain(program: str, what: object) -> None:
    """Print on stderr what is wrong, which others may have had a part in writing."""
    for line in f"{program}: {what}".split("\n"):
        print(printable(line), file=sys.stderr, flush=True)
