"""Parsers for command-line values."""

import argparse
from collections.abc import Callable

__all__ = ["LONG_SECONDS", "percentage", "phase_seconds", "whole_number"]

LONG_SECONDS = 150
"""Enough to learn what is normal, and then to see what only windows of thirty seconds show."""

_LOW_PERCENT = 5


def phase_seconds(
    chosen: int | None, usual: int, loss_percent: float, *, takes_long: bool = False
) -> int:
    """The length of a phase: as chosen, else long enough for a verdict on the fault."""
    if chosen is not None:
        return chosen
    return LONG_SECONDS if takes_long or loss_percent < _LOW_PERCENT else usual


def whole_number(low: int, high: int) -> Callable[[str], int]:
    """A parser for a whole number from `low` to `high`, for argparse."""

    def parse(text: str) -> int:
        value = int(text)
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{value} is not between {low} and {high}")
        return value

    parse.__name__ = "whole number"
    return parse


def percentage(low: float, high: float) -> Callable[[str], float]:
    """A parser for a percentage from `low` to `high`, with or without a sign, for argparse."""

    def parse(text: str) -> float:
        value = float(text.strip().removesuffix("%"))
        if not low <= value <= high:
            raise argparse.ArgumentTypeError(f"{text} is not between {low:g} and {high:g} percent")
        return value

    parse.__name__ = "percentage"
    return parse
