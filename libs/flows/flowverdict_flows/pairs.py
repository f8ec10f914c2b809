"""Sums by pair, over rows of enriched batches.

`LabelledPairs`, `LabelledSenders` and `EndpointPairs` number the pairs, and `PairSums` keeps sums
by those numbers.
"""

from collections.abc import Iterable, Sequence
from typing import Generic, TypeVar

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.addresses import ENDS
from flowverdict_contracts.signals import END_LABELS, OVER_BUDGET, PAIR_LABELS
from flowverdict_flows.endpoint import Endpoint, Sighting, Sightings, distinct_ends
from flowverdict_flows.pair_index import (
    NO_PAIR,
    Folding,
    Mask,
    Numbers,
    PairIndex,
    PairRows,
)
from flowverdict_flows.ratios import Ratio

__all__ = [
    "NO_PAIR",
    "EndpointPairs",
    "LabelledPairs",
    "LabelledSenders",
    "Numbers",
    "PairRows",
    "PairSums",
    "ratios_of",
]

Floats = npt.NDArray[np.float64]

N = TypeVar("N", np.int64, np.float64)

_MOST_UNNAMED = 5000
"""Pairs with an end outside the cluster that are judged by themselves."""

_COUNTS_OF_CONNECTIONS = (
    "bytes_sent", "bytes_received", "opens", "failed_opens", "retransmitted_syns",
    "retransmitted_data_segments", "dns_lookups",
)  # fmt: skip

_NOBODY = ("",) * len(END_LABELS)
_LABELS_OF = {end: [f"{end}_{name}" for name in END_LABELS] for end in ENDS}
_ORDER = [[*_LABELS_OF["src"], *_LABELS_OF["dst"]].index(name) for name in PAIR_LABELS]


def _without_connection(batch: pa.RecordBatch) -> Mask:
    """Which rows count nothing of a connection, nor of an attempt to open one."""
    found: Mask = np.ones(batch.num_rows, np.bool_)
    for name in _COUNTS_OF_CONNECTIONS:
        found &= batch.column(name).to_numpy() == 0
    return found


class LabelledPairs(PairIndex[tuple[str, ...]]):
    """Pairs distinguished by `PAIR_LABELS`: addresses and names, as in Prometheus and InfluxDB.

    Rows without a connection, such as resets and requests that never completed, make no pair with
    an address that has no name: those of all such addresses are one.

    Args:
        room: how many pairs can have a number at a time; None for no limit.
        unnamed_room: how many of them can have an end without a name.
    """

    def __init__(self, room: int | None = None, unnamed_room: int | None = None) -> None:
        folding = Folding(
            is_unnamed=lambda end: end != _NOBODY and not any(end[1:]),
            others=(OVER_BUDGET, *[""] * (len(END_LABELS) - 1)),
            room=unnamed_room,
            at_once=_without_connection,
        )
        super().__init__(self._read, folding, room)

    def _read(self, batch: pa.RecordBatch, end: str) -> Iterable[tuple[str, ...] | None]:
        return distinct_ends(batch, _LABELS_OF[end])

    def labels(self, number: int) -> dict[str, str]:
        """The pair's labels, in the order of `PAIR_LABELS`."""
        src, dst = self.pair(number)
        both = (*src, *dst)
        return {name: both[position] for name, position in zip(PAIR_LABELS, _ORDER, strict=True)}


class LabelledSenders(LabelledPairs):
    """Senders distinguished by `SENDER_LABELS`, as pairs with nobody. Those without a name are one.

    Args:
        room: how many senders can have a number at a time.
    """

    def __init__(self, room: int) -> None:
        super().__init__(room, 0)

    def _read(self, batch: pa.RecordBatch, end: str) -> Iterable[tuple[str, ...] | None]:
        if end == "src":
            return super()._read(batch, end)
        return [_NOBODY] * len(batch.column("dst_ip").dictionary)


def _is_unnamed(end: Endpoint) -> bool:
    return end.kind in ("external", "unknown")


class EndpointPairs(PairIndex[Endpoint]):
    """Pairs of endpoints regardless of their addresses.

    Addresses that belong to nothing in the cluster share an endpoint once there are 5,000 pairs
    with one.

    Attributes:
        seen: every endpoint in the batch grouped last, once for each of its addresses.
    """

    def __init__(self) -> None:
        folding = Folding(
            is_unnamed=_is_unnamed,
            others=Endpoint("external", "", "other addresses"),
            room=_MOST_UNNAMED,
        )
        super().__init__(self._endpoints, folding)
        self.seen: set[Sighting] = set()
        self._sightings = Sightings()

    def group(self, batch: pa.RecordBatch) -> PairRows:
        """The rows of an enriched batch by pair."""
        self.seen = set()
        rows = super().group(batch)
        if any(_is_unnamed(each.endpoint) for each in self.seen):
            kept = set(self.ends(rows.numbers)[0])
            self.seen = {each for each in self.seen if each.endpoint in kept}
        return rows

    def _endpoints(self, batch: pa.RecordBatch, end: str) -> Iterable[Endpoint | None]:
        found = list(self._sightings.of(batch, end))
        self.seen.update(filter(None, found))
        return [None if each is None else each.endpoint for each in found]


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
