"""Labels of an incident: its cause, and which flows that explains."""

import itertools

from flowverdict_contracts.verdicts import Cause, ComponentEnd, Verdict
from flowverdict_flows.components import is_directed

__all__ = ["EXPLAINS_LABELS", "INCIDENT_LABELS", "explained", "labels_of"]

_MAX_LINK_ADDRESSES = 8

INCIDENT_LABELS = (
    "incident_id",
    "cause_kind",
    "cause_namespace",
    "cause_name",
    "cause_node",
    "direction",
    "cause_addresses",
)
"""The last is empty but for a link: the addresses of both ends, joined by `|`."""

EXPLAINS_LABELS = (
    "incident_id", "by", "src_ip", "src_namespace", "src_pod", "src_workload", "src_node",
    "src_zone", "dst_ip", "dst_namespace", "dst_pod", "dst_workload", "dst_node", "dst_zone",
)  # fmt: skip


def labels_of(verdict: Verdict) -> list[str]:
    """The values of `INCIDENT_LABELS`, empty where the verdict has no cause."""
    if not verdict.causes:
        return [verdict.incident_id, *[""] * (len(INCIDENT_LABELS) - 1)]
    cause = verdict.causes[0]
    if len(cause.ends) == 1:
        namespace, name = cause.ends[0].namespace, cause.ends[0].name
    else:
        namespace, name = "", cause.name
    return [
        verdict.incident_id,
        cause.kind,
        namespace,
        name,
        cause.node,
        cause.direction,
        "|".join(_addresses_of_link(cause)),
    ]


def _addresses_of_link(cause: Cause) -> tuple[str, ...]:
    return cause.addresses[:_MAX_LINK_ADDRESSES] if cause.kind == "link" else ()


def _flow_labels(component_end: ComponentEnd, end: str) -> dict[str, str]:
    """Labels of the flows that have a component at their `end` ("src", "dst")."""
    kind, namespace, name = component_end.kind, component_end.namespace, component_end.name
    if kind in ("node", "zone"):
        return {f"{end}_{kind}": name}
    if kind in ("pod", "workload"):
        return {f"{end}_namespace": namespace, f"{end}_{kind}": name}
    return {f"{end}_ip": name}


def explained(cause: Cause) -> list[dict[str, str]]:
    """Sets of labels; a flow that matches every label of one set is explained by `cause`.

    Each also has a label `by`, the joined names of the others, which inhibits flow alerts.
    """
    ends = {"sending": ("src",), "receiving": ("dst",)}.get(cause.direction, ("src", "dst"))
    if cause.kind in ("node_link", "workload_link"):
        # A link has no direction, so both ways count as explained.
        sets = [
            _flow_labels(src, "src") | _flow_labels(dst, "dst")
            for src, dst in itertools.permutations(cause.ends)
        ]
        sets += [
            _flow_labels(end, "src") | {"dst_ip": address}
            for end in cause.ends[: 1 if is_directed(cause) else 2]
            for address in cause.service_addresses
        ]
    elif cause.kind == "link":
        # Its ends may be pods, services, nodes or addresses; their addresses are known in any case.
        pairs_of_addresses = itertools.permutations(_addresses_of_link(cause), 2)
        sets = [{"src_ip": a, "dst_ip": b} for a, b in pairs_of_addresses]
    elif cause.kind in ("service", "label"):
        sets = [{f"{end}_ip": address} for end in ends for address in cause.addresses]
    else:
        sets = [_flow_labels(cause.ends[0], end) for end in ends]
        sets += [{"dst_ip": address} for address in cause.service_addresses]
    labelled = (
        {"by": "+".join(n for n in labels if not n.endswith("namespace")), **labels}
        for labels in sets
    )
    return [dict(pairs) for pairs in dict.fromkeys(tuple(each.items()) for each in labelled)]
