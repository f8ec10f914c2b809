"""The networks that pods get their addresses from."""

from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Network

from flowverdict_contracts.addresses import to_bytes
from flowverdict_enricher.objects import Network

__all__ = ["PodNetworks"]

_BITS, _IPV4_BITS = 128, 32


class PodNetworks:
    """The pod networks of all nodes.

    Some network plugins give pods of any node addresses from them, so the network that an address
    is in does not tell its node.
    """

    def __init__(self) -> None:
        self._of_node: dict[str, frozenset[tuple[int, int]]] = {}
        # How many nodes have a prefix, by the number of bits after it.
        self._prefixes: dict[int, Counter[int]] = {}

    def put(self, node: str, networks: Iterable[Network]) -> bool:
        """Set the networks of a node; returns whether they were others before."""
        before = self._of_node.get(node, frozenset())
        prefixes = frozenset(_prefix(each) for each in networks)
        for shift, prefix in prefixes - before:
            if shift not in self._prefixes:  # others may be reading it
                self._prefixes = {**self._prefixes, shift: Counter()}
            self._prefixes[shift][prefix] += 1
        for shift, prefix in before - prefixes:
            self._prefixes[shift][prefix] -= 1
            if not self._prefixes[shift][prefix]:
                del self._prefixes[shift][prefix]
        self._of_node[node] = prefixes
        return before != prefixes

    def __contains__(self, address: bytes) -> bool:
        number = int.from_bytes(address)
        return any(number >> shift in prefixes for shift, prefixes in self._prefixes.items())


def _prefix(network: Network) -> tuple[int, int]:
    """How many bits follow the prefix, and the prefix, of addresses of 16 bytes."""
    shift = (_IPV4_BITS if isinstance(network, IPv4Network) else _BITS) - network.prefixlen
    return shift, int.from_bytes(to_bytes(str(network.network_address))) >> shift
