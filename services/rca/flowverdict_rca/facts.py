"""What the cluster itself knows about what takes part in a window.

The API server reports pods that are gone and services without ready endpoints, and a collector's
silence says something about its node. Both are evidence, and often the explanation.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from flowverdict_contracts.enriched import CONDITIONS
from flowverdict_contracts.kernel_reports import KernelReport
from flowverdict_flows.endpoint import Endpoint

__all__ = ["LEAVING", "NO_READY_ENDPOINTS", "Facts", "SilentNode"]

LEAVING = frozenset({"terminating", "gone"})
"""Conditions of a pod whose flows end because somebody wanted it so."""

NO_READY_ENDPOINTS = "no_ready_endpoints"
assert {*LEAVING, NO_READY_ENDPOINTS} <= set(CONDITIONS)


@dataclass(frozen=True, slots=True)
class SilentNode:
    """A node whose collector could not be heard in the newest pane, or was just heard again.

    Attributes:
        name: the node.
        since_ns: end of the last interval that arrived before.
        heard_again: whether what it counted in the meantime has arrived.
    """

    name: str
    since_ns: int
    heard_again: bool


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known about a window's endpoints and nodes.

    Attributes:
        conditions: of endpoints, as in an enriched row, if there is one.
        briefly_unready: services without ready endpoints whose pods may just be moving.
        backends: each service's pods.
        candidates: the pods that a node's own address may stand for, as `NAMESPACE/NAME`.
        kernel_log: by node, what its kernel reported lately.
        silent: nodes that could not be heard.
        recovering: nodes that were heard again, alone among the nodes, so recently that their
            connections may still wait for their next retransmission.
    """

    conditions: Mapping[Endpoint, str] = field(default_factory=dict)
    briefly_unready: frozenset[Endpoint] = frozenset()
    backends: Mapping[Endpoint, frozenset[Endpoint]] = field(default_factory=dict)
    candidates: Mapping[Endpoint, tuple[str, ...]] = field(default_factory=dict)
    kernel_log: Mapping[str, tuple[KernelReport, ...]] = field(default_factory=dict)
    silent: tuple[SilentNode, ...] = ()
    recovering: frozenset[str] = frozenset()

    @property
    def losing_pods(self) -> frozenset[Endpoint]:
        """Services of which a pod is being deleted, or has been lately."""
        leaving = {each for each, text in self.conditions.items() if text in LEAVING}
        return frozenset(each for each, pods in self.backends.items() if pods & leaving)

    def nodes_of(self, endpoint: Endpoint) -> frozenset[str]:
        """The node that it is on, or those that its pods are on."""
        pods = (
            self.backends.get(endpoint, frozenset()) if endpoint.kind == "service" else [endpoint]
        )
        return frozenset({each.node for each in pods} - {""})
