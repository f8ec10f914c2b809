"""What is normal for each pair, learnt from long windows."""

from collections.abc import Mapping
from dataclasses import dataclass
from itertools import repeat

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowverdict_flows.pairs import Numbers
from flowverdict_rca.measured import Measured
from flowverdict_rca.window import Window

__all__ = ["LEAST_WINDOWS", "Usual"]

LEAST_WINDOWS = 4
"""So many windows of a pair show what is normal for it."""

_READINGS = ("values", "variations")
_COLUMNS = (*_READINGS, "typical", "windows", "age")
_TYPICAL, _WINDOWS, _AGE = map(_COLUMNS.index, ("typical", "windows", "age"))
_WARM_UP_WINDOWS = 2
_FADING = 0.97
_FORGOTTEN_AFTER = 240
_LONG_RUN_WINDOWS = 240
"""Two hours: over so many windows a typical value is averaged."""
_SETTLED_WINDOWS = 8
_RISES_BY = 0.005
"""From one window to the next, a typical value rises by no more: it takes an hour to double."""
_MOST_PAIRS = 200_000

Mask = npt.NDArray[np.bool_]
Floats = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Pairs:
    """What is known of pairs. Replaced as a whole, since it is read while a window is judged.

    Attributes:
        row_of: where each pair is in the table, in the order of its rows.
        table: with `_COLUMNS`.
    """

    row_of: dict[str, int]
    table: Floats

    def at(self, pairs: npt.NDArray[np.object_]) -> Numbers:
        """Where some pairs are in the table; -1 for those that are not known."""
        return np.fromiter(map(self.row_of.get, pairs.tolist(), repeat(-1)), np.int64, len(pairs))

    def rows(self, at: Numbers) -> Floats:
        """The rows there; NaN for what is not known."""
        found = np.full((len(at), len(_COLUMNS)), np.nan)
        found[at >= 0] = self.table[at[at >= 0]]
        return found

    def bounded(self) -> "_Pairs":
        """Without those that have not been seen for long, and at most so many."""
        is_kept = self.table[:, _AGE] <= _FORGOTTEN_AFTER
        if is_kept.all() and len(is_kept) <= _MOST_PAIRS:
            return self
        kept = np.flatnonzero(is_kept)
        kept = kept[np.argsort(self.table[kept, _AGE], kind="stable")][:_MOST_PAIRS]
        names = list(self.row_of)
        row_of = {names[row]: at for at, row in enumerate(kept.tolist())}
        return _Pairs(row_of, self.table[kept])


class Usual:
    """Remembers what is normal for each pair, and for those between the same workloads on the same
    nodes.
    """

    def __init__(self) -> None:
        self.expect({})

    def expect(self, normal: Mapping[str, tuple[int, int]]) -> None:
        """Take these values and how they vary as normal, by pair."""
        rows = [(*readings, readings[0], LEAST_WINDOWS, 0) for readings in normal.values()]
        self._pairs = _Pairs(
            {pair: row for row, pair in enumerate(normal)},
            np.array(rows, np.float64).reshape(-1, len(_COLUMNS)),
        )

    def expected(self) -> dict[str, tuple[int, int]]:
        """The values that are normal and how they vary, by pair, those seen last first."""
        now = self._pairs
        names, table = list(now.row_of), now.table
        known = np.flatnonzero(table[:, _WINDOWS] >= LEAST_WINDOWS)
        known = known[np.argsort(table[known, _AGE], kind="stable")]
        readings = table[known, : len(_READINGS)].astype(np.int64).tolist()
        return {
            names[row]: (value, variation)
            for row, (value, variation) in zip(known.tolist(), readings, strict=True)
        }

    def of(self, window: Window) -> pd.DataFrame:
        """What is normal for each pair of a window. One that is new is like those before it between
        the same workloads on the same nodes, but for its first windows, in which pods warm up.

        Returns:
            A row for each pair: `values`, the highest of a window, and `variations`, the largest,
            both of which fade; `typical`, what a value is in the long run; `windows`, how many had
            one; `age`, how many windows ago the last one was. NaN for pairs that are not known.
        """
        pairs = window.names_of_pairs, window.places_of_pairs
        own, of_places = (self._pairs.rows(self._pairs.at(each)) for each in pairs)
        windows = own[:, _WINDOWS]
        is_new = (windows >= _WARM_UP_WINDOWS) & (windows < LEAST_WINDOWS)
        is_new &= of_places[:, _WINDOWS] >= LEAST_WINDOWS
        own[is_new] = of_places[is_new]
        return pd.DataFrame(own, columns=list(_COLUMNS))

    def remember(self, window: Window, now: Measured, chosen: Mask, accepted: Mask) -> None:
        """Remember what was measured of the pairs that are `chosen`. What is `accepted` although it
        is above normal is typical from now on.
        """
        names, places = window.names_of_pairs[chosen], window.places_of_pairs[chosen]
        # A pod that is new tells nothing about those before it in its place.
        at_names, at_places = map(self._pairs.at, (names, places))
        is_known, has_known_place = (
            self._pairs.rows(each)[:, _WINDOWS] >= LEAST_WINDOWS for each in (at_names, at_places)
        )
        tells = (places != "") & (is_known | ~has_known_place)

        pairs = [*names.tolist(), *places[tells].tolist()]
        rows = np.concatenate([at_names, at_places[tells]])
        row_of = dict(self._pairs.row_of)
        for new_pair in np.flatnonzero(rows < 0).tolist():
            rows[new_pair] = row_of.setdefault(pairs[new_pair], len(row_of))
        new = np.zeros((len(row_of) - len(self._pairs.table), len(_COLUMNS)))
        table = np.concatenate([self._pairs.table, new])
        table[:, _AGE] += 1
        measured = np.concatenate([np.flatnonzero(chosen), np.flatnonzero(chosen)[tells]])
        for column, name in enumerate(_READINGS):
            table[rows, column] *= _FADING
            np.fmax.at(table[:, column], rows, getattr(now, name)[measured])
        _add_to_typical(table, rows, now.values[measured], accepted[measured])
        table[rows, _WINDOWS] += 1  # once, however often a row is there
        table[rows, _AGE] = 0
        self._pairs = _Pairs(row_of, table).bounded()


def _add_to_typical(table: Floats, rows: Numbers, values: Numbers, anew: Mask) -> None:
    """Average what is typical over the long run. It falls sooner than it rises, so that what creeps
    up does not become typical on its way.
    """
    typical, windows = table[rows, _TYPICAL], table[rows, _WINDOWS]
    step = (values - typical) / np.minimum(windows + 1, _LONG_RUN_WINDOWS)
    is_settled = windows >= _SETTLED_WINDOWS
    step[is_settled] = np.minimum(step, _RISES_BY * typical)[is_settled]
    table[rows, _TYPICAL] = np.where(anew, values, typical + step)
