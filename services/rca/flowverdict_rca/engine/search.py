"""The smallest set of faults that makes the counts likely.

Greedy: the component that makes them likeliest comes next, as long as it is worth its price; then
faults are dropped, replaced, merged and split, until nothing of that is better. The price of a
component is the logarithm of how many of its kind there are, since the best of many looks good by
chance, plus a constant.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from flowverdict_rca.engine.components import Components
from flowverdict_rca.engine.poisson import Counts, Fit, fit, gains
from flowverdict_rca.engine.rows import Floats, Numbers

__all__ = ["ECHO", "Explanation", "explain", "price_of"]

ECHO = 0.4
"""The rate one way is only an echo if it is less than this share of the rate the other way."""

_FIRST = (("pod",), ("src_pod",), ("dst_pod",), ("src_pod", "dst_pod"), ("node",))
_TRIED_OF_EACH_KIND = 12
_SAMPLED_ROWS = 2000
_WORTH = 0.5
_WORTH_OF_AN_ECHO = 3.0
_PRICE_OF_THE_OTHER_WAY = float(np.log(2))
"""A path that fails one way is as likely as not to fail the other way, too."""
_ROUNDS = 4
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Explanation:
    """The faults that were found.

    Attributes:
        faults: components, in no particular order.
        fit: their rates, and the mean of each row.
        prices: what each of them had to be worth.
        value: log-likelihood of the counts over their dispersion, less prices.
    """

    faults: tuple[int, ...]
    fit: Fit
    prices: tuple[float, ...]
    value: float

    def rate_of(self, fault: int | None) -> float:
        """The rate of a component; 0 if it is none of the faults."""
        return float(self.fit.rates[self.faults.index(fault)]) if fault in self.faults else 0.0


@dataclass(frozen=True, slots=True)
class _Search:
    """Counts are over their dispersion: so many of them say as much as Poisson counts would."""

    counts: Counts
    components: Components
    price: Floats
    steadiness: float
    segments: Floats
    other_ways: dict[int, int | None]
    rates: dict[int, float]

    def explained_by(self, faults: Sequence[int]) -> Explanation:
        fitted = fit(self.counts, self.components, faults, self.steadiness, self.rates)
        self.rates.update(zip(faults, fitted.rates.tolist(), strict=True))
        prices = self._prices(faults, fitted.rates)
        value = fitted.log_likelihood - sum(prices)
        return Explanation(tuple(faults), fitted, prices, value)

    def _prices(self, faults: Sequence[int], rates: Floats) -> tuple[float, ...]:
        """Of a path that fails both ways, only the worse way has the full price."""
        rate = dict(zip(faults, rates.tolist(), strict=True))

        def is_the_better_way(fault: int) -> bool:
            other = self._other_way(fault)
            return other in rate and (rate[fault], fault) < (rate[other], other)

        return tuple(
            _PRICE_OF_THE_OTHER_WAY if is_the_better_way(fault) else float(self.price[fault])
            for fault in faults
        )

    def _other_way(self, fault: int) -> int | None:
        """A path's other direction; a pod's two ways are a component of their own."""
        if fault not in self.other_ways:
            is_path = len(self.components.names(fault)) > 1
            self.other_ways[fault] = self.components.opposite(fault) if is_path else None
        return self.other_ways[fault]

    def candidates(
        self, found: Explanation, among: Numbers | None = None
    ) -> tuple[Numbers, Floats]:
        """The components most worth adding, best first, and their worth; all, or those `among`."""
        # A row that sent nothing has a mean of nothing.
        total, bad, mean = self.counts.total, self.counts.bad, np.maximum(found.fit.mean, _TINY)
        if among is None:
            among = np.arange(len(self.components))
        # How steeply the log-likelihood rises with each rate at zero, and how much that varies.
        rises, varies = self.components.sums(
            np.stack([bad * total / mean, total**2 / mean], axis=1)
        )[among].T
        slope = rises - self.segments[among]
        score = np.where(slope > 0, slope / np.sqrt(np.maximum(varies, _TINY)), 0.0)
        chosen = [
            among[begin:end][_highest(score[begin:end])]
            for begin, end in pairwise(np.searchsorted(among, self.components.first).tolist())
        ]
        some = self._one_of_alike(np.concatenate([*chosen, among[:0]]))
        some = np.setdiff1d(some, found.faults)
        if not some.size:
            return some, np.zeros(0)
        gained, _ = gains(total, bad, mean, self.components, some)
        price = self.price[some].copy()
        other_ways = [self._other_way(each) for each in found.faults]
        price[np.isin(some, [each for each in other_ways if each is not None])] = (
            _PRICE_OF_THE_OTHER_WAY
        )
        worth = gained - price
        order = np.argsort(-worth, kind="stable")
        return some[order], worth[order]

    def best(self, found: Explanation) -> int | None:
        """The component most worth adding; None if none is."""
        some, worth = self.candidates(found)
        return int(some[0]) if some.size and worth[0] > 0 else None

    def _one_of_alike(self, some: Numbers) -> Numbers:
        """Of components with the very same rows, the one of the kind that comes first."""
        names = [_FIRST.index(k.names) if k.names in _FIRST else 9 for k in self.components.kinds]
        order = np.argsort(np.array(names, np.int64)[self.components.kind[some]], kind="stable")
        _, first = np.unique(self.components.alike[some[order]], return_index=True)
        return some[order][first]

    def variants(self, found: Explanation, last: int) -> Iterator[tuple[int, ...]]:
        """Other sets of faults that may be better now that `last` is one of them."""
        for fault in found.faults:
            yield tuple(each for each in found.faults if each != fault)
        rows = self.components.rows(last)[0]
        touching = [last] + [
            fault
            for fault in found.faults
            if fault != last and np.isin(self.components.rows(fault)[0], rows).any()
        ]
        for fault in touching:
            others = tuple(each for each in found.faults if each != fault)
            yield from self._instead(others, (fault,))
            yield from self._split(fault, others)
        yield from self._joined(found.faults)
        yield from self._both_ends(found.faults)
        for fault in found.faults:
            if fault != last:
                pair = (fault, last)
                yield from self._instead(
                    tuple(each for each in found.faults if each not in pair), pair
                )

    def _instead(
        self, others: tuple[int, ...], replaced: tuple[int, ...]
    ) -> Iterator[tuple[int, ...]]:
        """One component instead of those replaced, or a path both ways, among those that share rows
        with them.
        """
        rows = np.unique(np.concatenate([self.components.rows(each)[0] for each in replaced]))
        if len(rows) > _SAMPLED_ROWS:
            rows = rows[:: len(rows) // _SAMPLED_ROWS]
        some, worth = self.candidates(self.explained_by(others), self.components.among(rows))
        for instead in some[worth > 0][:2].tolist():
            if instead not in replaced:
                yield (*others, instead)
        for path in some.tolist():
            other_way = self._other_way(path)
            if other_way is not None:
                if not {path, other_way} & set(others):
                    yield (*others, path, other_way)
                break

    def ways(self, fault: int) -> tuple[int, ...]:
        """A pod's sending and its receiving as components; none if it is no pod, or lacks one."""
        if self.components.names(fault) != ("pod",):
            return ()
        pod = self.components.where(fault)["pod"]
        found = [self.components.find({end: pod}) for end in ("src_pod", "dst_pod")]
        both = tuple(each for each in found if each is not None)
        return both if len(both) == len(found) else ()

    def _joined(self, faults: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """A pod that fails each way as one fault; all that fail one way as pods that fail both.

        If it is not known which of several pods a row is about, one of them can take all of it.
        """
        one_way: dict[int, tuple[int, ...]] = {}
        for fault in faults:
            names = self.components.names(fault)
            if names not in (("src_pod",), ("dst_pod",)):
                continue
            both = self.components.find({"pod": self.components.where(fault)[names[0]]})
            if both is not None and (ways := self.ways(both)):
                one_way[both] = ways
        for both, ways in one_way.items():
            if set(ways) <= set(faults):
                yield (*(each for each in faults if each not in ways), both)
        if len(one_way) > 1:
            replaced = {way for ways in one_way.values() for way in ways}
            rest = [each for each in faults if each not in replaced and each not in one_way]
            yield (*rest, *one_way)

    def _both_ends(self, faults: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """The two ends of a path that fails both ways, also instead of what else covers them.

        Between two bad nodes of one zone, twice as much is lost as in the rest of the zone.
        """
        for path in faults:
            other = self._other_way(path)
            if other is None or other not in faults or other < path:
                continue
            ends = [
                self.components.find({name.removeprefix("src_").removeprefix("dst_"): value})
                for name, value in self.components.where(path).items()
            ]
            rest = [each for each in faults if each not in (path, other, *ends)]
            known = [each for each in ends if each is not None]
            if len(known) == len(ends):
                for whole in (None, *rest):
                    yield (*(each for each in rest if each != whole), *known)

    def _split(self, fault: int, others: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        """A pod that fails both ways as two faults, one each way: their rates may differ."""
        ways = self.ways(fault)
        if ways and not set(ways) & set(others):
            yield (*others, *ways)


def _highest(score: Floats) -> Numbers:
    """Where the highest scores above zero are, the highest first."""
    where = np.arange(len(score))
    if len(score) > _TRIED_OF_EACH_KIND:
        least = np.partition(score, -_TRIED_OF_EACH_KIND)[-_TRIED_OF_EACH_KIND]
        where = np.flatnonzero(score >= least)
    where = where[score[where] > 0]
    return where[np.argsort(-score[where], kind="stable")][:_TRIED_OF_EACH_KIND]


def price_of(components: Components, constant: float) -> Floats:
    """What each component must be worth, in log-likelihood."""
    return np.log(np.maximum(components.of_kind, 2)) + constant


def explain(
    counts: Counts,
    components: Components,
    dispersion: float | Floats,
    constant: float,
    steadiness: float = 1.0,
    most: int = 10,
) -> Explanation:
    """The faults behind the bad counts; none if nothing is worth its price.

    Args:
        counts: of all rows.
        components: what could be at fault.
        dispersion: variance of bad counts over their mean, of all rows or of each.
        constant: part of the price of each component.
        steadiness: how many bad counts it takes to outweigh that the common factor usually is 1.
        most: stop at so many faults.
    """
    counts = Counts(
        counts.total / dispersion, counts.bad / dispersion, counts.expected / dispersion
    )
    segments = components.sums(counts.total) if len(components) else np.zeros(0)
    price = price_of(components, constant)
    search = _Search(counts, components, price, steadiness, segments, {}, {})
    found = search.explained_by(())
    # A fault in most rows looks like a common factor until it is tried without one.
    starts = [found, replace(found, fit=replace(found.fit, mean=counts.expected))]
    while len(found.faults) < most:
        tried = [each for each in map(search.best, starts) if each is not None]
        better = [
            _improved(search, search.explained_by((*found.faults, new)), new)
            for new in dict.fromkeys(tried)
        ]
        best = max(better, key=lambda each: each.value, default=found)
        if best.value <= found.value:
            break
        found, starts = best, [best]
    found = _by_direction(search, found)
    return replace(found, fit=replace(found.fit, mean=found.fit.mean * dispersion))


def _by_direction(search: _Search, found: Explanation) -> Explanation:
    """Pods of which one way is much worse than the other, as one fault each way.

    What is lost one way delays acknowledgements the other way, and some of these then look lost,
    too. So a pod that fails one way is expected to fail the other way a little: that needs not be
    worth another price.
    """
    for fault in found.faults:
        ways = search.ways(fault)
        if not ways:
            continue
        others = [each for each in found.faults if each not in (fault, *ways)]
        split = search.explained_by((*others, *ways))
        weaker, stronger = sorted(split.fit.rates[-2:])
        gained = split.fit.log_likelihood - found.fit.log_likelihood
        is_split = any(way in found.faults for way in ways)
        if weaker < ECHO * stronger and (is_split or gained > _WORTH_OF_AN_ECHO):
            found = split
    return found


def _improved(search: _Search, found: Explanation, last: int) -> Explanation:
    for _ in range(_ROUNDS):
        if last not in found.faults:
            last = found.faults[-1] if found.faults else -1
        if last < 0:
            break
        tried = [search.explained_by(each) for each in search.variants(found, last)]
        best = max(tried, key=lambda each: each.value)
        # Fewer faults need not be better, only as good.
        if best.value <= found.value + (_WORTH if len(best.faults) >= len(found.faults) else 0):
            break
        found = best
    return found
