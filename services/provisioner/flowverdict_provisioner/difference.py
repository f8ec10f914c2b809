"""Differences between the desired state and what Grafana has."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

__all__ = ["Change", "Json", "differences", "with_choices_of"]

Json = dict[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """What was, or would be, done to one object in Grafana.

    Attributes:
        action: `created`, `updated` or `unchanged`.
        details: what differs, for an update.
    """

    what: str
    name: str
    action: str
    details: tuple[str, ...] = ()


def differences(wanted: Any, stored: Any, where: str = "") -> Iterator[str]:
    """Where `stored` differs from `wanted`, one line each; what only `stored` has is ignored."""
    if isinstance(wanted, dict) and isinstance(stored, dict):
        for key, value in wanted.items():
            yield from differences(value, stored.get(key), f"{where}.{key}" if where else key)
    elif isinstance(wanted, list) and isinstance(stored, list):
        if len(wanted) != len(stored):
            yield f"{where}: {len(stored)} entries, should be {len(wanted)}"
            return
        for number, (one, other) in enumerate(zip(wanted, stored, strict=True)):
            yield from differences(one, other, f"{where}[{number}]")
    elif wanted != stored and not (wanted in ("", [], {}, False, 0) and stored is None):
        yield f"{where}: {_short(stored)} → {_short(wanted)}"


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def with_choices_of(stored: Json, wanted: Json) -> Json:
    """The wanted dashboard model with the variable selections of the stored one."""
    chosen = {
        variable.get("name"): variable["current"]
        for variable in stored.get("templating", {}).get("list", ())
        if variable.get("current")
    }
    variables = [
        {**variable, "current": chosen[variable["name"]]}
        if variable["name"] in chosen
        else variable
        for variable in wanted.get("templating", {}).get("list", ())
    ]
    return {**wanted, "templating": {**wanted.get("templating", {}), "list": variables}}
