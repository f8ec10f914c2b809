"""Addresses that somebody entered for a service, such as the API server's."""

import itertools
from collections.abc import Iterable

from flowverdict_enricher.objects import Service

__all__ = ["EnteredAddresses"]

_NONE: frozenset[bytes] = frozenset()


class EnteredAddresses:
    """Which service each address stands for that is entered in a service or its endpoint slices.

    One that a pod or a node has is theirs, as is a service's own. If several services have an
    address, it is that of the first by name, so that the choice is stable.
    """

    def __init__(self) -> None:
        self._of_object: dict[str, tuple[Service, frozenset[bytes]]] = {}  # by uid
        self._of_service: dict[Service, set[str]] = {}  # uids of it and its slices
        self._entries: dict[bytes, set[tuple[Service, str]]] = {}  # services and objects
        self._taken: set[bytes] = set()  # those that belong to a pod, a node or another service

    def of(self, service: Service) -> list[bytes]:
        """The addresses that stand for a service, in order."""
        entered_in = (self._of_object[uid][1] for uid in self._of_service.get(service, ()))
        entered = set(itertools.chain.from_iterable(entered_in)) - self._taken
        return sorted(each for each in entered if min(self._entries[each])[0] == service)

    def enter(self, service: Service, uid: str, addresses: frozenset[bytes]) -> set[Service]:
        """Replace the addresses in an object; returns the services that may have others now."""
        _, before = self._of_object.get(uid, (service, _NONE))
        concerned = self._services(before)
        self._leave(uid)
        if addresses:
            self._of_object[uid] = service, addresses
            self._of_service.setdefault(service, set()).add(uid)
            for each in addresses:
                self._entries.setdefault(each, set()).add((service, uid))
        return concerned | self._services(addresses)

    def take(self, addresses: Iterable[bytes]) -> set[Service]:
        """A pod, a node or a service has these; returns the services that have others now."""
        taken = {each for each in addresses if each in self._entries} - self._taken
        self._taken |= taken
        return self._services(taken)

    def _leave(self, uid: str) -> None:
        service, addresses = self._of_object.pop(uid, (("", ""), _NONE))
        for each in addresses:
            self._entries[each].discard((service, uid))
            if not self._entries[each]:
                del self._entries[each]
                self._taken.discard(each)
        if addresses:
            self._of_service[service].discard(uid)
            if not self._of_service[service]:
                del self._of_service[service]

    def _services(self, addresses: Iterable[bytes]) -> set[Service]:
        return {service for each in addresses for service, _ in self._entries.get(each, ())}
