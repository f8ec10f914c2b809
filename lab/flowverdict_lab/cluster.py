"""The lab's nodes and pods, and their addresses."""

import json
import string
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from itertools import pairwise, permutations, product

__all__ = ["NAMESPACE", "SHAPES", "Cluster", "Node", "Pod", "make_cluster"]

NAMESPACE = "default"


@dataclass(frozen=True, slots=True)
class Node:
    """A worker node; `index` counts from 0."""

    name: str
    index: int

    @property
    def ipv4(self) -> str:
        """Address on the network between the nodes."""
        return f"10.30.45.{10 + self.index}"

    @property
    def ipv6(self) -> str:
        """The same for IPv6."""
        return f"fd00:30:45::{10 + self.index:x}"

    @property
    def pods_ipv4(self) -> str:
        """The first three bytes of its pods' addresses."""
        return f"10.244.{self.index}"

    @property
    def pods_ipv6(self) -> str:
        """The first 64 bits of its pods' addresses."""
        return f"fd00:10:244:{self.index:x}:"


@dataclass(frozen=True, slots=True)
class Pod:
    """A pod; `number` counts from 2 on its node, 1 being the gateway."""

    name: str
    node: Node
    number: int

    @property
    def ipv4(self) -> str:
        """Its IPv4 address."""
        return f"{self.node.pods_ipv4}.{self.number}"

    @property
    def ipv6(self) -> str:
        """Its IPv6 address, in the usual notation (RFC 5952)."""
        return str(IPv6Address(f"{self.node.pods_ipv6}:{self.number:x}"))


@dataclass(frozen=True, slots=True)
class Cluster:
    """Nodes `worker0` … and pods `pod-a` …, spread over them in blocks.

    Attributes:
        nodes, pods: all of them.
        calls: which pod calls which.
    """

    nodes: tuple[Node, ...]
    pods: tuple[Pod, ...]
    calls: tuple[tuple[Pod, Pod], ...]

    @property
    def pairs(self) -> set[frozenset[Pod]]:
        """Those that talk to each other."""
        return {frozenset(call) for call in self.calls}

    def called_by(self, pod: Pod) -> list[Pod]:
        """The pods that a pod calls."""
        return [callee for caller, callee in self.calls if caller is pod]

    def pod(self, name: str) -> Pod | None:
        """The pod of that name."""
        return next((pod for pod in self.pods if pod.name == name), None)

    def node(self, name: str) -> Node | None:
        """The node of that name."""
        return next((node for node in self.nodes if node.name == name), None)

    def inventory(self) -> str:
        """The inventory that the enricher reads instead of a Kubernetes API, as JSON."""
        nodes = [
            {"name": n.name, "addresses": [n.ipv4, n.ipv6, f"{n.pods_ipv4}.1", f"{n.pods_ipv6}:1"]}
            for n in self.nodes
        ]
        pods = [
            {
                "namespace": NAMESPACE,
                "name": pod.name,
                "addresses": [pod.ipv4, pod.ipv6],
                "node": pod.node.name,
            }
            for pod in self.pods
        ]
        return json.dumps({"nodes": nodes, "pods": pods}, indent=2)


def _everyone(pods: Sequence[Pod]) -> tuple[tuple[Pod, Pod], ...]:
    return tuple(permutations(pods, 2))


def _layers(pods: Sequence[Pod]) -> tuple[tuple[Pod, Pod], ...]:
    """Front ends, services and stores; each calls all of the next layer."""
    layers = [pods[number::_LAYERS] for number in range(_LAYERS)]
    return tuple(call for caller, callee in pairwise(layers) for call in product(caller, callee))


_LAYERS = 3
SHAPES: dict[str, Callable[[Sequence[Pod]], tuple[tuple[Pod, Pod], ...]]] = {
    "mesh": _everyone,
    "layers": _layers,
}
"""Who calls whom, by the name on the command line."""


def make_cluster(pods: int, nodes: int, shape: str = "mesh") -> Cluster:
    """A cluster of `pods` pods on `nodes` nodes, alphabetical neighbours on the same node.

    `shape` is one of `SHAPES`.
    """
    workers = tuple(Node(f"worker{index}", index) for index in range(nodes))
    letters = [*string.ascii_lowercase, *map("".join, product(string.ascii_lowercase, repeat=2))]
    created, on_node = [], dict.fromkeys(workers, 1)
    for index in range(pods):
        worker = workers[index * nodes // pods]
        on_node[worker] += 1
        created.append(Pod(f"pod-{letters[index]}", worker, on_node[worker]))
    return Cluster(workers, tuple(created), SHAPES[shape](created))
