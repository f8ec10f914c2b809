"""Sums of metrics by pair, or by sender.

Each metric has a budget of series. Pairs are numbered as they appear, smallest free number first,
and those beyond a metric's budget are summed into one pair with `other` in every label.
"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts.signals import END_LABELS, OVER_BUDGET
from flowverdict_exporter.family import Family, label_text
from flowverdict_flows.pairs import NO_PAIR, LabelledPairs, Numbers, PairSums

__all__ = ["KeptSums", "Shown", "Sums"]

_EXPIRY_CHECK_SECONDS = 10.0
"""How often expired pairs are dropped, which means checking all of them."""

_Floats = npt.NDArray[np.float64]
Shown = tuple[Family, list[str], _Floats]
"""A metric, the labels of each of its pairs, and their sums."""


@dataclass(slots=True)
class _FamilySums:
    """A metric's sums by pair number, up to its own budget of pairs."""

    family: Family
    pairs: int
    sums: PairSums[np.float64]
    overflows: int = 0

    def add(self, numbers: Numbers, added: _Floats) -> None:
        inside = (numbers != NO_PAIR) & (numbers <= self.pairs)
        self.sums.add(numbers[inside], added[inside])
        beyond = ~inside & added.any(axis=1) if self.family.sparse else ~inside
        if beyond.any():
            self.sums.values[NO_PAIR] += added[beyond].sum(axis=0)
            self.overflows += int(np.count_nonzero(beyond))


@dataclass(frozen=True, slots=True)
class KeptSums:
    """The sums of all pairs, to go on from.

    Attributes:
        metrics: their names.
        ends: the values of `labels` at distinct ends.
        sources: for each pair, which of them sends, as int64.
        targets: and which receives.
        ages: seconds since the pair had a flow, as float64.
        sums: for each metric, its sums as float64: of what is beyond the budget, then of each pair.
        overflows: for each metric, how many pairs were beyond its budget.
        labels: the names; by default those that were kept before they were named here.
        by_sender: the same by sender, whose `targets` are an end without labels; None from a
            version that had none.
    """

    metrics: list[str]
    ends: list[tuple[str, ...]]
    sources: bytes
    targets: bytes
    ages: bytes
    sums: list[bytes]
    overflows: list[int]
    labels: tuple[str, ...] = ("ip", "namespace", "pod", "workload", "node", "zone")
    by_sender: "KeptSums | None" = None


class Sums:
    """The sums of some metrics. Not for several threads at a time.

    Args:
        families: the metrics.
        budget: series of each; pairs beyond it are summed as `other`.
        expire_seconds: a pair without a flow for this long is dropped.
        make_pairs: what numbers the pairs, given how many have room in some metric, and how many
            in all that are not sparse.
        labels: of a pair.
    """

    def __init__(
        self,
        families: Sequence[Family],
        budget: int,
        expire_seconds: float,
        make_pairs: Callable[[int, int], LabelledPairs],
        labels: Sequence[str],
    ) -> None:
        self._expire = expire_seconds
        self._families = [
            _FamilySums(
                family, max(1, budget // family.series), PairSums(family.columns, np.float64)
            )
            for family in families
        ]
        room = max(each.pairs for each in self._families)
        self._pairs = make_pairs(
            room, min(each.pairs for each in self._families if not each.family.sparse)
        )
        self._touched = np.zeros(room + 1)
        self._labels = {NO_PAIR: label_text(dict.fromkeys(labels, OVER_BUDGET))}
        self._next_expiry_check = 0.0

    def __len__(self) -> int:
        return len(self._pairs)

    @property
    def overflows(self) -> list[tuple[str, int]]:
        """For each metric, how many pairs were beyond its budget, each time they had a flow."""
        return [(each.family.name, each.overflows) for each in self._families]

    def add(self, batch: pa.RecordBatch) -> None:
        """Add the rows of an enriched batch."""
        now = time.monotonic()
        self._drop_expired(now)
        rows = self._pairs.group(batch)
        self._touched[rows.numbers] = now
        for each in self._families:
            each.add(rows.numbers, each.family.sums(rows))

    def kept(self) -> KeptSums:
        """All sums, to go on from."""
        numbers = self._pairs.numbers()
        ends, sources, targets = self._pairs.ends(numbers)
        columns = []
        for each in self._families:
            each.sums.reach(int(numbers.max(initial=0)))
            columns.append(each.sums.values[[NO_PAIR, *numbers.tolist()]])
        return KeptSums(
            metrics=[each.family.name for each in self._families],
            ends=ends,
            sources=sources.tobytes(),
            targets=targets.tobytes(),
            ages=(time.monotonic() - self._touched[numbers]).tobytes(),
            sums=[each.tobytes() for each in columns],
            overflows=[each.overflows for each in self._families],
            labels=END_LABELS,
        )

    def checked(self, kept: KeptSums) -> Callable[[], None]:
        """What goes on from there. A metric that the version which kept it did not have begins at
        zero, a label that it did not have is empty.

        Raises:
            ValueError: if another version kept it, whose labels or columns were others.
        """
        ages = np.frombuffer(kept.ages)
        found = dict(zip(kept.metrics, zip(kept.sums, kept.overflows, strict=True), strict=True))
        restored = []
        for each in self._families:
            packed, overflows = found.get(each.family.name, (b"", 0))
            if packed and len(packed) != 8 * each.family.columns * (len(ages) + 1):
                raise ValueError(f"the sums of {each.family.name} have other columns")
            values = np.frombuffer(packed).reshape(-1, each.family.columns)
            restored.append((each, values, overflows))
        names = kept.labels
        if not {*names} <= {*END_LABELS} or any(len(end) != len(names) for end in kept.ends):
            raise ValueError("the labels are others")
        labelled = (dict(zip(names, end, strict=True)) for end in kept.ends)
        ends = [tuple(each.get(name, "") for name in END_LABELS) for each in labelled]
        sources, targets = (np.frombuffer(e, np.int64) for e in (kept.sources, kept.targets))
        if not len(sources) == len(targets) == len(ages):
            raise ValueError("there are other pairs than ages")
        both = np.concatenate([sources, targets])
        if both.size and not 0 <= both.min() <= both.max() < len(ends):
            raise ValueError("a pair has an end that is not there")

        def go_on() -> None:
            numbers = self._pairs.restore(ends, sources, targets)
            self._touched[numbers] = time.monotonic() - ages
            for each, values, overflows in restored:
                if not len(values):
                    continue
                each.sums.values[NO_PAIR] = values[0]
                each.overflows = overflows
                inside = (numbers != NO_PAIR) & (numbers <= each.pairs)
                each.sums.add(numbers[inside], values[1:][inside])

        return go_on

    def _drop_expired(self, now: float) -> None:
        if now < self._next_expiry_check:
            return
        self._next_expiry_check = now + _EXPIRY_CHECK_SECONDS
        numbers = self._pairs.numbers()
        gone = numbers[now - self._touched[numbers] > self._expire]
        if not gone.size:
            return
        for each in self._families:
            values = each.sums.values
            values[gone[gone < len(values)]] = 0
        for number in gone.tolist():
            self._labels.pop(number, None)
        self._pairs.forget(gone)

    def shown(self) -> list[Shown]:
        """What each metric shows."""
        self._drop_expired(time.monotonic())
        numbers = self._pairs.numbers()
        labels = [self._label(number) for number in numbers.tolist()]
        found = []
        for each in self._families:
            within = numbers[: int(np.searchsorted(numbers, each.pairs, side="right"))]
            each.sums.reach(int(within.max(initial=0)))
            values = each.sums.values[within]
            texts = labels[: len(within)]
            if each.family.sparse:
                having = np.flatnonzero(values.any(axis=1))
                values, texts = values[having], [texts[at] for at in having.tolist()]
            if each.overflows:
                values = np.vstack([values, each.sums.values[NO_PAIR]])
                texts = [*texts, self._labels[NO_PAIR]]
            found.append((each.family, texts, values))
        return found

    def _label(self, number: int) -> str:
        text = self._labels.get(number)
        if text is None:
            text = self._labels[number] = label_text(self._pairs.labels(number))
        return text
