"""Every component that could be at fault in a table.

A component is a condition on a row's columns: `{"src_pod": "x"}` covers the rows that pod x sends,
`{"pod": "x"}` those that it sends or receives. A column may hold several possible values in a row,
as a list: the pods behind a service, if it is not known which of them answered. Such a row belongs
to each of them in part.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, reduce
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import sparse

from flowverdict_rca.engine.rows import ENDED, FLAT, LABEL, Floats, Numbers, Rows

__all__ = ["Components", "Where", "components_of"]

Where = dict[str, Any]
Positions = npt.NDArray[np.int32]
"""Half of what Numbers take: there is one for each row and kind of component."""

_DIRECTED = (
    ("src_pod",), ("dst_pod",),
    ("src_pod", "dst_pod"), ("src_workload", "dst_workload"), ("src_node", "dst_node"),
)  # fmt: skip
_MOST_COMBINED = 3


@dataclass(frozen=True, slots=True)
class _Column:
    """The values of one column, or of several: a row has one entry, more, or none.

    Attributes:
        row, share: of each entry, and how much of the row it is.
        code: of each entry, its value, as a position in `values`.
        values: for each code a number for each column: its position in `distinct`.
        distinct: the distinct values of each column.
    """

    row: Positions
    share: Floats
    code: Positions
    values: Numbers
    distinct: tuple[Sequence[Any], ...]


@dataclass(frozen=True)
class _Kind:
    """Components with the same columns.

    Attributes:
        names: of the columns.
        values, distinct: as in `_Column`, by component.
    """

    names: tuple[str, ...]
    values: Numbers
    distinct: tuple[Sequence[Any], ...]

    def at(self, condition: Sequence[Any]) -> int | None:
        """The position of the component with these values of the columns, if there is one."""
        codes = [known.get(each, -1) for known, each in zip(self._codes, condition, strict=True)]
        if min(codes) < 0:
            return None
        order, ascending = self._ordered
        key = int(np.ravel_multi_index(codes, self._shape))
        at = int(np.searchsorted(ascending, key))
        return int(order[at]) if at < len(order) and ascending[at] == key else None

    @property
    def _shape(self) -> tuple[int, ...]:
        return tuple(map(len, self.distinct))

    @cached_property
    def _codes(self) -> list[dict[Any, int]]:
        return [{each: at for at, each in enumerate(distinct)} for distinct in self.distinct]

    @cached_property
    def _ordered(self) -> tuple[Numbers, Numbers]:
        keys = np.ravel_multi_index(tuple(self.values.T), self._shape)
        order = np.argsort(keys)
        return order, keys[order]


@dataclass(frozen=True)
class Components:
    """What could be at fault, and which rows each component covers.

    Attributes:
        kinds: components with the same columns are of one kind.
        kind: of each component.
        first: the first component of each kind, and how many there are of all.
        cover: how much of each row (columns) each component (rows) covers, at most 1.
    """

    kinds: Sequence[_Kind]
    kind: Numbers
    first: Numbers
    cover: sparse.csr_array

    def __len__(self) -> int:
        return len(self.kind)

    def names(self, component: int) -> tuple[str, ...]:
        """The columns of its condition."""
        return self.kinds[int(self.kind[component])].names

    def where(self, component: int) -> Where:
        """Its condition."""
        kind = self.kinds[int(self.kind[component])]
        codes = kind.values[component - self.first[self.kind[component]]].tolist()
        values = (distinct[code] for distinct, code in zip(kind.distinct, codes, strict=True))
        return dict(zip(kind.names, values, strict=True))

    def find(self, where: Mapping[str, Any]) -> int | None:
        """The component with that condition; None if there is none."""
        for number, kind in enumerate(self.kinds):
            if kind.names == tuple(where):
                at = kind.at(tuple(where.values()))
                return None if at is None else int(self.first[number]) + at
        return None

    def opposite(self, component: int) -> int | None:
        """The same component the other way; None if it has no direction, or no such rows."""
        names = self.names(component)
        if names not in _DIRECTED:
            return None
        where = self.where(component)
        if len(names) > 1:
            return self.find(dict(zip(names, reversed(where.values()), strict=True)))
        other = "dst_pod" if names == ("src_pod",) else "src_pod"
        return self.find({other: where[names[0]]})

    def rows(self, component: int) -> tuple[Numbers, Floats]:
        """The rows of one component, and how much of each is its."""
        part = slice(self.cover.indptr[component], self.cover.indptr[component + 1])
        return self.cover.indices[part], self.cover.data[part]

    def among(self, rows: Numbers) -> Numbers:
        """The components that cover any of these rows."""
        wanted = np.zeros(self.cover.shape[1], np.bool_)
        wanted[rows] = True
        entry = np.flatnonzero(wanted[self.cover.indices])
        return np.unique(np.searchsorted(self.cover.indptr, entry, "right") - 1)

    def sums(self, of_row: Floats) -> Floats:
        """The sum over each component's rows, of one figure of each row or of several (columns)."""
        found: Floats = self.cover @ of_row
        return found

    @cached_property
    def of_kind(self) -> Numbers:
        """How many components of its kind there are, for each component."""
        return np.bincount(self.kind, minlength=len(self.kinds))[self.kind]

    @cached_property
    def alike(self) -> Numbers:
        """A number for each component; those with the very same rows have the same one.

        Each row gets a random number, and each component the sum of its rows' (Zobrist 1970).
        """
        random = np.random.default_rng(0).integers(1 << 62, size=self.cover.shape[1])
        shares = (self.cover.data * (1 << 30)).astype(np.int64)
        cover = (shares, self.cover.indices, self.cover.indptr)
        sums: Numbers = sparse.csr_array(cover, shape=self.cover.shape) @ random
        return sums


def _column(series: "pd.Series[Any]") -> _Column:
    rows, share = np.arange(len(series), dtype=np.int32), np.ones(len(series))
    if series.dtype == object:
        several = series.map(lambda each: len(each) if isinstance(each, tuple) else 1).to_numpy()
        if (several != 1).any():
            several = np.maximum(several, 1)
            rows, share = np.repeat(rows, several), 1 / np.repeat(several, several)
            series = series.explode()
    codes, values = pd.factorize(series)
    distinct = list(values)
    kept = codes >= 0
    if "" in distinct:
        kept &= codes != distinct.index("")
    code = codes[kept].astype(np.int32)
    return _Column(rows[kept], share[kept], code, np.arange(len(distinct))[:, None], (distinct,))


def _both_ends(src: _Column, dst: _Column) -> _Column:
    """Rows with a value at either end, once if it is the same value at both."""
    distinct = pd.Index(src.distinct[0]).union(pd.Index(dst.distinct[0]), sort=False)
    one, other = (
        distinct.get_indexer(pd.Index(each.distinct[0])).astype(np.int32)[each.code]
        for each in (src, dst)
    )
    row, share = (np.concatenate([getattr(src, of), getattr(dst, of)]) for of in ("row", "share"))
    code = np.concatenate([one, other])
    if np.array_equal(src.row, dst.row) and (np.diff(src.row) > 0).all():
        kept = np.concatenate([np.ones(len(one), np.bool_), one != other])
        row, share, code = row[kept], share[kept], code[kept]
    else:
        entry, key = pd.factorize(row.astype(np.int64) * len(distinct) + code)
        share = np.minimum(1.0, np.bincount(entry, share, len(key)))
        row, code = (each.astype(np.int32) for each in np.divmod(key, len(distinct)))
    values = np.arange(len(distinct))[:, None]
    return _Column(row, share, code, values, (list(distinct),))


def _combined(one: _Column, other: _Column) -> _Column:
    """Rows by the values of two columns."""
    left, right = _pairs(one.row, other.row)
    both = one.code[left].astype(np.int64) * len(other.values) + other.code[right]
    code, used = pd.factorize(both)
    values = [one.values[used // len(other.values)], other.values[used % len(other.values)]]
    return _Column(
        one.row[left],
        one.share[left] * other.share[right],
        code.astype(np.int32),
        np.concatenate(values, axis=1),
        (*one.distinct, *other.distinct),
    )


def _pairs(left: Positions, right: Positions) -> tuple[Numbers, Numbers]:
    """The positions of every entry on the left with every entry on the right of the same row."""
    if len(left) == len(right) and (left == right).all() and (np.diff(left) > 0).all():
        return np.arange(len(left)), np.arange(len(right))
    begin, end = (np.searchsorted(right, left, side) for side in ("left", "right"))
    count = end - begin
    of_left = np.repeat(np.arange(len(left)), count)
    return of_left, np.arange(len(of_left)) + np.repeat(begin - np.cumsum(count) + count, count)


def components_of(rows: Rows, dimensions: Sequence[str] | None = None) -> Components:
    """Every component that covers any of the rows.

    Args:
        rows: with the columns that describe a flow.
        dimensions: take these columns and combinations of up to three instead of a flow's ends.
    """
    columns: dict[Any, _Column] = {name: _column(rows.columns[name]) for name in rows.columns}
    found: list[tuple[tuple[str, ...], _Column]] = []
    if dimensions is None:
        possible = [names for names in _DIRECTED if all(name in columns for name in names)]
        found += [(names, _between_two(_of(columns, names))) for names in possible]
        labels = dict.fromkeys(name[4:] for name in columns if name[4:].startswith(LABEL))
        for name in (*ENDED, *labels):
            ends = [columns[each] for each in (f"src_{name}", f"dst_{name}") if each in columns]
            if ends:
                found.append(((name,), _both_ends(ends[0], ends[-1])))
            elif name in columns:
                found.append(((name,), columns[name]))
        found += [((name,), columns[name]) for name in FLAT if name in columns]
    else:
        for size in range(1, _MOST_COMBINED + 1):
            found += [(names, _of(columns, names)) for names in combinations(dimensions, size)]
    return _joined(found, len(rows.total))


def _between_two(path: _Column) -> _Column:
    """Without the paths from something to itself: there is nothing between them."""
    if len(path.distinct) == 1:
        return path
    ends = [
        pd.Index(distinct).take(path.values[:, at]) for at, distinct in enumerate(path.distinct)
    ]
    kept = np.asarray(ends[0] != ends[1])
    number = np.cumsum(kept, dtype=np.int32) - 1
    rows = kept[path.code]
    return _Column(
        path.row[rows], path.share[rows], number[path.code[rows]], path.values[kept], path.distinct
    )


def _of(columns: Mapping[Any, _Column], names: Sequence[str]) -> _Column:
    return reduce(_combined, (columns[name] for name in names))


def _joined(found: Sequence[tuple[tuple[str, ...], _Column]], rows: int) -> Components:
    counts = [len(column.values) for _, column in found]
    first = np.cumsum([0, *counts])
    begins = first.tolist()
    entries = [column.code + begin for (_, column), begin in zip(found, begins, strict=False)]
    parts = [np.concatenate([np.zeros(0, np.int32), *each]) for each in (
        entries, [column.row for _, column in found],
    )]  # fmt: skip
    share = np.concatenate([np.zeros(0), *(column.share for _, column in found)])
    cover = sparse.coo_array((share, (parts[0], parts[1])), shape=(int(first[-1]), rows))
    cover.has_canonical_format = True  # no entry is there twice, and nobody needs them in order
    return Components(
        [_Kind(names, column.values, column.distinct) for names, column in found],
        np.repeat(np.arange(len(found)), counts),
        first,
        cover.tocsr(),
    )
