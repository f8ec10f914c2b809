"""What can be at fault when a pair of endpoints fails."""

from collections.abc import Iterable, Iterator, Set

from flowverdict_contracts.verdicts import Component, ComponentEnd, EndKind, Kind
from flowverdict_flows.endpoint import Endpoint

__all__ = [
    "both_ways",
    "component_of",
    "is_directed",
    "is_part",
    "labels_of",
    "link_between",
    "link_from_to",
    "node_link_between",
    "node_link_from_to",
    "parts_of",
    "path_between",
    "path_from_to",
    "takes_part",
    "zone_of",
]


def _single(kind: EndKind, namespace: str, name: str) -> Component:
    end = ComponentEnd(kind=kind, namespace=namespace, name=name)
    return Component(kind=kind, name=str(end), ends=(end,))


def component_of(endpoint: Endpoint) -> Component:
    """The endpoint as something that can be at fault."""
    return _single(endpoint.kind, endpoint.namespace, endpoint.name)


def path_between(kind: Kind, one: Component, other: Component) -> Component:
    """The path between two components, both ways."""
    first, second = sorted((one, other), key=lambda each: (each.name, each.kind))
    name = f"{first.name} <-> {second.name}"
    return Component(kind=kind, name=name, ends=(*first.ends, *second.ends))


def path_from_to(kind: Kind, src: Component, dst: Component) -> Component:
    """The path from one component to another."""
    return Component(kind=kind, name=f"{src.name} -> {dst.name}", ends=(*src.ends, *dst.ends))


def both_ways(component: Component) -> Component:
    """The same path without a direction; any other component as it is."""
    if len(component.ends) == 1:
        return component
    one, other = (_single(each.kind, each.namespace, each.name) for each in component.ends)
    return path_between(component.kind, one, other)


def link_between(one: Endpoint, other: Endpoint) -> Component:
    """The path between two endpoints, both ways."""
    return path_between("link", component_of(one), component_of(other))


def link_from_to(src: Endpoint, dst: Endpoint) -> Component:
    """The path from one endpoint to another."""
    return path_from_to("link", component_of(src), component_of(dst))


def node_link_between(one: str, other: str) -> Component:
    """The path between two nodes, by their names, both ways."""
    return path_between("node_link", _single("node", "", one), _single("node", "", other))


def node_link_from_to(src: str, dst: str) -> Component:
    """The path from one node to another, by their names."""
    return path_from_to("node_link", _single("node", "", src), _single("node", "", dst))


def parts_of(endpoint: Endpoint) -> Iterator[Component]:
    """The endpoint itself, its workload and its node."""
    yield component_of(endpoint)
    if endpoint.workload:
        yield _single("workload", endpoint.namespace, endpoint.workload)
    if endpoint.node and endpoint.kind != "node":
        yield _single("node", "", endpoint.node)


def zone_of(endpoint: Endpoint) -> Component | None:
    """The zone that the endpoint is in, if that is known."""
    return _single("zone", "", endpoint.zone) if endpoint.zone else None


def labels_of(endpoint: Endpoint) -> Iterator[Component]:
    """Each of its labels, which other pods may have, too."""
    return (_single("label", "", each) for each in endpoint.labels)


def is_directed(component: Component) -> bool:
    """Whether it is a path one way only."""
    return len(component.ends) == 2 and " -> " in component.name


def is_part(endpoint: Endpoint, named: ComponentEnd) -> bool:
    """Whether `named` is this endpoint, its workload, its node, its zone or one of its labels."""
    if named.kind == "workload":
        return (endpoint.namespace, endpoint.workload) == (named.namespace, named.name)
    if named.kind == "node":
        return endpoint.node == named.name
    if named.kind == "zone":
        return endpoint.zone == named.name
    if named.kind == "label":
        return named.name in endpoint.labels
    its_own = endpoint.kind, endpoint.namespace, endpoint.name
    return its_own == (named.kind, named.namespace, named.name)


def takes_part(component: Component, src: Set[Endpoint], dst: Set[Endpoint]) -> bool:
    """Whether a component is part of a flow that any of `src` may have sent to any of `dst`."""
    if len(component.ends) == 1:
        return _is_among(component.ends[0], src | dst)
    one, other = component.ends
    this_way = _is_among(one, src) and _is_among(other, dst)
    if is_directed(component):
        return this_way
    return this_way or (_is_among(other, src) and _is_among(one, dst))


def _is_among(named: ComponentEnd, endpoints: Iterable[Endpoint]) -> bool:
    return any(is_part(each, named) for each in endpoints)
