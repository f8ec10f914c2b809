"""The networks that the nodes' pods get their addresses from."""

from collections.abc import Iterable
from ipaddress import IPv4Network

from flowverdict_contracts.addresses import to_bytes
from flowverdict_enricher.objects import Network

__all__ = ["PodNetworks"]

_BITS = 128
_IPV4_BITS = 32


class PodNetworks:
    """Which node a pod's address is from, if the cluster gives each node a network for its pods."""

    def __init__(self) -> None:
        self._of_node: dict[str, set[tuple[int, int]]] = {}  # bits after the prefix, and the prefix
        self._nodes: dict[int, dict[int, str]] = {}  # by the same

    def put(self, node: str, networks: Iterable[Network]) -> None:
        """Set a node's networks; none if it is gone."""
        for shift, prefix in self._of_node.pop(node, ()):
            if self._nodes[shift].get(prefix) == node:  # not another's since
                del self._nodes[shift][prefix]
        for each in networks:
            of_family = _IPV4_BITS if isinstance(each, IPv4Network) else _BITS
            shift = of_family - each.prefixlen
            prefix = int.from_bytes(to_bytes(str(each.network_address))) >> shift
            self._nodes.setdefault(shift, {})[prefix] = node
            self._of_node.setdefault(node, set()).add((shift, prefix))

    def node_of(self, address: bytes) -> str:
        """The node whose network an address (16 bytes) is in; empty if it is in none."""
        number = int.from_bytes(address)
        for shift, nodes in self._nodes.items():
            if node := nodes.get(number >> shift):
                return node
        return ""
