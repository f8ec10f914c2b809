"""Reads series of tcp_retransmissions_total in the formats that Prometheus and promtool write."""

import itertools
import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from flowverdict_contracts.signals import OVER_BUDGET

__all__ = ["OfflineError", "Pairs", "read_file", "read_pairs"]

Pairs = dict[tuple[str, str], bool]
"""Directed pairs of addresses, and whether each retransmitted."""


class OfflineError(RuntimeError):
    """The input cannot be read or is invalid; the message says which and why."""


class _Metric(msgspec.Struct):
    src_ip: str = ""
    dst_ip: str = ""


class _Series(msgspec.Struct):
    metric: _Metric = msgspec.field(default_factory=_Metric)
    values: list[tuple[float, str]] | None = None
    value: tuple[float, str] | None = None
    histograms: Any = None
    histogram: Any = None

    def samples(self) -> list[tuple[float, float]]:
        """Time and value of those that a counter can have."""
        found = [*(self.values or ()), *((self.value,) if self.value else ())]
        numbers = ((at, float(text)) for at, text in found)
        return [(at, number) for at, number in numbers if math.isfinite(number) and number >= 0]

    def says_nothing(self) -> bool:
        """Whether it only names a pair: in a list of pairs with retransmissions, for example."""
        return (self.values, self.value, self.histograms, self.histogram) == (None,) * 4


def read_file(path: Path) -> tuple[Pairs, Counter[str]]:
    """The pairs in a file, and how many series were left out for which reason.

    The file has a series per line, as `fetch` writes it, or one answer of Prometheus' HTTP API
    (`query`, `query_range`) or of `promtool query --format json`.

    Raises:
        OfflineError: if the file cannot be read, or is none of these.
    """
    left_out: Counter[str] = Counter()
    try:
        text = path.read_text(encoding="utf-8")
        pairs = read_pairs(_answer(text) or text.splitlines(), left_out)
    except (OSError, UnicodeDecodeError) as error:
        raise OfflineError(f"{path}: {error}") from None
    if not pairs:
        why = "".join(f"; {count} {reason}" for reason, count in left_out.items())
        raise OfflineError(f"{path} contains no pair of addresses{why}")
    return pairs, left_out


def _answer(text: str) -> list[str]:
    """The series of a whole answer as lines; empty if the text is not one.

    Raises:
        OfflineError: if it is an error.
    """
    try:
        document: Any = json.loads(text)
    except (ValueError, RecursionError):
        return []
    if isinstance(document, dict) and document.get("status") == "error":
        raise OfflineError(f"this is an error of Prometheus: {document.get('error')}")
    if isinstance(document, dict) and isinstance(document.get("data"), dict):
        document = document["data"].get("result")
    return [json.dumps(each) for each in document] if isinstance(document, list) else []


def read_pairs(lines: Iterable[str], left_out: Counter[str] | None = None) -> Pairs:
    """Maps directed pairs of addresses to whether they had retransmissions.

    Those are what a counter grew by, from its first sample to its last. A counter that began later
    than others grew by its first sample, too. One with a single sample, as in an instant query,
    counts as what it says.

    Args:
        lines: a series each.
        left_out: counts the series that were left out, by reason.

    Raises:
        OfflineError: naming the first line that is not a series.
    """
    left_out = Counter() if left_out is None else left_out
    usable = list(_usable(lines, left_out))
    begin = min((samples[0][0] for _, samples in usable if samples), default=0.0)
    pairs: Pairs = {}
    for pair, samples in usable:
        fails = not samples or _growth([value for _, value in samples], samples[0][0] > begin) > 0
        pairs[pair] = pairs.get(pair, False) or fails
    return pairs


def _usable(
    lines: Iterable[str], left_out: Counter[str]
) -> Iterator[tuple[tuple[str, str], list[tuple[float, float]]]]:
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            series = msgspec.json.decode(line, type=_Series)
            samples = series.samples()
        except (msgspec.MsgspecError, ValueError) as error:
            raise OfflineError(f"line {number} is not a Prometheus series: {error}") from None
        pair = (series.metric.src_ip, series.metric.dst_ip)
        if not all(pair):
            left_out["without src_ip and dst_ip"] += 1
        elif OVER_BUDGET in pair:
            left_out["of the pairs that the exporter had no series left for"] += 1
        elif not samples and not series.says_nothing():
            left_out["without a sample that a counter can have"] += 1
        else:
            yield pair, samples


def _growth(values: list[float], began_later: bool) -> float:
    """What a counter grew by; it starts again at zero when its process does."""
    steps = itertools.pairwise(values)
    grew = sum(after - before if after >= before else after for before, after in steps)
    return grew + (values[0] if began_later or len(values) == 1 else 0)
