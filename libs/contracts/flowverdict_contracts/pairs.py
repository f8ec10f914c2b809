"""Numbers for the pairs of addresses in enriched batches, so that sums are array operations."""

import heapq

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.addresses import ENDS, is_loopback
from flowverdict_contracts.signals import PAIR_LABELS

__all__ = ["NO_PAIR", "Numbers", "Pairs"]

Numbers = npt.NDArray[np.int64]

NO_PAIR = 0
"""The number of every pair that came when there was no room."""

_LOOPBACK = -1
_LOW = 0xFFFFFFFF
_SPARE_ENDS = 10_000
_LABELS_OF = {end: [name for name in PAIR_LABELS if name.startswith(end)] for end in ENDS}
_ORDER = [[*_LABELS_OF["src"], *_LABELS_OF["dst"]].index(name) for name in PAIR_LABELS]


class Pairs:
    """Gives each pair a number from 1, the smallest that is free.

    A pair is what has the same `PAIR_LABELS`. Within one batch an address has one owner, so only
    the distinct addresses of a batch are looked at one by one.

    Args:
        room: how many pairs can have a number at a time.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._ids: dict[tuple[str, ...], int] = {}
        self._ends: dict[int, tuple[str, ...]] = {}
        self._next_id = 0
        # Sorted codes of the known pairs (one end's id above the other's), and their numbers.
        self._codes = np.empty(0, np.int64)
        self._numbers = np.empty(0, np.int64)
        self._labels: list[tuple[str, ...]] = [()]
        self._free: list[int] = []

    def __len__(self) -> int:
        return len(self._codes)

    def numbers(self) -> Numbers:
        """The numbers in use, ascending."""
        return np.sort(self._numbers)

    def labels(self, number: int) -> tuple[str, ...]:
        """The values of `PAIR_LABELS` of the pair with this number."""
        return self._labels[number]

    def of(self, batch: pa.RecordBatch) -> tuple[Numbers, Numbers, Numbers]:
        """The pairs of a batch's rows, but for flows over loopback, which are no network.

        Returns the numbers of its distinct pairs (`NO_PAIR` for each that found no room), which
        rows are not loopback, and for each of those rows the position of its pair.
        """
        if len(self._ends) > 4 * self._room + _SPARE_ENDS:
            self._drop_unused_ends()
        sources, targets = (self._end_ids(batch, end) for end in ENDS)
        rows = np.flatnonzero((sources != _LOOPBACK) & (targets != _LOOPBACK))
        codes = (sources[rows] << 32) | targets[rows]
        distinct, inverse = np.unique(codes, return_inverse=True)
        at = np.atleast_1d(np.searchsorted(self._codes, distinct))
        known: npt.NDArray[np.bool_] = at < len(self._codes)
        known[known] = self._codes[at[known]] == distinct[known]
        numbers = np.full(len(distinct), NO_PAIR, np.int64)
        numbers[known] = self._numbers[at[known]]
        if not known.all():
            numbers[~known] = self._add(distinct[~known])
        return numbers, rows, inverse

    def forget(self, numbers: Numbers) -> None:
        """Free the numbers of pairs that are gone."""
        keep = ~np.isin(self._numbers, numbers)
        self._codes, self._numbers = self._codes[keep], self._numbers[keep]
        for number in numbers.tolist():
            self._labels[number] = ()
            heapq.heappush(self._free, number)
        self._drop_unused_ends()

    def _drop_unused_ends(self) -> None:
        used = {*(self._codes >> 32).tolist(), *(self._codes & _LOW).tolist()}
        self._ends = {id_: key for id_, key in self._ends.items() if id_ in used}
        self._ids = {key: id_ for id_, key in self._ends.items()}

    def _end_ids(self, batch: pa.RecordBatch, end: str) -> Numbers:
        """For each row, the id of who is at this end."""
        columns = [batch.column(name) for name in _LABELS_OF[end]]
        addresses = columns[0].indices.to_numpy()
        distinct, first = np.unique(addresses, return_index=True)
        values = []
        for column in columns:
            texts = column.dictionary.to_pylist()
            values.append([texts[code] for code in column.indices.to_numpy()[first].tolist()])
        ids = np.full(len(columns[0].dictionary), _LOOPBACK, np.int64)
        for code, key in zip(distinct.tolist(), zip(*values, strict=True), strict=True):
            known = self._ids.get(key)
            if known is None:
                if is_loopback(key[0]):
                    continue
                known = self._ids[key] = self._next_id
                self._ends[known] = key
                self._next_id += 1
            ids[code] = known
        of_rows: Numbers = ids[addresses]
        return of_rows

    def _add(self, codes: Numbers) -> Numbers:
        numbers = np.full(len(codes), NO_PAIR, np.int64)
        taken = []
        for _ in range(min(len(codes), self._room - len(self._codes))):
            if self._free:
                taken.append(heapq.heappop(self._free))
            else:
                taken.append(len(self._labels))
                self._labels.append(())
        if not taken:
            return numbers
        numbers[: len(taken)] = taken
        added = codes[: len(taken)]
        for number, code in zip(taken, added.tolist(), strict=True):
            both = (*self._ends[code >> 32], *self._ends[code & _LOW])
            self._labels[number] = tuple(both[position] for position in _ORDER)
        order = np.searchsorted(self._codes, added)
        self._codes = np.insert(self._codes, order, added)
        self._numbers = np.insert(self._numbers, order, taken)
        return numbers
