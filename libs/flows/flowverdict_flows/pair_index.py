"""Numbers for pairs of ends, so that sums by pair are array operations.

A pair is a sender and a receiver. `PairIndex` assigns the numbers, and `PairRows` groups a batch's
rows by them.
"""

import heapq
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.addresses import ENDS

__all__ = ["NO_PAIR", "Folding", "Mask", "Numbers", "PairIndex", "PairRows"]

Numbers = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]

NO_PAIR = 0
"""The number of every pair beyond an index's capacity."""

_LOOPBACK = -1
_LOW = 0xFFFFFFFF
_SPARE_ENDS = 10_000

E = TypeVar("E", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Folding(Generic[E]):
    """How ends without a name share pairs, so that those with names keep theirs.

    Attributes:
        is_unnamed: whether an end has no name of its own, as an address on the Internet.
        others: the end that stands for all of those whose pairs are folded.
        room: how many pairs with such an end can have a number of their own at a time.
        at_once: which rows of a batch get none, whatever room there is; None if all may.
    """

    is_unnamed: Callable[[E], bool]
    others: E
    room: int | None = None
    at_once: Callable[[pa.RecordBatch], Mask] | None = None


@dataclass(frozen=True, slots=True)
class PairRows:
    """The rows of a batch by pair, without loopback.

    Attributes:
        batch: the enriched batch.
        numbers: of its distinct pairs; `NO_PAIR` for each beyond the index's capacity.
        rows: positions of the rows that count, in the batch.
        pair_of_row: for each of `rows`, the position of its pair in `numbers`.
    """

    batch: pa.RecordBatch
    numbers: Numbers
    rows: Numbers
    pair_of_row: Numbers

    def values(self, field: str) -> Numbers:
        """A field's values in `rows`."""
        values: Numbers = self.batch.column(field).to_numpy()[self.rows].astype(np.int64)
        return values

    def sums(self, field: str) -> Numbers:
        """A field summed by pair, in the order of `numbers`; exact up to 2^53."""
        if not self.batch.column(field).to_numpy().any():  # most are zero for most of the time
            return np.zeros(len(self.numbers), np.int64)
        summed = np.bincount(self.pair_of_row, self.values(field), len(self.numbers))
        return summed.astype(np.int64)

    def table(self, fields: Sequence[str]) -> Numbers:
        """The sums of `fields`: a row for each pair, a column for each field."""
        return np.stack([self.sums(field) for field in fields], axis=1)

    def samples(self, field: str) -> Numbers:
        """How many rows of each pair have a reading of `field`, that is, one other than 0."""
        return np.bincount(self.pair_of_row[self.values(field) > 0], minlength=len(self.numbers))

    def having(self, column: str, text: str) -> Numbers:
        """How many rows of each pair have this text in a column of texts."""
        texts = self.batch.column(column)
        is_it = np.array([each == text for each in texts.dictionary.to_pylist()], np.bool_)
        rows = is_it[texts.indices.to_numpy()[self.rows]]
        return np.bincount(self.pair_of_row[rows], minlength=len(self.numbers))

    def largest(self, field: str) -> Numbers:
        """The largest value of a field by pair."""
        found = np.zeros(len(self.numbers), np.int64)
        np.maximum.at(found, self.pair_of_row, self.values(field))
        return found


class PairIndex(Generic[E]):
    """Assigns each pair the smallest free number, starting at 1.

    Args:
        read_ends: yields the owner of each distinct address at an end ("src", "dst") of a batch,
            in the order of its address dictionary; None for loopback.
        folding: how ends without a name share pairs.
        room: how many pairs can have a number at a time; None for no limit.
    """

    def __init__(
        self,
        read_ends: Callable[[pa.RecordBatch, str], Iterable[E | None]],
        folding: Folding[E],
        room: int | None = None,
    ) -> None:
        self._read_ends = read_ends
        self._folding = folding
        self._room = room
        self.clear()

    def clear(self) -> None:
        """Forget every pair."""
        self._ids: dict[E, int] = {}
        self._ends: dict[int, E] = {}
        # An end without a name has an odd id.
        self._next_ids = [0, 1]
        self._free_ids: tuple[list[int], list[int]] = ([], [])
        # Sorted codes of the known pairs (sender's id << 32 | receiver's id), and their numbers.
        self._codes = np.empty(0, np.int64)
        self._numbers = np.empty(0, np.int64)
        self._code_of = np.zeros(1, np.int64)
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._codes)

    def numbers(self) -> Numbers:
        """The numbers in use, ascending."""
        return np.sort(self._numbers)

    def pair(self, number: int) -> tuple[E, E]:
        """Who sends and who receives, for the pair with this number."""
        code = int(self._code_of[number])
        return self._ends[code >> 32], self._ends[code & _LOW]

    def ends(self, numbers: Numbers) -> tuple[list[E], Numbers, Numbers]:
        """The distinct ends of the pairs with these numbers, and each pair's sender and receiver.

        Senders and receivers are positions in the list, in the order of `numbers`.
        """
        codes = self._code_of[numbers]
        both = np.concatenate([codes >> 32, codes & _LOW])
        distinct, positions = np.unique(both, return_inverse=True)
        sources, targets = np.split(positions, 2)
        return [self._ends[id_] for id_ in distinct.tolist()], sources, targets

    def group(self, batch: pa.RecordBatch) -> PairRows:
        """The rows of an enriched batch by pair."""
        if len(self._ends) > 4 * len(self._codes) + _SPARE_ENDS:
            self._drop_unused_ends()
        sources, targets = (self._ids_of_rows(batch, end) for end in ENDS)
        rows = np.flatnonzero((sources != _LOOPBACK) & (targets != _LOOPBACK))
        codes = (sources[rows] << 32) | targets[rows]
        unnamed = _unnamed(codes) > 0
        if self._folding.at_once is not None and unnamed.any():
            at_once = self._folding.at_once(batch)[rows] & unnamed
            codes[at_once] = self._folded(codes[at_once])
        distinct, pair_of_row = np.unique(codes, return_inverse=True)
        known, numbers = self._find(distinct)
        beyond = self._beyond_room(distinct, known)
        if beyond.size:
            distinct[beyond] = self._folded(distinct[beyond])
            distinct, merged = np.unique(distinct, return_inverse=True)
            pair_of_row = merged[pair_of_row]
            known, numbers = self._find(distinct)
        if not known.all():
            numbers[~known] = self._add(distinct[~known])
        return PairRows(batch, numbers, rows, pair_of_row)

    def restore(self, ends: Sequence[E], sources: Numbers, targets: Numbers) -> Numbers:
        """Forget every pair, and number those that are given as `ends` returns them, from 1 on.

        `NO_PAIR` for each beyond the index's capacity.
        """
        self.clear()
        ids = np.array([self._id_of(end) for end in ends], np.int64)
        codes = (ids[sources] << 32) | ids[targets]
        numbers = np.arange(1, len(codes) + 1)
        if self._room is not None:
            numbers[self._room :] = NO_PAIR
        codes = codes[numbers != NO_PAIR]
        order = np.argsort(codes)
        self._codes, self._numbers = codes[order], numbers[order]
        self._code_of = np.concatenate([[0], codes])
        return numbers

    def _find(self, distinct: Numbers) -> tuple[Mask, Numbers]:
        """Which codes are those of known pairs, and the pairs' numbers."""
        at = np.atleast_1d(np.searchsorted(self._codes, distinct))
        known: Mask = at < len(self._codes)
        known[known] = self._codes[at[known]] == distinct[known]
        numbers = np.full(len(distinct), NO_PAIR, np.int64)
        numbers[known] = self._numbers[at[known]]
        return known, numbers

    def _beyond_room(self, distinct: Numbers, known: Mask) -> Numbers:
        """Positions of the new pairs without a name for which there is no room."""
        room, others = self._folding.room, self._ids.get(self._folding.others)
        new = np.flatnonzero(~known & (_unnamed(distinct) > 0))
        if room is None or not new.size:
            return new[:0]
        having = self._codes[_unnamed(self._codes) > 0]
        folded = ((having >> 32) == others) | ((having & _LOW) == others)
        return new[max(0, room - int(np.count_nonzero(~folded))) :]

    def _folded(self, codes: Numbers) -> Numbers:
        """The codes with what stands for all ends without a name in their place."""
        others = self._id_of(self._folding.others)
        sources, targets = codes >> 32, codes & _LOW
        sources[sources & 1 > 0] = others
        targets[targets & 1 > 0] = others
        found: Numbers = (sources << 32) | targets
        return found

    def forget(self, numbers: Numbers) -> None:
        """Free the numbers of pairs that are gone."""
        keep = ~np.isin(self._numbers, numbers)
        self._codes, self._numbers = self._codes[keep], self._numbers[keep]
        for number in numbers.tolist():
            heapq.heappush(self._free, number)
        self._drop_unused_ends()

    def _drop_unused_ends(self) -> None:
        used = {*(self._codes >> 32).tolist(), *(self._codes & _LOW).tolist()}
        for id_ in self._ends.keys() - used:
            self._free_ids[id_ & 1].append(id_)
        self._ends = {id_: end for id_, end in self._ends.items() if id_ in used}
        self._ids = {end: id_ for id_, end in self._ends.items()}

    def _ids_of_rows(self, batch: pa.RecordBatch, end: str) -> Numbers:
        addresses = batch.column(f"{end}_ip")
        owners = self._read_ends(batch, end)
        found = [_LOOPBACK if each is None else self._id_of(each) for each in owners]
        ids = np.array(found, np.int64)
        of_rows: Numbers = ids[addresses.indices.to_numpy()] if len(ids) else ids
        return of_rows

    def _id_of(self, end: E) -> int:
        known = self._ids.get(end)
        if known is None:
            is_unnamed = int(self._folding.is_unnamed(end))
            if self._free_ids[is_unnamed]:
                known = self._free_ids[is_unnamed].pop()
            else:
                known = self._next_ids[is_unnamed]
                self._next_ids[is_unnamed] += 2
            self._ids[end] = known
            self._ends[known] = end
        return known

    def _add(self, codes: Numbers) -> Numbers:
        numbers = np.full(len(codes), NO_PAIR, np.int64)
        room = len(codes) if self._room is None else self._room - len(self._codes)
        taken: list[int] = []
        highest = len(self._codes) + len(self._free)
        for _ in range(min(len(codes), room)):
            if self._free:
                taken.append(heapq.heappop(self._free))
            else:
                highest += 1
                taken.append(highest)
        if not taken:
            return numbers
        added = codes[: len(taken)]
        numbers[: len(taken)] = taken
        if max(taken) >= len(self._code_of):
            self._code_of = np.resize(self._code_of, max(2 * len(self._code_of), max(taken) + 1))
        self._code_of[taken] = added
        order = np.searchsorted(self._codes, added)
        self._codes = np.insert(self._codes, order, added)
        self._numbers = np.insert(self._numbers, order, taken)
        return numbers


def _unnamed(codes: Numbers) -> Numbers:
    """Not 0 for the codes of pairs with an end without a name."""
    found: Numbers = ((codes >> 32) | codes) & 1
    return found
