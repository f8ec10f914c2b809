"""The names that were looked up, out of the kernel's map, for the records that refer to them."""

import ctypes
from collections.abc import Mapping

from flowverdict_collector.definitions import NAME_BYTES
from flowverdict_collector.kernel import read_value, write_value
from flowverdict_contracts import numbered_texts
from flowverdict_contracts.looked_up_names import text_of
from flowverdict_contracts.raw import FIELDS

__all__ = ["LookedUpNames"]

_OFFSET = next(field.offset for field in FIELDS if field.name == "dns_name")
_MARGIN_NS = 1_000_000_000
"""An interval's end is taken shortly after the kernel has begun to count in the next one."""


class _Name(ctypes.Structure):
    """`struct looked_up_name` in lookups.bpf.c."""

    _fields_ = (
        ("hash", ctypes.c_uint64),
        ("used", ctypes.c_uint64),
        ("text", ctypes.c_uint8 * NAME_BYTES),
    )


class LookedUpNames:
    """Names by number, as long as records that are still to be published refer to them.

    Args:
        maps: map name to descriptor; without the map of names there are none.
    """

    def __init__(self, maps: Mapping[str, int]) -> None:
        self._names = maps.get("names")
        self._needed_since = maps.get("names_needed_since")

    def of(self, records: bytes, record_bytes: int) -> bytes:
        """The names that packed records of this size refer to, packed.

        Raises:
            OSError: if the kernel refuses.
        """
        if self._names is None or record_bytes <= _OFFSET:
            return b""
        numbers = set(memoryview(records).cast("H")[_OFFSET // 2 :: record_bytes // 2]) - {0}
        return numbered_texts.encode({number: self._text(number) for number in sorted(numbers)})

    def _text(self, number: int) -> str:
        name = read_value(self._names or 0, ctypes.c_uint32(number), _Name)
        return text_of(bytes(name.text))

    def published_until(self, monotonic_ns: int) -> None:
        """Let the kernel give the numbers of names to others that were not used since.

        Raises:
            OSError: if the kernel refuses.
        """
        if self._needed_since is not None:
            since = ctypes.c_uint64(max(0, monotonic_ns - _MARGIN_NS))
            write_value(self._needed_since, ctypes.c_uint32(0), since)
