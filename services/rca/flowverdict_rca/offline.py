"""The commands `fetch` and `analyse`: root cause analysis of data from Prometheus."""

import http.client
import itertools
import json
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pandas as pd
from rich.console import Console
from rich.table import Table
from rich.text import Text

from flowverdict_contracts.verdicts import Rule
from flowverdict_rca.mining import FAIL, OK, itemsets_and_rules

__all__ = ["OfflineError", "analyse", "fetch", "read_pairs", "transactions"]

QUERY = "sum(tcp_retransmissions_total) by (src_ip, dst_ip)"
STEP_SECONDS = 30
MAX_ADDRESSES = 500


class OfflineError(RuntimeError):
    """The input cannot be read or is invalid; the message says which and why."""


def fetch(url: str, out: Path, minutes: float) -> int:
    """Save the last `minutes` of retransmission counters from the Prometheus at `url` to `out`.

    One JSON object per line, in the format of a range query's series: `metric` with `src_ip` and
    `dst_ip`, and `values`. Returns how many were written.

    Raises:
        OfflineError: if Prometheus does not answer, returns an error, or has no such series.
    """
    end = time.time()
    query = {"query": QUERY, "start": end - 60 * minutes, "end": end, "step": STEP_SECONDS}
    if "/api/" not in url:
        url = url.rstrip("/") + "/api/v1/query_range"
    if not url.startswith(("http://", "https://")):
        raise OfflineError(f"{url} is not an http:// or https:// address")
    request = f"{url}?{urllib.parse.urlencode(query)}"
    try:
        with urllib.request.urlopen(request, timeout=30) as response:  # noqa: S310 # checked above
            answer = json.load(response)
        series = [dict(each) for each in answer["data"]["result"]]
    except urllib.error.HTTPError as error:
        raise OfflineError(
            f"{url} returned {error.code}: {error.read(500).decode(errors='replace')}"
        ) from None
    except (OSError, http.client.HTTPException) as error:
        raise OfflineError(f"{url} cannot be reached: {error}") from None
    except (ValueError, KeyError, TypeError, RecursionError):
        raise OfflineError(f"{url} does not answer like a Prometheus server") from None
    if not series:
        raise OfflineError(f"the Prometheus at {url} has no tcp_retransmissions_total")
    try:
        out.write_text("".join(json.dumps(each) + "\n" for each in series))
    except OSError as error:
        raise OfflineError(f"{out} cannot be written: {error.strerror}") from None
    return len(series)


class _Metric(msgspec.Struct):
    src_ip: str = ""
    dst_ip: str = ""


class _Series(msgspec.Struct):
    metric: _Metric = msgspec.field(default_factory=_Metric)
    values: list[tuple[float, str]] | None = None
    value: tuple[float, str] | None = None

    @property
    def retransmits(self) -> bool:
        """Whether it counted anything; a series without samples is assumed to have."""
        samples = [*(self.values or ()), *((self.value,) if self.value else ())]
        return not samples or any(float(sample) > 0 for _, sample in samples)


def read_pairs(lines: Iterable[str]) -> dict[tuple[str, str], bool]:
    """Maps directed pairs of addresses to whether they had retransmissions.

    Raises:
        OfflineError: naming the first line that is not a series.
    """
    pairs: dict[tuple[str, str], bool] = {}
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            series = msgspec.json.decode(line, type=_Series)
            fails = series.retransmits
        except (msgspec.MsgspecError, ValueError) as error:
            raise OfflineError(f"line {number} is not a Prometheus series: {error}") from None
        pair = (series.metric.src_ip, series.metric.dst_ip)
        if all(pair):
            pairs[pair] = pairs.get(pair, False) or fails
    return pairs


def transactions(pairs: dict[tuple[str, str], bool]) -> list[frozenset[str]]:
    """A transaction for every directed pair of the addresses seen: FAIL if it retransmitted.

    A pair that is not in the file retransmitted nothing, and is OK.

    Raises:
        OfflineError: if there are more than `MAX_ADDRESSES` addresses.
    """
    addresses = sorted({address for pair in pairs for address in pair})
    if len(addresses) > MAX_ADDRESSES:
        raise OfflineError(f"{len(addresses)} addresses are too many: every pair of them is a flow")
    return [
        frozenset({*pair, FAIL if pairs.get(pair) else OK})
        for pair in itertools.permutations(addresses, 2)
    ]


def analyse(path: Path, min_support: float, min_confidence: float, as_json: bool) -> None:
    """Print the frequent itemsets and rules of a file that `fetch` wrote.

    Raises:
        OfflineError: if the file cannot be read or contains no pairs.
    """
    try:
        with path.open(encoding="utf-8") as lines:
            pairs = read_pairs(lines)
    except (OSError, UnicodeDecodeError) as error:
        raise OfflineError(f"{path}: {error}") from None
    flows = transactions(pairs)
    if not flows:
        raise OfflineError(f"{path} contains no pair of addresses")
    itemsets, rules = itemsets_and_rules(flows, min_support, min_confidence)
    if as_json:
        json.dump(_document(flows, itemsets, rules), sys.stdout, indent=2)
        print()
        return
    failing = sum(FAIL in flow for flow in flows)
    console = Console()
    console.print(f"{len(flows)} flows, {failing} of them with retransmissions\n")
    console.print(_itemset_table(itemsets))
    console.print(_rule_table(rules))


def _document(
    flows: list[frozenset[str]], itemsets: pd.DataFrame, rules: list[Rule]
) -> dict[str, Any]:
    return {
        "flows": len(flows),
        "failing": sum(FAIL in flow for flow in flows),
        "itemsets": [
            {"support": round(float(support), 6), "items": list(items)}
            for support, items in zip(itemsets["support"], itemsets["itemsets"], strict=True)
        ],
        "rules": msgspec.to_builtins(rules),
    }


def _itemset_table(itemsets: pd.DataFrame) -> Table:
    table = Table(
        "", "support", "itemsets", title="Frequent itemsets", box=None, title_justify="left"
    )
    for number, (support, items) in enumerate(
        zip(itemsets["support"], itemsets["itemsets"], strict=True)
    ):
        table.add_row(str(number), f"{support:.6f}", Text(", ".join(items)))
    return table


def _rule_table(rules: list[Rule]) -> Table:
    table = Table(
        "", "antecedents", "consequents", "support", "confidence", "lift",
        title="\nAssociation rules", box=None, title_justify="left",
    )  # fmt: skip
    for number, rule in enumerate(rules):
        table.add_row(
            str(number),
            Text(", ".join(rule.antecedents)),
            Text(", ".join(rule.consequents)),
            str(rule.support),
            str(rule.confidence),
            str(rule.lift),
        )
    return table
