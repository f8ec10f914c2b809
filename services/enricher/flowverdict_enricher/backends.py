"""Which services each pod's addresses are behind, as endpoint slices have it."""

from collections import Counter
from collections.abc import Container, Iterable

from flowverdict_enricher.objects import Service

__all__ = ["Backends"]

_NONE: frozenset[Service] = frozenset()


class Backends:
    """The pods behind services. Several threads may use it."""

    def __init__(self) -> None:
        self._behind: dict[str, frozenset[Service]] = {}  # by pod
        self._pods: Counter[Service] = Counter()
        self._at: dict[bytes, tuple[str, frozenset[Service]]] = {}
        # By endpoint slice, and by address.
        self._entered: dict[str, tuple[Service, frozenset[bytes]]] = {}
        self._entered_at: dict[bytes, frozenset[tuple[str, Service]]] = {}

    def services_at(self, address: bytes) -> frozenset[Service]:
        """The services that the pod with this address is behind, or was: what it answered goes on,
        or waits for an answer, though it has left a service or is gone. And those that somebody
        entered it for.
        """
        of_pod = self._at.get(address, ("", _NONE))[1]
        entered = self._entered_at.get(address)
        return of_pod | {service for _, service in entered} if entered else of_pod

    def has_pods(self, service: Service) -> bool:
        """Whether any pod with an address of its own is behind a service."""
        return self._pods[service] > 0

    def put(self, uid: str, services: Iterable[Service], addresses: Iterable[bytes]) -> None:
        """Record that the pod `uid`, with these addresses, is behind these services and no others.

        A pod that is gone is behind none.
        """
        for service in self._behind.pop(uid, _NONE):
            self._pods[service] -= 1
            if not self._pods[service]:
                del self._pods[service]
        behind, own = frozenset(services), frozenset(addresses)
        if behind and own:
            self._behind[uid] = behind
            self._pods.update(behind)
        for address in own:
            holder, before = self._at.get(address, ("", _NONE))
            self._at[address] = uid, behind | (before if holder == uid else _NONE)

    def enter(self, piece: str, service: Service, addresses: frozenset[bytes]) -> None:
        """Record that an endpoint slice has these addresses, which are of no pod."""
        was, before = self._entered.pop(piece, (service, frozenset[bytes]()))
        for each in before:
            self._entered_at[each] -= {(piece, was)}
            if not self._entered_at[each]:
                del self._entered_at[each]
        if addresses and service[1]:
            self._entered[piece] = service, addresses
            for each in addresses:
                self._entered_at[each] = self._entered_at.get(each, frozenset()) | {
                    (piece, service)
                }

    def forget(self, known: Container[bytes]) -> None:
        """Forget the addresses that are not `known` any more."""
        for address in list(self._at):  # others may add some meanwhile
            if address not in known:
                self._at.pop(address, None)
