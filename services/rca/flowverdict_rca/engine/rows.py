"""A table of flows as arrays; rows with equal columns are one."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

__all__ = [
    "ENDED",
    "FLAT",
    "LABEL",
    "Floats",
    "Numbers",
    "Rows",
    "distinct_names",
    "rows_of",
    "rows_of_all",
]

Numbers = npt.NDArray[np.int64]
Floats = npt.NDArray[np.float64]

ENDED = ("pod", "node", "workload", "service", "zone")
"""What each end of a flow has, in the columns `src_NAME` and `dst_NAME`."""

LABEL = "label:"
"""What the name of a label begins with, which each end may have besides: in `src_label:KEY` and
`dst_label:KEY`."""

FLAT = ("port", "role")
"""What a flow has once."""

_LARGEST_CODE = 1 << 62


@dataclass(frozen=True, slots=True)
class Rows:
    """Flows with their counts; rows with equal columns are one.

    Attributes:
        columns: the distinct rows, without counts.
        total, bad: the counts of each.
    """

    columns: pd.DataFrame
    total: Floats
    bad: Floats


def distinct_names(dimensions: Iterable[str] | None) -> list[str] | None:
    """The columns by which a table is localised, each once; None for a flow's ends."""
    return None if dimensions is None else list(dict.fromkeys(dimensions))


def _is_list(value: object) -> bool:
    return isinstance(value, list | tuple | set | frozenset | np.ndarray)


def _hashable(column: "pd.Series[Any]") -> "pd.Series[Any]":
    """The column with lists as sorted tuples, those of one value as that value. What can be kept as
    JSON is as it is, what cannot, such as a date, is its text.
    """
    if column.dtype != object and not isinstance(column.dtype, np.dtype | pd.StringDtype):
        column = column.astype(object)
    if column.dtype.kind in "mM":
        return column.astype(str).where(column.notna(), None)
    if column.dtype != object or pd.api.types.infer_dtype(column) == "string":
        return column
    values = column.to_numpy()
    # Rows mostly share their lists: each of these is read once.
    ids = np.fromiter(map(id, values), np.int64, len(values))
    _, first, row = np.unique(ids, return_index=True, return_inverse=True)
    read = np.empty(len(first), object)
    read[:] = list(map(_as_json, values[first]))
    return pd.Series(read[row], column.index, dtype=object)


def _as_json(value: Any) -> Any:
    if _is_list(value):
        return _one_or_several(value)
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str | bool | int | float):
        return value
    return None if pd.isna(value) else str(value)


def _one_or_several(values: Any) -> Any:
    known = {_as_json(each) for each in values if not (pd.isna(each) or each == "")}
    distinct = sorted(known, key=str)
    if len(distinct) > 1:
        return tuple(distinct)
    return distinct[0] if distinct else None


def rows_of(tables: Any, total: str, bad: str, names: Iterable[str] | None = None) -> Rows:
    """The rows of one table of which anything was sent; see `rows_of_all`."""
    rows, (window,) = rows_of_all([tables], total, bad, names)
    sent = window[0] > 0
    if sent.all():
        return Rows(rows.columns, *window)
    columns = rows.columns[sent].reset_index(drop=True)
    return Rows(columns, *(counts[sent] for counts in window))


def rows_of_all(
    tables: Iterable[Any], total: str, bad: str, names: Iterable[str] | None = None
) -> tuple[Rows, list[tuple[Floats, Floats]]]:
    """The rows of several tables together, and the counts of each table.

    Args:
        tables: one row per flow or pair; each a DataFrame, or anything that pandas makes one from.
        total, bad: the columns with the counts.
        names: the columns that describe a row; None for all that the engine knows.

    Returns:
        The distinct rows with the sums of their counts, and for each table `total` and `bad` of
        each of those rows.

    Raises:
        ValueError: if a column is missing, or a count is negative or not finite.
    """
    frames = [each if isinstance(each, pd.DataFrame) else pd.DataFrame(each) for each in tables]
    filled = [each for each in frames if not each.empty]
    if not filled:
        nothing = pd.DataFrame(columns=[*(names or ())], dtype=object)
        return Rows(nothing, np.zeros(0), np.zeros(0)), [(np.zeros(0),) * 2 for _ in frames]
    known = [*names] if names is not None else [*_KNOWN, *_labels(filled)]
    wanted = [name for name in known if names is not None or any(name in each for each in filled)]
    for frame in filled:
        missing = [name for name in (total, bad, *(names or ())) if name not in frame]
        if missing:
            raise ValueError(f"the table has no column {', '.join(missing)}")
    columns = pd.concat([frame.reindex(columns=wanted) for frame in filled], ignore_index=True)
    columns = pd.DataFrame({name: _hashable(columns[name]) for name in wanted}, columns.index)
    first, row = _distinct(columns)
    counts, begin = [], 0
    for frame in frames:
        part = row[begin : begin + len(frame)]
        begin += len(frame)
        counts.append(
            (_counts(frame, total, part, len(first)), _counts(frame, bad, part, len(first)))
        )
    # What goes wrong is part of what was sent.
    counts = [(total_, np.minimum(bad_, total_)) for total_, bad_ in counts]
    sums = [np.sum([each[which] for each in counts], axis=0) for which in (0, 1)]
    return Rows(columns.iloc[first].reset_index(drop=True), *sums), counts


def _counts(frame: pd.DataFrame, name: str, row: Numbers, size: int) -> Floats:
    if frame.empty:
        return np.zeros(size)
    values = frame[name].to_numpy(np.float64, na_value=np.nan)
    if not (np.isfinite(values).all() and (values >= 0).all()):
        raise ValueError(f"{name} must have counts: finite, and not negative")
    sums: Floats = np.bincount(row, values, size).astype(np.float64)
    return sums


_KNOWN = [
    *(f"{end}_{name}" for name in ENDED for end in ("src", "dst")),
    *ENDED[2:], *FLAT,
]  # fmt: skip


def _labels(frames: Iterable[pd.DataFrame]) -> list[str]:
    """The columns with labels."""
    begin = tuple(f"{end}_{LABEL}" for end in ("src", "dst"))
    return sorted({name for each in frames for name in map(str, each) if name.startswith(begin)})


def _distinct(columns: pd.DataFrame) -> tuple[Numbers, Numbers]:
    """Where each distinct row is first, and for each row which of them it is."""
    code, size = np.zeros(len(columns), np.int64), 1
    for name in columns:
        codes, distinct = pd.factorize(columns[name])
        if size * (len(distinct) + 1) > _LARGEST_CODE:
            code, used = pd.factorize(code)
            size = len(used)
        code = code * (len(distinct) + 1) + codes + 1
        size *= len(distinct) + 1
    row, used = pd.factorize(code)
    first = np.empty(len(used), np.int64)
    first[row[::-1]] = np.arange(len(row))[::-1]
    return first, row
