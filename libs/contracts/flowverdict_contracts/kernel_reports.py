"""What a node's kernel itself reports in its log, in a NATS header of flow messages."""

import json
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Literal, get_args

__all__ = ["KernelCondition", "KernelReport", "decode", "encode"]

KernelCondition = Literal[
    "LINK_DOWN", "CONNTRACK_TABLE_FULL", "NEIGHBOUR_TABLE_OVERFLOW", "SYN_FLOODING"
]
"""What is looked for: an interface that lost its carrier, a full connection tracking table, a full
ARP or neighbour discovery table, and a listener that begins to send SYN cookies.
"""

_LONGEST_LINE = 200
_MOST_COUNTED = 1_000_000


@dataclass(frozen=True, slots=True)
class KernelReport:
    """Lines of a node's kernel log that say the same.

    Attributes:
        condition: what they say.
        count: how many lines.
        line: the newest, without its time, at most 200 characters of ASCII.
    """

    condition: KernelCondition
    count: int
    line: str


def encode(reports: Iterable[KernelReport]) -> str:
    """The header's text; lines are cut, and what is not printable ASCII is replaced."""
    return json.dumps([asdict(each) | {"line": _printable(each.line)} for each in reports])


def decode(text: str) -> tuple[KernelReport, ...]:
    """The reports in the header's text.

    Raises:
        ValueError: if it is something else.
    """
    known: dict[str, KernelCondition] = {each: each for each in get_args(KernelCondition)}
    try:
        found = tuple(
            KernelReport(known[each["condition"]], int(each["count"]), _printable(each["line"]))
            for each in json.loads(text)[: len(known)]
        )
    except (AttributeError, KeyError, OverflowError, RecursionError, TypeError) as error:
        raise ValueError(f"not what a kernel reports: {error!r}") from None
    if not all(0 < each.count <= _MOST_COUNTED for each in found):
        raise ValueError("a count is out of range")
    return found


def _printable(line: str) -> str:
    cut = line[:_LONGEST_LINE].encode("ascii", "replace").decode()
    return "".join(each if each.isprintable() else "?" for each in cut)
