"""Declarations of a dashboard's parts: panels, their queries, and variables."""

from dataclasses import dataclass, field
from typing import Literal

__all__ = [
    "Board",
    "Choice",
    "Column",
    "Link",
    "Panel",
    "Query",
    "Row",
    "State",
    "Threshold",
    "Variable",
]

Kind = Literal["stat", "timeseries", "table", "matrix", "heatmap", "nodegraph", "state-timeline"]
Store = Literal["prometheus", "influxdb"]


@dataclass(frozen=True, slots=True)
class Query:
    """PromQL, or Flux in an InfluxDB panel; `legend` names a series by its labels."""

    expr: str
    legend: str = ""
    ref: str = "A"


@dataclass(frozen=True, slots=True)
class Threshold:
    """Values from `value` up are shown in `color`."""

    value: float
    color: str


@dataclass(frozen=True, slots=True)
class State:
    """What a value of a state timeline is called, and its color."""

    value: int
    name: str
    color: str


@dataclass(frozen=True, slots=True)
class Link:
    """The target of a click: a dashboard's uid, and variables from the value's labels.

    Labels can also be part of the uid. A dashboard ignores variables that it does not have.

    Attributes:
        hours_around: of a cell with a time, in milliseconds: how long the time range around it is
            that the target opens with; 0 to keep the time range.
    """

    title: str
    uid: str
    variables: dict[str, str] = field(default_factory=dict)
    hours_around: int = 0


@dataclass(frozen=True, slots=True)
class Column:
    """A table column: its title and unit; its cells link to `link`.

    `red_above_fail_ratio`: cells above the current threshold are red.
    `highest_first`: the table's rows are in the order of this column.
    """

    name: str
    title: str
    unit: str = ""
    link: Link | None = None
    red_above_fail_ratio: bool = False
    highest_first: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Panel:
    """One panel.

    Attributes:
        kind: how it is drawn; a `matrix` is a table of `rows_by` by `columns_by`.
        description: what it shows and how to read it.
        unit: one of Grafana's units (`percentunit`, `s`, `Bps` …).
        empty: text shown if there is no data, saying what that means.
        red_above_fail_ratio: values above the RCA worker's current threshold are red.
        states: of a state timeline.
        columns: of a table, in order; what else their links need is there, but hidden.
        width, height: in grid columns (of 24) and in rows of 30 pixels.
    """

    title: str
    kind: Kind
    description: str
    queries: tuple[Query, ...]
    unit: str
    empty: str = "no data"
    thresholds: tuple[Threshold, ...] = ()
    red_above_fail_ratio: bool = False
    states: tuple[State, ...] = ()
    columns: tuple[Column, ...] = ()
    rows_by: str = ""
    columns_by: str = ""
    link: Link | None = None
    stacked: bool = False
    maximum: float | None = None
    width: int = 12
    height: int = 8
    store: Store = "prometheus"

    @property
    def compares_with_fail_ratio(self) -> bool:
        """Whether it needs the current threshold."""
        return self.red_above_fail_ratio or any(each.red_above_fail_ratio for each in self.columns)


@dataclass(frozen=True, slots=True)
class Row:
    """Panels under a heading."""

    title: str
    panels: tuple[Panel, ...]


@dataclass(frozen=True, slots=True)
class Variable:
    """A dashboard variable: the values of `label` in series of `metric` that match `given`."""

    name: str
    label: str
    metric: str
    given: str = ""
    several: bool = True


@dataclass(frozen=True, slots=True)
class Choice:
    """A dashboard variable with one of a few `values`, by what they are called there. It opens with
    the first.
    """

    name: str
    title: str
    values: dict[str, str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Board:
    """One dashboard.

    Attributes:
        variables, choices: what can be chosen at its top.
        inputs: names of variables that are typed, or set by whoever leads there.
        since: the time range it opens with.
    """

    uid: str
    title: str
    description: str
    rows: tuple[Row, ...]
    variables: tuple[Variable, ...] = ()
    choices: tuple[Choice, ...] = ()
    inputs: tuple[str, ...] = ()
    stores: tuple[Store, ...] = ("prometheus",)
    since: str = "now-1h"
    refresh: str = "15s"

    @property
    def is_of_one_pod(self) -> bool:
        """Whether its variables `namespace` and `pod` are those of a single pod."""
        return any(each.name == "pod" and not each.several for each in self.variables)

    @property
    def panels(self) -> tuple[Panel, ...]:
        """All panels, in order."""
        return tuple(panel for row in self.rows for panel in row.panels)
