"""The counts of each pair of endpoints over the last ten seconds."""

import time
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from rich.text import Text

from flowverdict_flows.endpoint import Endpoint
from flowverdict_flows.half_open import half_open
from flowverdict_flows.pairs import EndpointPairs, Numbers, PairSums, ratios_of
from flowverdict_flows.ratios import RETRANSMISSION_RATIO

__all__ = ["WINDOW_SECONDS", "LivePairs", "PairNow", "PairTable", "percent"]

WINDOW_SECONDS = 10.0
_REMEMBERED_PAIRS = 50_000
_SHOWN_HALF_OPEN, _FEW_SYNACKS = 3, 3
_FIELDS = (
    "data_segments_sent",
    "retransmitted_data_segments",
    "retransmitted_synacks",
    "opens",
    "failed_opens",
    "bytes_sent",
    "rtt_us",
)
_COLUMNS = (*_FIELDS, "rtt_samples")


def percent(ratio: float | None) -> str:
    """A ratio in percent; empty if there is none."""
    return "" if ratio is None else f"{100 * ratio:.1f}%"


@dataclass(frozen=True, slots=True)
class PairNow:
    """One pair's sums over the last ten seconds."""

    src: Endpoint
    dst: Endpoint
    counts: dict[str, int]

    @property
    def retransmission_ratio(self) -> float | None:
        """The ratio; None if it sent no data."""
        return RETRANSMISSION_RATIO.of(self.counts)

    @property
    def rtt_text(self) -> str:
        """Mean of the readings of the smoothed RTT, in milliseconds; empty if there is none."""
        samples = self.counts["rtt_samples"]
        return f"{self.counts['rtt_us'] / samples / 1000:.1f}" if samples else ""

    def ratio_text(self, fail_ratio: float | None) -> Text:
        """The retransmission ratio, red above the threshold, if that is known."""
        ratio = self.retransmission_ratio
        is_bad = ratio is not None and fail_ratio is not None and ratio > fail_ratio
        return Text(percent(ratio), style="bold red" if is_bad else "")


_NO_ENDPOINT = Endpoint("unknown", "", "")


@dataclass(frozen=True, slots=True)
class PairTable:
    """The sums by pair: a row for each of `numbers`; `rows` are the enriched rows behind them."""

    pairs: EndpointPairs
    numbers: Numbers
    sums: npt.NDArray[np.int64]
    rows: int

    def column(self, name: str) -> Numbers:
        """One of the sums, for each pair."""
        found: Numbers = self.sums[:, _COLUMNS.index(name)]
        return found

    def whole(self) -> PairNow:
        """All pairs together."""
        return PairNow(_NO_ENDPOINT, _NO_ENDPOINT, _named(self.sums.sum(axis=0)))

    def worst_first(self, chosen: npt.NDArray[np.bool_], limit: int) -> Iterator[PairNow]:
        """The `chosen` pairs by retransmission ratio, then failed connects, then data sent."""
        ratios = np.nan_to_num(ratios_of(RETRANSMISSION_RATIO, self.sums, _COLUMNS))
        failed, sent = self.column("failed_opens"), self.column("data_segments_sent")
        order = np.lexsort((-sent, -failed, -ratios))
        for at in order[chosen[order]][:limit].tolist():
            src, dst = self.pairs.pair(int(self.numbers[at]))
            yield PairNow(src, dst, _named(self.sums[at]))

    def half_open(self) -> Iterator[tuple[Endpoint, int]]:
        """Endpoints with connection requests that never completed, and SYN-ACKs retransmitted."""
        ends, sources, _ = self.pairs.ends(self.numbers)
        synacks, opens = self.column("retransmitted_synacks"), self.column("opens")
        for at, _, count in half_open(sources, synacks, opens, _FEW_SYNACKS)[:_SHOWN_HALF_OPEN]:
            yield ends[at], count


def _named(sums: Numbers) -> dict[str, int]:
    return dict(zip(_COLUMNS, sums.tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class _Part:
    """One message's sums."""

    received: float
    numbers: Numbers
    sums: npt.NDArray[np.int64]
    rows: int


class LivePairs:
    """Collects enriched batches and sums them over the last ten seconds."""

    def __init__(self) -> None:
        self._pairs = EndpointPairs()
        self._parts: deque[_Part] = deque()

    def add(self, batch: pa.RecordBatch) -> None:
        """Add a batch that has just arrived."""
        if len(self._pairs) > _REMEMBERED_PAIRS:
            self._pairs.clear()
            self._parts.clear()
        rows = self._pairs.group(batch)
        sums = np.column_stack([rows.table(_FIELDS), rows.samples("rtt_us")])
        self._parts.append(_Part(time.monotonic(), rows.numbers, sums, batch.num_rows))

    def sums(self) -> PairTable:
        """The sums as of now."""
        oldest = time.monotonic() - WINDOW_SECONDS
        while self._parts and self._parts[0].received < oldest:
            self._parts.popleft()
        sums = PairSums(len(_COLUMNS), np.int64)
        for part in self._parts:
            sums.add(part.numbers, part.sums)
        numbers = np.flatnonzero(sums.values.any(axis=1))
        rows = sum(part.rows for part in self._parts)
        return PairTable(self._pairs, numbers, sums.values[numbers], rows)
