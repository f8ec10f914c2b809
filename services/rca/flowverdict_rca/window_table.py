"""A window as a table for `localise`, and which of its pairs a component covers."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd

from flowverdict_contracts.verdicts import Component, Direction, Kind
from flowverdict_flows.components import (
    component_of,
    is_directed,
    is_part,
    labels_of,
    parts_of,
    path_from_to,
    zone_of,
)
from flowverdict_flows.endpoint import Endpoint
from flowverdict_rca.engine.rows import LABEL
from flowverdict_rca.window import Window, lost_segments, total

__all__ = ["answered_by", "component_at", "named_in", "pairs_of", "settled", "table_of"]

_SEVERAL = 2

Mask = npt.NDArray[np.bool_]

_PARTS = ("pod", "workload", "node", "service", "zone")
_PATHS: dict[str, Kind] = {"src_node": "node_link", "src_workload": "workload_link"}


def settled(window: Window) -> Mask:
    """Pairs between ends that are inside the cluster, and that stay as they are.

    What is lost on the way to and from the Internet is usual there, and different for everyone.
    """
    facts = window.facts
    of_end = [
        each.kind != "external"
        and not facts.conditions.get(each)
        and not facts.nodes_of(each) & facts.recovering
        for each in window.endpoints
    ]
    return window.pairs_with(of_end, both=True)


def table_of(window: Window, chosen: Mask) -> pd.DataFrame:
    """The chosen pairs with what they sent and lost, for `localise` and `learn`.

    Columns hold components as `str(Component)`, a list of them for a service with several pods: it
    is not known which of them answered.
    """
    services: dict[Endpoint, list[str]] = {}
    for service, pods in window.facts.backends.items():
        for pod in pods:
            services.setdefault(pod, []).append(str(component_of(service)))
    parts = [_parts(each, window) for each in window.endpoints]
    _add_zones(parts, window)
    labels = _add_labels(parts, window)
    for each, of_each in zip(window.endpoints, parts, strict=True):
        if each in services:
            of_each["service"] = services[each]
    counts = window.panes[:, chosen].sum(axis=0)
    columns: dict[str, Any] = {
        "segments": total(counts, "data_segments_sent"),
        "retransmits": lost_segments(counts),
    }
    for name in (*_PARTS, *labels):
        values = np.empty(len(parts), object)
        values[:] = [of_each.get(name) for of_each in parts]
        for end, at in (("src", window.src), ("dst", window.dst)):
            columns[f"{end}_{name}"] = values[at[chosen]]
    return pd.DataFrame(columns)


def _parts(endpoint: Endpoint, window: Window) -> dict[str, str | list[str]]:
    """What the columns say about one end."""
    own = str(component_of(endpoint))
    pods = sorted(window.facts.backends.get(endpoint, ()))
    if not pods:
        found: dict[str, str | list[str]] = {each.kind: str(each) for each in parts_of(endpoint)}
        return found | {"pod": own}
    of_pods: dict[str, str | list[str]] = {"service": own, "pod": [], "workload": [], "node": []}
    for pod in pods:
        for each in parts_of(pod):
            values = of_pods[each.kind]
            assert isinstance(values, list)
            values.append(str(each))
    return of_pods


def _add_zones(parts: list[dict[str, str | list[str]]], window: Window) -> None:
    """Zones are compared if there are several; one alone is everything."""
    if len({each.zone for each in window.endpoints if each.zone}) < _SEVERAL:
        return
    for of_each, endpoint in zip(parts, window.endpoints, strict=True):
        zones = [str(zone) for zone in map(zone_of, _answering(endpoint, window)) if zone]
        if zones:
            of_each["zone"] = zones if endpoint.kind == "service" else zones[0]


def _add_labels(parts: list[dict[str, str | list[str]]], window: Window) -> list[str]:
    """Labels are compared if not every pod has them; returns the columns' names without the end."""
    pods_of = [_answering(each, window) for each in window.endpoints]
    pods = {pod for each in pods_of for pod in each if pod.kind == "pod"}
    having = Counter(label for pod in pods for label in labels_of(pod))
    column_of = {
        label: f"{LABEL}{label.name.partition('=')[0]}"
        for label, count in having.items()
        if count < len(pods)
    }
    for of_each, its_pods, endpoint in zip(parts, pods_of, window.endpoints, strict=True):
        of_pods = [
            {column_of[each]: str(each) for each in labels_of(pod) if each in column_of}
            for pod in its_pods
        ]
        for column in column_of.values():
            values = [of_pod.get(column, "") for of_pod in of_pods]
            of_each[column] = values if endpoint.kind == "service" else values[0]
    return sorted(set(column_of.values()))


def _answering(endpoint: Endpoint, window: Window) -> list[Endpoint]:
    """The pods that may have answered for a service; any other endpoint itself."""
    return sorted(window.facts.backends.get(endpoint, ())) or [endpoint]


def named_in(window: Window) -> dict[str, Component]:
    """Every component in the columns of its table, by the words for it."""

    def components() -> Iterator[Component]:
        for service, pods in window.facts.backends.items():
            yield component_of(service)
            for pod in pods:
                yield from parts_of(pod)
                yield from filter(None, (zone_of(pod), *labels_of(pod)))
        for each in window.endpoints:
            yield from parts_of(each)
            yield from filter(None, (zone_of(each), *labels_of(each)))

    return {str(each): each for each in components()}


def component_at(
    where: Mapping[str, str], named: Mapping[str, Component]
) -> tuple[Component, Direction]:
    """The component that a condition of `localise` describes, and which way its flows suffer."""
    names, ends = tuple(where), [named[value] for value in where.values()]
    if len(ends) == 2:
        kind = _PATHS.get(names[0], "link")
        return path_from_to(kind, *ends), "both"
    directions: dict[str, Direction] = {"src_pod": "sending", "dst_pod": "receiving"}
    return ends[0], directions.get(names[0], "both")


def pairs_of(component: Component, direction: Direction, window: Window) -> Mask:
    """The pairs that a component takes part in; those of a service are those of its pods, too."""
    ends = [
        np.array([_is_at(each, window, component, which) for each in window.endpoints], np.bool_)
        for which in range(len(component.ends))
    ]
    if len(ends) == 1:
        (at,) = ends
        if direction == "both":
            return window.pairs_with(at)
        found: Mask = at[window.src if direction == "sending" else window.dst]
        return found
    this_way: Mask = ends[0][window.src] & ends[1][window.dst]
    if is_directed(component):
        return this_way
    return this_way | (ends[1][window.src] & ends[0][window.dst])


def answered_by(components: Iterable[Component], window: Window) -> Mask:
    """The pairs of services' addresses that one of these pods may have answered."""
    names = {str(each) for each in components}
    of_end = [
        any(str(component_of(pod)) in names for pod in window.facts.backends.get(each, ()))
        for each in window.endpoints
    ]
    return window.pairs_with(of_end)


def _is_at(endpoint: Endpoint, window: Window, component: Component, which: int) -> bool:
    named = component.ends[which]
    if is_part(endpoint, named):
        return True
    if named.kind == "workload":  # also by the address of a service that is all its own
        pods = window.facts.backends.get(endpoint, ())
        return bool(pods) and all(is_part(each, named) for each in pods)
    if named.kind != "service":
        return False
    service = Endpoint("service", named.namespace, named.name)
    return endpoint in window.facts.backends.get(service, ())
