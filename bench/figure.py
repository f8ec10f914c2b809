"""The result of a measurement."""

from dataclasses import dataclass

__all__ = ["CannotMeasure", "Figure"]


class CannotMeasure(RuntimeError):
    """This machine lacks what the measurement needs; the message says what."""


@dataclass(frozen=True, slots=True)
class Figure:
    """A number, what it measures, and its unit."""

    measurement: str
    what: str
    value: float
    unit: str
