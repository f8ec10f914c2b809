"""Addresses with their names, kept as columns from one message to the next: most are the same."""

from operator import attrgetter

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.addresses import ENDS, to_text
from flowverdict_contracts.enriched import NAMES, Names

__all__ = ["NameTable", "addresses_only"]

_Rows = npt.NDArray[np.int32]

_COLUMNS = ("ip", *NAMES)
_ALL_NAMES = attrgetter(*NAMES)
_FEW = 4096
"""Texts of a column, up to which it is faster to mark those used than to look them up."""


class NameTable:
    """One row for each address and what it was called. Not for several threads."""

    def __init__(self) -> None:
        self._texts = tuple(_Texts() for _ in _COLUMNS)
        self._rows = np.zeros((256, len(_COLUMNS)), np.int32)  # codes; more than are in use
        self._length = 0

    def __len__(self) -> int:
        return self._length

    @property
    def size(self) -> int:
        """How many rows it has, or had if there were more different ones of what was removed."""
        return max(self._length, *map(len, self._texts))

    def add(self, address: bytes, names: Names) -> int:
        """Add a row for an address of 16 bytes; returns its position."""
        if self._length == len(self._rows):
            self._rows = np.concatenate([self._rows, np.zeros_like(self._rows)])
        self._rows[self._length] = [
            texts.code(text)
            for texts, text in zip(self._texts, (to_text(address), *_ALL_NAMES(names)), strict=True)
        ]
        self._length += 1
        return self._length - 1

    def truncate(self, length: int) -> None:
        """Remove the rows from position `length` on."""
        self._length = length

    def columns(self, src: _Rows, dst: _Rows) -> dict[str, pa.DictionaryArray]:
        """What an enriched batch says about each end, for rows of this table.

        An address that has several rows is in the dictionaries of addresses as often. Names that no
        row of the table has are left out.
        """
        distinct = pa.array(np.concatenate([src, dst])).dictionary_encode()
        row_of_end = distinct.indices.to_numpy()
        rows = self._rows[distinct.dictionary.to_numpy()]
        columns: dict[str, pa.DictionaryArray] = {}
        for name, texts, codes in zip(_COLUMNS, self._texts, rows.T, strict=True):
            if texts.are_empty:
                continue
            if name == "ip":
                used, positions = codes, np.arange(len(codes), dtype=np.int32)
            else:
                used, positions = texts.distinct(codes)
            both = pa.DictionaryArray.from_arrays(pa.array(positions[row_of_end]), texts.of(used))
            columns |= {f"src_{name}": both[: len(src)], f"dst_{name}": both[len(src) :]}
        return columns


def addresses_only(records: npt.NDArray[np.void]) -> dict[str, pa.DictionaryArray]:
    """The columns about each end of raw `records` of which nothing but the addresses is known."""
    table = NameTable()
    unknown = Names("unknown", name_confidence="none")
    ends = [records[end].tolist() for end in ENDS]
    row_of = {each: table.add(each, unknown) for each in {*ends[0], *ends[1]}}
    src, dst = (np.array([row_of[each] for each in end], np.int32) for end in ends)
    return table.columns(src, dst)


class _Texts:
    """The different texts of a column, each with a number."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._texts: list[str] = []
        self._array = pa.array(self._texts, pa.string())  # the first of them
        self._one_by_one = 0

    def code(self, text: str) -> int:
        code = self._codes.setdefault(text, len(self._texts))
        if code == len(self._texts):
            self._texts.append(text)
        return code

    @property
    def are_empty(self) -> bool:
        """Whether there is none but the empty one."""
        return self._texts == [""]

    def __len__(self) -> int:
        return len(self._texts)

    def distinct(self, codes: _Rows) -> tuple[_Rows, _Rows]:
        """The distinct ones of some codes, and for each its position among them."""
        if len(self._texts) > _FEW:
            encoded = pa.array(codes).dictionary_encode()
            return encoded.dictionary.to_numpy(), encoded.indices.to_numpy()
        is_used = np.zeros(len(self._texts), np.bool_)
        is_used[codes] = True
        positions = np.cumsum(is_used, dtype=np.int32) - 1
        return np.flatnonzero(is_used).astype(np.int32), positions[codes]

    def of(self, codes: _Rows) -> pa.StringArray:
        """The texts with these codes."""
        if len(self._texts) > len(self._array) <= codes.max(initial=0):
            self._one_by_one += len(codes)
            if self._one_by_one < len(self._texts):
                return pa.array([self._texts[code] for code in codes.tolist()], pa.string())
            self._array, self._one_by_one = pa.array(self._texts, pa.string()), 0
        return self._array.take(pa.array(codes))
