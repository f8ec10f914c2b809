"""`learn`: what is normal, from windows of the past.

Normal is not the same for everyone: a pod behind a poor link always loses more than others. So what
the past shows is explained like a fault is, by components with a rate each; these are expected from
then on, and so is what single pairs lose beyond that, as far as it is more than chance.
"""

import heapq
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pandas as pd

from flowverdict_rca.engine.components import Components, components_of
from flowverdict_rca.engine.poisson import Counts
from flowverdict_rca.engine.rows import FLAT, Floats, Numbers, Rows, distinct_names, rows_of_all
from flowverdict_rca.engine.search import Explanation, explain
from flowverdict_rca.engine.shrinkage import posterior_means

__all__ = ["STEADINESS", "Baseline", "dispersion_of", "learn"]

_PRICE_OF_HABIT = 2.0
_PRICE_OF_FAULT = 7.0
STEADINESS = 8.0
"""Bad counts that it takes to outweigh that nothing has changed everywhere."""

_MOST_PAIRS = 200_000
_MOST_WINDOWS = 100
_ENDS = ("src_pod", "dst_pod")


def dispersion_of(bad: Floats, mean: Floats) -> float:
    """Variance of bad counts over their mean: above 1 if losses come in bursts.

    Pearson's statistic over its degrees of freedom; 1 if there are too few rows to tell.
    """
    if len(mean) < 20:
        return 1.0
    return max(1.0, float(((bad - mean) ** 2 / np.maximum(mean, 1e-9)).sum() / len(mean)))


class Habit(msgspec.Struct, frozen=True):
    """What a component loses at all times.

    Attributes:
        where: the rows, as column to value.
        rate: bad counts per total.
    """

    where: dict[str, str | int | float | bool]
    rate: float


class Baseline(msgspec.Struct, frozen=True):
    """What is normal; from `learn`.

    Attributes:
        rate: bad counts per total where nothing is special.
        habits: components that lose more than that.
        pairs: how much more or less single pairs lose than this explains, as a factor, by the two
            pods' names; 1 for all others.
        places: workload and node of each pod, by which one is recognised under another name.
        dispersion: variance of bad counts over their mean.
        windows: how many it was learnt from.
    """

    rate: float
    habits: tuple[Habit, ...] = ()
    pairs: dict[str, float] = {}
    places: dict[str, tuple[str, str]] = {}
    dispersion: float = 1.0
    windows: int = 0

    def encode(self) -> bytes:
        """To be kept over a restart, as JSON."""
        return msgspec.json.encode(self)

    @classmethod
    def decode(cls, text: bytes) -> "Baseline":
        """What `encode` returned.

        Raises:
            ValueError: if it did not.
        """
        try:
            return msgspec.json.decode(text, type=cls)
        except msgspec.MsgspecError as error:
            raise ValueError(f"not a baseline: {error}") from None

    def smaller(self) -> "Baseline":
        """With half of the single pairs, those that differ most from the rest; without any, none of
        the places either.
        """
        half = len(self.pairs) // 2
        kept = heapq.nlargest(half, self.pairs.items(), lambda each: abs(math.log(each[1])))
        places = self.places if kept else {}
        return msgspec.structs.replace(self, pairs=dict(kept), places=places)

    def expected(
        self, rows: Rows, components: Components, dimensions: Sequence[str] | None = None
    ) -> Floats:
        """The bad counts of each row, if all is normal; `components` are those of the rows.

        What has always lost more may have been mended: if the counts say so, it is expected to lose
        as little as the others.
        """
        if not self.habits and not self.pairs:
            return self.rate * rows.total
        columns, has_pods = rows.columns, all(end in rows.columns for end in _ENDS)
        if self.places and has_pods:
            columns = _as_they_were_known(columns, _recognised(rows, self))
        if columns is not rows.columns:
            components = components_of(Rows(columns, rows.total, rows.bad), dimensions)
        found = ((components.find(each.where), each.rate) for each in self.habits)
        habits = [(components.rows(at), rate) for at, rate in found if at is not None]
        factors = np.ones(len(rows.total))
        if self.pairs and has_pods:
            factors *= [self.pairs.get(pair, 1.0) for pair in _pairs(columns)]
        return self._not_mended(rows, habits, factors)

    def _not_mended(
        self, rows: Rows, habits: Sequence[tuple[tuple[Numbers, Floats], float]], factors: Floats
    ) -> Floats:
        """The bad counts of each row, without what the counts say is over."""
        rates = np.full(len(rows.total), self.rate)
        for (row, share), rate in habits:
            rates[row] += rate * share
        special = (rates > self.rate) | (factors > 1)
        usual = (rates * factors * rows.total)[~special].sum()
        # If less is lost everywhere, that is not what was mended.
        change = min(1.0, (rows.bad[~special].sum() + STEADINESS) / (usual + STEADINESS))

        def is_over(less: Floats, more: Floats, bad: Floats) -> npt.NDArray[np.bool_]:
            """Whether fewer counts are so much likelier than more, for each group of rows.

            A row with far more than either tells nothing: something else has happened to it.
            """
            gain = bad * np.log(less / more) + change * (more - less)
            gain[bad > more + 4 * np.sqrt(more * self.dispersion)] = 0
            found: npt.NDArray[np.bool_] = gain.sum(axis=-1) > _PRICE_OF_FAULT * self.dispersion
            return found

        for (row, share), rate in sorted(habits, key=lambda each: -each[1]):
            without = np.maximum(rates[row] - rate * share, self.rate / 10)
            sent = factors[row] * rows.total[row]
            if is_over(without * sent, rates[row] * sent, rows.bad[row]):
                rates[row] = without
        counts = rates * rows.total
        over = is_over(
            counts[:, None], (counts * np.maximum(factors, 1))[:, None], rows.bad[:, None]
        )
        return counts * np.where(over, 1.0, factors)


def _pairs(columns: pd.DataFrame) -> Iterator[str]:
    """The two pods' names of each row."""
    ends = (columns[end].tolist() for end in _ENDS)
    return (f"{src} {dst}" for src, dst in zip(*ends, strict=True))


def _as_they_were_known(columns: pd.DataFrame, known: Mapping[Any, str]) -> pd.DataFrame:
    """The columns with pods under the names by which they were known."""
    if not known:
        return columns
    columns = columns.copy()
    for end in _ENDS:
        code, pods = pd.factorize(columns[end])
        names = np.array([*(known.get(pod, pod) for pod in pods), None], object)
        columns[end] = names[code]  # without a name at -1
    return columns


def _recognised(rows: Rows, baseline: Baseline) -> dict[Any, str]:
    """The name under which each new pod was known.

    Pods of one workload on one node replace each other. If several have, those that lose most now
    are taken for those that lost most before.
    """
    places = _places(rows.columns)
    gone: dict[tuple[str, str], list[str]] = {}
    for pod, place in baseline.places.items():
        if pod not in places:
            gone.setdefault(place, []).append(pod)
    new: dict[tuple[str, str], list[str]] = {}
    for pod, place in places.items():
        if pod not in baseline.places:
            new.setdefault(place, []).append(pod)
    usual = {
        habit.where[name]: habit.rate
        for habit in baseline.habits
        for name in ("pod", *_ENDS)
        if tuple(habit.where) == (name,)
    }
    now = _rates(rows) if new and gone else {}
    known: dict[Any, str] = {}
    for place, pods in new.items():
        before = sorted(gone.get(place, ()), key=lambda pod: -usual.get(pod, 0.0))
        pods.sort(key=lambda pod: -now.get(pod, 0.0))
        known |= dict(zip(pods, before, strict=False))
    return known


def _rates(rows: Rows) -> dict[Any, float]:
    """What each pod loses, of all that it sends and receives."""
    counts = pd.DataFrame({"bad": rows.bad, "total": rows.total})
    ends = [counts.set_index(rows.columns[end].astype(object)) for end in _ENDS]
    sums = pd.concat(ends).groupby(level=0).sum()
    return dict((sums["bad"] / sums["total"].clip(lower=1)).items())


def _places(columns: pd.DataFrame) -> dict[Any, tuple[str, str]]:
    """Workload and node of each pod, as far as the columns say."""
    found: dict[Any, tuple[str, str]] = {}
    for end in ("src", "dst"):
        if f"{end}_pod" not in columns:
            return {}
        names = [f"{end}_{each}" for each in ("pod", "workload", "node")]
        of_end = columns.reindex(columns=names, fill_value="").drop_duplicates()
        for pod, workload, node in of_end.itertuples(index=False, name=None):
            if isinstance(pod, str) and isinstance(workload, str) and workload:
                found[pod] = (workload, node if isinstance(node, str) else "")
    return found


def learn(
    windows: Iterable[Any],
    *,
    dimensions: Sequence[str] | None = None,
    total: str = "segments",
    bad: str = "retransmits",
) -> Baseline:
    """What is normal.

    What stands out in one window against the others is a fault of that time, and is left out.

    Args:
        windows: tables like those of `localise`, of times without an open incident; the last 100
            count, but for those in which nothing was sent. A single table is one window.
        dimensions: as of `localise`, which must be asked with the same.
        total, bad: columns with the counts.

    Raises:
        ValueError: if a column is missing, if none describes a flow, or if a count is negative or
            not finite.
    """
    several = [windows] if isinstance(windows, pd.DataFrame) else [*windows]
    names = distinct_names(dimensions)
    everything, tables = rows_of_all(several[-_MOST_WINDOWS:], total, bad, names)
    tables = [each for each in tables if each[0].any()]
    if not tables:
        return Baseline(rate=0.0)
    if names is None and not set(everything.columns) - set(FLAT):
        raise ValueError("no table has a column about a flow's ends; name the dimensions")
    components = components_of(everything, names)
    if len(tables) > 2:
        normal = _normal(
            _without_what_stands_out(everything, components, tables), components, tables
        )
        clean = [
            _without_faults(Rows(everything.columns, *each), components, normal) for each in tables
        ]
        if any(each[0].any() for each in clean):
            tables = clean
        sums = [np.sum([each[which] for each in tables], axis=0) for which in (0, 1)]
        everything = Rows(everything.columns, *sums)
    normal = _normal(everything, components, tables)
    habits = tuple(
        Habit(components.where(fault), float(rate))
        for fault, rate in zip(normal.found.faults, normal.found.fit.rates, strict=True)
    )
    return Baseline(
        rate=float(max(normal.rate * normal.found.fit.factor, 1 / max(everything.total.sum(), 1))),
        habits=habits,
        pairs=_named_factors(everything, normal),
        places=_places(everything.columns),
        dispersion=normal.dispersion,
        windows=len(tables),
    )


def _without_what_stands_out(
    everything: Rows, components: Components, tables: Sequence[tuple[Floats, Floats]]
) -> Rows:
    """The sums without the windows in which something that covers a row was far worse than in most
    others: there may have been a fault in those.

    To leave out the worst windows of each row, whatever they are, would make those that send little
    look better than they are.
    """
    totals, bads = (np.stack([each[which] for each in tables], axis=1) for which in (0, 1))
    dispersion = _dispersion_between(totals, bads)
    left_out = np.zeros(totals.shape, np.bool_)
    kinds = [each for each in pairwise(components.first.tolist()) if each[0] < each[1]]
    for first, end in kinds:
        cover = components.cover[first:end]
        price = (_PRICE_OF_FAULT + math.log(max(2, end - first))) * dispersion
        left_out |= cover.T @ _standing_out(cover @ totals, cover @ bads, price) > 0
    left_out[left_out.all(axis=1)] = False
    total, bad = (np.where(left_out, 0, each).sum(axis=1) for each in (totals, bads))
    return Rows(everything.columns, total, bad)


def _standing_out(totals: Floats, bads: Floats, price: float) -> Floats:
    """1 for each window (columns) of a component (rows) that is among its worst third, and far
    worse than the rest even if all components of the kind were worse then; 0 for the others.
    """
    ordered = np.argsort(bads / np.maximum(totals, 1), axis=1, kind="stable")
    most, worst = np.split(ordered, [-(-2 * ordered.shape[1] // 3)], axis=1)
    total, bad = (np.take_along_axis(each, most, axis=1).sum(axis=1) for each in (totals, bads))
    expected = ((bad + 1) / np.maximum(total, 1))[:, None] * totals
    expected *= np.maximum(1, np.median((bads + 1) / (expected + 1), axis=0))
    expected = np.maximum(expected, 1e-9)
    gain = bads * np.log(np.maximum(bads / expected, 1)) - (bads - expected)
    stands = np.zeros(bads.shape)
    np.put_along_axis(stands, worst, 1.0, axis=1)
    stands[(bads <= expected) | (gain <= price)] = 0
    return stands


def _dispersion_between(totals: Floats, bads: Floats) -> float:
    """How much the bad counts of a row (rows) vary between windows (columns), over what chance
    does: in the median window.
    """
    lost = bads.any(axis=1)
    totals, bads = totals[lost], bads[lost]
    rates = (bads.sum(axis=1) / totals.sum(axis=1))[:, None]
    of_each = [dispersion_of(*each) for each in zip(bads.T, (rates * totals).T, strict=True)]
    return float(np.median(of_each))


@dataclass(frozen=True, slots=True)
class _Normal:
    """What all windows together show.

    Attributes:
        rate: of all rows together.
        found: components that lose more.
        factors: by how much each row differs from that.
        rates: what each row is expected to lose.
        dispersion: variance of bad counts over their mean.
    """

    rate: float
    found: Explanation
    factors: Floats
    rates: Floats
    dispersion: float


def _normal(
    everything: Rows, components: Components, tables: Sequence[tuple[Floats, Floats]]
) -> _Normal:
    # However little was lost so far: it may have been one segment.
    rate = float((everything.bad.sum() + 1) / max(everything.total.sum(), 1))
    expected = rate * everything.total
    total = np.maximum(everything.total, 1)
    counts = Counts(everything.total, everything.bad, expected)
    found = explain(counts, components, 1.0, _PRICE_OF_HABIT)
    dispersion = _dispersion(tables, found.fit.mean / total)
    if dispersion > 1:
        found = explain(counts, components, dispersion, _PRICE_OF_HABIT)
    mean = np.maximum(found.fit.mean, 1e-9)
    factors = posterior_means(everything.bad / dispersion, mean / dispersion)
    return _Normal(rate, found, factors, mean / total * factors, dispersion)


def _dispersion(tables: Sequence[tuple[Floats, Floats]], rates: Floats) -> float:
    """That of the median window: one with a fault in it does not count for more."""
    found = []
    for total, bad in tables:
        seen = total > 0
        expected = rates[seen] * total[seen]
        factor = max(bad.sum(), 1) / max(expected.sum(), 1e-9)
        found.append(dispersion_of(bad[seen], factor * expected))
    return float(np.median(found))


def _without_faults(window: Rows, components: Components, normal: _Normal) -> tuple[Floats, Floats]:
    """The counts of a window but for the rows that a fault of that time covers."""
    counts = Counts(window.total, window.bad, normal.rates * window.total)
    found = explain(counts, components, normal.dispersion, _PRICE_OF_FAULT)
    kept = np.ones(len(window.total))
    for fault in found.faults:
        kept[components.rows(fault)[0]] = 0
    return window.total * kept, window.bad * kept


def _named_factors(everything: Rows, normal: _Normal) -> dict[str, float]:
    """The factor of each pair by name; only those that differ from 1.

    A pair whose rows differ in something else, such as a port, has their mean.
    """
    columns = everything.columns
    if not all(end in columns for end in _ENDS):
        return {}
    mean = np.maximum(normal.rates * everything.total / normal.factors, 1e-12)
    frame = pd.DataFrame(
        {
            "pair": list(_pairs(columns)),
            "mean": mean,
            "bad": mean * normal.factors,
            "total": everything.total,
        }
    )
    sums = frame.groupby("pair").sum()
    factors = sums["bad"] / sums["mean"]
    differs = sums.index[np.abs(np.log(factors.to_numpy())) > 0.05]
    largest = sums.loc[differs, "total"].nlargest(_MOST_PAIRS).index
    return {str(pair): float(factors[pair]) for pair in largest}
