"""Parsers for command-line values."""

import argparse
from collections.abc import Callable

__all__ = ["LOW_LOSS_SECONDS", "phase_seconds", "whole_number"]

LOW_LOSS_SECONDS = 120
"""What only windows of thirty seconds show is named after one to two minutes."""

_LOW_PERCENT = 5


def phase_seconds(chosen: int | None, loss_percent: int, usual: int) -> int:
    """The length of a phase: as chosen, else long enough for a verdict on such a loss."""
    if chosen is not None:
        return chosen
    return usual if loss_percent >= _LOW_PERCENT else LOW_LOSS_SECONDS


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A parser for a whole number from `low` to `high`, for argparse."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
        return value

    parse.__name__ = "whole number"
    return parse
