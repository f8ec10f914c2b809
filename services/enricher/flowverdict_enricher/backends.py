"""Which services each pod's addresses are behind, as endpoint slices have it."""

from collections import Counter
from collections.abc import Iterable

from flowverdict_enricher.objects import Service

__all__ = ["Backends"]

_NONE: frozenset[Service] = frozenset()


class Backends:
    """The pods behind services. One thread may change it while others read."""

    def __init__(self) -> None:
        self._addresses: dict[str, frozenset[bytes]] = {}  # by pod
        self._at: dict[bytes, tuple[str, frozenset[Service]]] = {}
        self._pods: Counter[Service] = Counter()

    def services_at(self, address: bytes) -> frozenset[Service]:
        """The services that the pod with this address is behind."""
        return self._at.get(address, ("", _NONE))[1]

    def has_pods(self, service: Service) -> bool:
        """Whether any pod with an address of its own is behind a service."""
        return self._pods[service] > 0

    def put(self, uid: str, services: Iterable[Service], addresses: Iterable[bytes]) -> None:
        """Record that the pod `uid`, with these addresses, is behind these services and no others.

        A pod that is gone is behind none.
        """
        for address in self._addresses.pop(uid, frozenset()):
            if self._at.get(address, ("",))[0] == uid:
                self._pods.subtract(self._at.pop(address)[1])
        behind, own = frozenset(services), frozenset(addresses)
        if not behind or not own:
            return
        self._addresses[uid] = own
        for address in own:
            self._pods.subtract(self.services_at(address))
            self._at[address] = uid, behind
            self._pods.update(behind)
