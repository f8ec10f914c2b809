"""What is normal for each pair, learnt from long windows."""

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowverdict_rca.measured import Measured
from flowverdict_rca.window import Window

__all__ = ["LEAST_WINDOWS", "Usual"]

LEAST_WINDOWS = 4
"""So many windows of a pair show what is normal for it."""

_READINGS = ("values", "variations")
_WARM_UP_WINDOWS = 2
_FADING = 0.97
_FORGOTTEN_AFTER = 240
_MOST_PAIRS = 200_000

Mask = npt.NDArray[np.bool_]


class Usual:
    """Remembers what is normal for each pair, and for those between the same workloads on the same
    nodes.
    """

    def __init__(self) -> None:
        self.expect({})

    def expect(self, normal: Mapping[str, tuple[int, int]]) -> None:
        """Take these values and how they vary as normal, by pair."""
        self._table = pd.DataFrame.from_dict(
            dict(normal), orient="index", columns=list(_READINGS), dtype=np.float64
        ).assign(windows=float(LEAST_WINDOWS), age=0.0)

    def expected(self) -> dict[str, tuple[int, int]]:
        """The values that are normal and how they vary, by pair, those seen last first."""
        known = self._table[self._table["windows"] >= LEAST_WINDOWS].sort_values("age")
        readings = known[list(_READINGS)].astype(int).itertuples(name=None)
        return {str(pair): (value, variation) for pair, value, variation in readings}

    def of(self, window: Window) -> pd.DataFrame:
        """What is normal for each pair of a window. One that is new is like those before it between
        the same workloads on the same nodes, but for its first windows, in which pods warm up.

        Returns:
            A row for each pair: `values`, the highest of a window, and `variations`, the largest,
            both of which fade; `windows`, how many had one; `age`, how many windows ago the last
            one was. NaN for pairs that are not known.
        """
        own = self._table.reindex(window.names_of_pairs)
        of_places = self._table.reindex(window.places_of_pairs)
        windows = own["windows"].to_numpy()
        is_new = (windows >= _WARM_UP_WINDOWS) & (windows < LEAST_WINDOWS)
        is_new &= (of_places["windows"] >= LEAST_WINDOWS).to_numpy()
        own[is_new] = of_places[is_new].to_numpy()
        return own

    def remember(self, window: Window, now: Measured, chosen: Mask) -> None:
        """Remember what was measured of the pairs that are `chosen`."""
        readings = {name: getattr(now, name)[chosen] for name in _READINGS}
        names, places = window.names_of_pairs[chosen], window.places_of_pairs[chosen]
        # A pod that is new tells nothing about those before it in its place.
        is_known, has_known_place = (
            (self._table["windows"].reindex(each) >= LEAST_WINDOWS).to_numpy()
            for each in (names, places)
        )
        places = np.where(has_known_place & ~is_known, "", places)
        both = [pd.DataFrame(readings, each, dtype=np.float64) for each in (names, places)]
        seen = pd.concat(both).groupby(level=0).max()
        seen = seen[seen.index != ""]
        table = self._table.reindex(self._table.index.union(seen.index))
        table["age"] = table["age"].fillna(0) + 1
        before = table.loc[seen.index]
        for name in _READINGS:
            table.loc[seen.index, name] = np.fmax(seen[name], _FADING * before[name])
        table.loc[seen.index, "windows"] = before["windows"].fillna(0) + 1
        table.loc[seen.index, "age"] = 0
        kept = table[table["age"] <= _FORGOTTEN_AFTER]
        self._table = kept.nsmallest(_MOST_PAIRS, "age")
