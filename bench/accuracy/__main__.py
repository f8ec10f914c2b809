"""`script/bench accuracy`: run all cells and print a table."""

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.progress import Progress

from bench.accuracy.cells import CELLS, Cell
from bench.accuracy.delays import (
    DELAYS,
    HEALTHY_WINDOWS,
    DelayCell,
    DelayResult,
    run_delay_trial,
)
from bench.accuracy.rivals import RIVALS
from bench.accuracy.trials import CLEAN_WINDOWS, OURS, Result, run_trial
from bench.table import markdown

R = TypeVar("R")

_TRIALS = 300
_TUNED_ON = 1
_RESAMPLES = 1000


def _f1(results: Sequence[Result], method: str) -> float:
    found, missed, wrong = (
        sum(getattr(each, kind)[method] for each in results)
        for kind in ("found", "missed", "wrong")
    )
    return float(2 * found / max(1, 2 * found + missed + wrong))


def _lower_bound(results: Sequence[Result], method: str) -> float:
    """The lower end of a 95% interval, by resampling the trials (Efron, 1979)."""
    random = np.random.default_rng(0)
    counts = np.array(
        [[each.found[method], each.missed[method] + each.wrong[method]] for each in results]
    )
    drawn = counts[random.integers(len(counts), size=(_RESAMPLES, len(counts)))].sum(axis=1)
    scores = 2 * drawn[:, 0] / np.maximum(1, 2 * drawn[:, 0] + drawn[:, 1])
    return float(np.percentile(scores, 2.5))


def _row(cell: Cell, results: Sequence[Result]) -> dict[str, object]:
    return {
        "cell": cell.name,
        "trials": len(results),
        "F1": round(_f1(results, OURS), 3),
        "lower bound": round(_lower_bound(results, OURS), 3),
        "to reach": cell.least,
        "alarms": round(sum(each.alarms for each in results) / CLEAN_WINDOWS / len(results), 4),
        "too small to see": sum(each.unseen for each in results),
        **{name: round(_f1(results, name), 3) for name in RIVALS},
    }


def _delay_row(cell: DelayCell, results: Sequence[DelayResult]) -> dict[str, object]:
    seen = [each.right for each in results if not each.unseen]
    return {
        "cell": cell.name,
        "trials": len(results),
        "right": round(float(np.mean(seen)), 3),
        "lower bound": round(_lower_bound_of_share(seen), 3),
        "to reach": cell.least,
        "alarms": round(sum(each.alarms for each in results) / HEALTHY_WINDOWS / len(results), 4),
        "too short to see": len(results) - len(seen),
    }


def _lower_bound_of_share(right: Sequence[bool]) -> float:
    """The lower end of a 95% interval (Wilson, 1927)."""
    n, share, z = len(right), float(np.mean(right)), 1.96
    middle = share + z**2 / (2 * n)
    return float(
        (middle - z * np.sqrt(share * (1 - share) / n + (z / 2 / n) ** 2)) / (1 + z**2 / n)
    )


def main() -> int:
    """Run what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="script/bench accuracy",
        description="How often the right component is named, in generated clusters.",
    )
    parser.add_argument("cells", nargs="*", metavar="CELL", help="part of a name; default: all")
    parser.add_argument(
        "--seed", type=int, default=20, help=f"it was tuned on seed {_TUNED_ON} (default: 20)"
    )
    parser.add_argument("--jobs", type=int, default=1, help="processes (default: 1)")
    parser.add_argument(
        "--scale", type=float, default=1.0, help=f"times {_TRIALS} trials a cell (default: 1)"
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the table to FILE")
    arguments = parser.parse_args()

    def is_chosen(cell: Cell | DelayCell) -> bool:
        return not arguments.cells or any(each in cell.name for each in arguments.cells)

    chosen = [cell for cell in CELLS if is_chosen(cell)]
    delays = [cell for cell in DELAYS if is_chosen(cell)]
    if not chosen and not delays:
        names = ", ".join(cell.name for cell in (*CELLS, *DELAYS))
        parser.error(f"no such cell; there are: {names}")
    trials = range(max(1, round(_TRIALS * arguments.scale)))
    with ProcessPoolExecutor(arguments.jobs) as pool, Progress(transient=True) as progress:

        def tried(name: str, trial: Callable[[int], R]) -> list[R]:
            return list(progress.track(pool.map(trial, trials), len(trials), description=name))

        rows = [
            _row(cell, tried(cell.name, partial(run_trial, cell, arguments.seed)))
            for cell in chosen
        ]
        delay_rows = [
            _delay_row(cell, tried(cell.name, partial(run_delay_trial, cell, arguments.seed)))
            for cell in delays
        ]
    print("\n\n".join(markdown(each) for each in (rows, delay_rows) if each))
    if arguments.json:
        document = {
            "seed": arguments.seed,
            "rows": rows,
            "cells": [asdict(each) for each in chosen],
            "delay_rows": delay_rows,
            "delay_cells": [asdict(each) for each in delays],
        }
        arguments.json.write_text(json.dumps(document, indent=2) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
