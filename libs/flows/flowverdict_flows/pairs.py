"""Rows of enriched batches, grouped and summed by pair.

A pair is a sender and a receiver. Each pair gets a number, so that sums are array operations:
`PairIndex` assigns the numbers, `PairRows` groups a batch's rows by them, and `PairSums` keeps sums
over many batches by them.
"""

import heapq
from collections.abc import Callable, Hashable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.addresses import ENDS
from flowverdict_contracts.signals import PAIR_LABELS
from flowverdict_flows.endpoint import Endpoint, Sighting, distinct_ends, endpoints_of
from flowverdict_flows.ratios import Ratio

__all__ = [
    "NO_PAIR",
    "EndpointPairs",
    "LabelledPairs",
    "Numbers",
    "PairIndex",
    "PairRows",
    "PairSums",
    "ratios_of",
]

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

NO_PAIR = 0
"""The number of every pair beyond an index's capacity."""

_LOOPBACK = -1
_LOW = 0xFFFFFFFF
_SPARE_ENDS = 10_000

E = TypeVar("E", bound=Hashable)
N = TypeVar("N", np.int64, np.float64)


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
        room: how many pairs can have a number at a time; None for no limit.
    """

    def __init__(
        self,
        read_ends: Callable[[pa.RecordBatch, str], Iterable[E | None]],
        room: int | None = None,
    ) -> None:
        self._read_ends = read_ends
        self._room = room
        self.clear()

    def clear(self) -> None:
        """Forget every pair."""
        self._ids: dict[E, int] = {}
        self._ends: dict[int, E] = {}
        self._next_id = 0
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
        if self._room is not None and len(self._ends) > 4 * self._room + _SPARE_ENDS:
            self._drop_unused_ends()
        sources, targets = (self._ids_of_rows(batch, end) for end in ENDS)
        rows = np.flatnonzero((sources != _LOOPBACK) & (targets != _LOOPBACK))
        codes = (sources[rows] << 32) | targets[rows]
        distinct, pair_of_row = np.unique(codes, return_inverse=True)
        at = np.atleast_1d(np.searchsorted(self._codes, distinct))
        known: npt.NDArray[np.bool_] = at < len(self._codes)
        known[known] = self._codes[at[known]] == distinct[known]
        numbers = np.full(len(distinct), NO_PAIR, np.int64)
        numbers[known] = self._numbers[at[known]]
        if not known.all():
            numbers[~known] = self._add(distinct[~known])
        return PairRows(batch, numbers, rows, pair_of_row)

    def forget(self, numbers: Numbers) -> None:
        """Free the numbers of pairs that are gone."""
        keep = ~np.isin(self._numbers, numbers)
        self._codes, self._numbers = self._codes[keep], self._numbers[keep]
        for number in numbers.tolist():
            heapq.heappush(self._free, number)
        self._drop_unused_ends()

    def _drop_unused_ends(self) -> None:
        used = {*(self._codes >> 32).tolist(), *(self._codes & _LOW).tolist()}
        self._ends = {id_: end for id_, end in self._ends.items() if id_ in used}
        self._ids = {end: id_ for id_, end in self._ends.items()}

    def _ids_of_rows(self, batch: pa.RecordBatch, end: str) -> Numbers:
        addresses = batch.column(f"{end}_ip")
        ids = np.full(len(addresses.dictionary), _LOOPBACK, np.int64)
        for code, owner in enumerate(self._read_ends(batch, end)):
            if owner is None:
                continue
            known = self._ids.get(owner)
            if known is None:
                known = self._ids[owner] = self._next_id
                self._ends[known] = owner
                self._next_id += 1
            ids[code] = known
        of_rows: Numbers = ids[addresses.indices.to_numpy()] if len(ids) else ids
        return of_rows

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


_LABELS_OF = {end: [name for name in PAIR_LABELS if name.startswith(end)] for end in ENDS}
_ORDER = [[*_LABELS_OF["src"], *_LABELS_OF["dst"]].index(name) for name in PAIR_LABELS]


def _labels_of_ends(batch: pa.RecordBatch, end: str) -> list[tuple[str, ...] | None]:
    return distinct_ends(batch, _LABELS_OF[end])


class LabelledPairs(PairIndex[tuple[str, ...]]):
    """Pairs distinguished by `PAIR_LABELS`: addresses and names, as in Prometheus and InfluxDB."""

    def __init__(self, room: int | None = None) -> None:
        super().__init__(_labels_of_ends, room)

    def labels(self, number: int) -> dict[str, str]:
        """The pair's labels, in the order of `PAIR_LABELS`."""
        src, dst = self.pair(number)
        both = (*src, *dst)
        return {name: both[position] for name, position in zip(PAIR_LABELS, _ORDER, strict=True)}


class EndpointPairs(PairIndex[Endpoint]):
    """Pairs of endpoints regardless of their addresses.

    Attributes:
        seen: every endpoint in the batch grouped last, once for each of its addresses.
    """

    def __init__(self) -> None:
        super().__init__(self._endpoints)
        self.seen: set[Sighting] = set()

    def group(self, batch: pa.RecordBatch) -> PairRows:
        """The rows of an enriched batch by pair."""
        self.seen = set()
        return super().group(batch)

    def _endpoints(self, batch: pa.RecordBatch, end: str) -> Iterable[Endpoint | None]:
        for sighting in endpoints_of(batch, end):
            if sighting is not None:
                self.seen.add(sighting)
            yield sighting.endpoint if sighting is not None else None


class PairSums(Generic[N]):
    """Sums by pair number, extended as needed: one row per pair, `columns` wide.

    Args:
        dtype: int64 for counts, which stay exact, or float64.
    """

    def __init__(self, columns: int, dtype: type[N]) -> None:
        self.values: npt.NDArray[N] = np.zeros((1, columns), dtype)

    def add(self, numbers: Numbers, added: npt.NDArray[N]) -> None:
        """Add a row to the sums of each of the distinct `numbers`."""
        if numbers.size:
            self.reach(int(numbers.max()))
            self.values[numbers] += added

    def reach(self, number: int) -> None:
        """Make room for the pair with this number."""
        if number >= len(self.values):
            grown = np.zeros((2 * number + 1, self.values.shape[1]), self.values.dtype)
            grown[: len(self.values)] = self.values
            self.values = grown


def ratios_of(ratio: Ratio, sums: npt.NDArray[N], fields: Sequence[str]) -> Floats:
    """The ratio of each row of `sums`, whose columns are `fields`; NaN if undefined."""

    def total(names: tuple[str, ...]) -> Floats:
        columns = [fields.index(name) for name in names]
        added: Floats = sums[:, columns].astype(np.float64).sum(axis=1)
        return added

    above, below = total(ratio.numerator), total(ratio.denominator)
    found: Floats = np.divide(above, below, out=np.full(len(above), np.nan), where=below > 0)
    return found if ratio.at_most is None else np.minimum(found, ratio.at_most)
