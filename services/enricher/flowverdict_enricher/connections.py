"""Which pod answers each connection to a service's address.

A service's address belongs to nobody: the client's node sends what goes there to one of the pods
behind it. The client's end of a connection shows the service's address, the server's end the pod's,
and both show the client's address and port. So what the server's node reports tells who answers,
in every mode of kube-proxy and whatever replaces it, unless the client's address is translated,
too. Then, and as long as nobody has answered, the service's address stays as it is.

Every enricher reads what every node reports, though it enriches only its share: so all of them
know the same.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

import numpy as np

from flowverdict_contracts.addresses import ENDS
from flowverdict_contracts.interval_header import TOLERATED_SECONDS, IntervalHeader
from flowverdict_contracts.raw import ROLES
from flowverdict_enricher.directory import Directory
from flowverdict_enricher.objects import Service
from flowverdict_enricher.recent import Recent
from flowverdict_enricher.records import Records, are_new, ends_of, packed
from flowverdict_flows.batches import distinct_addresses

__all__ = ["Connections", "Resolved"]

_SERVER = ROLES.index("server")
_ANSWER = np.dtype([("address", "V16"), ("port", "<u2"), ("seen_ns", ">i8"), ("opened_ns", ">i8")])
"""Who answered, the end of the interval in which that was reported last, and of that in which the
connection was opened, 0 if that was not seen. Big-endian, so that bytes compare like the times.
"""
_WHO, _SEEN, _OPENED = slice(0, 18), slice(18, 26), slice(26, 34)
_ADDRESS_BYTES = 16
_MOST_ANSWERS = 4

_MOST = 100_000
"""Connections: with as many older ones, about 50 MB."""

_TOLERATED_NS = TOLERATED_SECONDS * 1_000_000_000


@dataclass(frozen=True, slots=True)
class Resolved:
    """Records in which pods stand in the place of their services' addresses.

    Attributes:
        records: the same flows, in the same order.
        services: for each end ("src", "dst"), the rows in which a pod does, and the services.
        unknown: how many rows still have a service's address at one end.
        missing: whether a node that has not reported yet may tell more.
    """

    records: Records
    services: dict[str, dict[int, Service]]
    unknown: int
    missing: bool


class Connections:
    """Who answers connections, as learnt from the servers' ends of them."""

    def __init__(self, directory: Directory) -> None:
        self._directory = directory
        # By the client's end, who answered: `_ANSWER`s, the latest first.
        self._answers = Recent[bytes, bytes](_MOST)
        self._answered: set[Service] = set()

    def learn(self, header: IntervalHeader, records: Records) -> None:
        """Learn from what a node reports."""
        self._answers.forget()
        self._learn_calls(records, _time(header.start_ns - _TOLERATED_NS))
        self._learn_answers(records, header.end_ns)

    def resolve(self, header: IntervalHeader, records: Records) -> Resolved:
        """A node's records with the pods that answer in the place of their services."""
        unknown, missing, resolved = 0, False, records
        services: dict[str, dict[int, Service]] = {end: {} for end in ENDS}
        within = _time(header.start_ns - _TOLERATED_NS), _time(header.end_ns + _TOLERATED_NS)
        for end, other in (ENDS, ENDS[::-1]):
            answers: list[bytes] = []
            for row, service, client, is_new in self._calls(records, end, other):
                answer = self._answer(client, service, within, is_new)
                if answer is not None:
                    services[end][row] = service
                    answers.append(answer)
                    self._answered.add(service)
                    continue
                unknown += 1
                if records["segments_received"][row]:
                    known = service in self._answered or self._directory.backends.has_pods(service)
                    missing = missing or known
            if answers:
                resolved = resolved.copy() if resolved is records else resolved
                rows, found = list(services[end]), np.frombuffer(b"".join(answers), _ANSWER)
                resolved[end][rows] = found["address"]
                resolved[f"{end}_port"][rows] = found["port"]
        return Resolved(resolved, services, unknown, missing)

    def _answer(
        self, client: bytes, service: Service, within: tuple[bytes, bytes], is_new: bool
    ) -> bytes | None:
        """The latest answer of a pod behind the service: to what is new, only if it was opened
        about then; to what goes on, not if it was opened later.
        """
        for each in _split(self._answers.get(client, b"")):
            if service in self._services_at(each) and (
                within[0] < each[_OPENED] < within[1] or (not is_new and each[_OPENED] <= within[0])
            ):
                return each
        return None

    def _services_at(self, answer: bytes) -> frozenset[Service]:
        """The services that whoever answers is behind."""
        at_address = self._directory.backends.services_at(answer[:_ADDRESS_BYTES])
        return at_address | self._directory.host_pods.services_at(answer[_WHO])

    def _learn_answers(self, records: Records, end_ns: int) -> None:
        # A client whose connections are one flow has no port.
        rows = np.flatnonzero((records["role"] == _SERVER) & (records["dst_port"] != 0))
        codes, addresses = distinct_addresses(records["src"][rows])
        behind = [bool(self._directory.backends.services_at(each)) for each in addresses]
        is_behind = np.array(behind, np.bool_)[codes]
        on_nodes = np.flatnonzero(records["owner"][rows])
        for at, who in zip(on_nodes, ends_of(records, rows[on_nodes], "src"), strict=True):
            is_behind[at] |= bool(self._directory.host_pods.services_at(who))
        rows = rows[is_behind]
        answers = np.empty(len(rows), _ANSWER)
        answers["address"], answers["port"] = records["src"][rows], records["src_port"][rows]
        answers["seen_ns"] = end_ns
        answers["opened_ns"] = np.where(records["opens"][rows] > 0, end_ns, 0)
        for client, answer in zip(ends_of(records, rows, "dst"), packed(answers), strict=True):
            known = self._answers.get(client, b"")
            if not known:
                self._answers[client] = answer
            elif known[_WHO] == answer[_WHO] and len(known) == len(answer):  # as nearly always
                self._answers[client] = _merged(answer, known)
            else:
                same = [each for each in _split(known) if each[_WHO] == answer[_WHO]]
                others = [each for each in _split(known) if each[_WHO] != answer[_WHO]]
                ordered = sorted((reduce(_merged, same, answer), *others), key=_seen, reverse=True)
                self._answers[client] = b"".join(ordered[:_MOST_ANSWERS])

    def _learn_calls(self, records: Records, before: bytes) -> None:
        """Who answers what still goes on is remembered; who answered earlier connections, with the
        ports of those that are new, is forgotten.
        """
        for _, _, client, is_new in self._calls(records, *ENDS[::-1]):
            if is_new:
                known = self._answers.get(client, b"")
                later = (each for each in _split(known) if each[_OPENED] > before)
                if known:
                    self._answers[client] = b"".join(later)
            else:
                self._answers.keep(client)

    def _calls(
        self, records: Records, end: str, other: str
    ) -> Iterable[tuple[int, Service, bytes, bool]]:
        """The rows with a service's address at one end: which row and service, the client's address
        and port at the other end, and whether it is about a connection that is opened just then.
        """
        codes, addresses = distinct_addresses(records[end])
        services = {
            code: service
            for code, address in enumerate(addresses)
            if (service := self._directory.service_at(address)) is not None
        }
        if not services:
            return ()
        is_service = np.zeros(len(addresses), np.bool_)
        is_service[list(services)] = True
        # DNS lookups have no port, and no other end that is counted, nor have folded connections.
        rows = np.flatnonzero(is_service[codes] & (records[f"{other}_port"] != 0))
        called = [services[code] for code in codes[rows].tolist()]
        is_new = are_new(records[rows]).tolist()
        return zip(rows.tolist(), called, ends_of(records, rows, other), is_new, strict=True)


def _split(answers: bytes) -> Sequence[bytes]:
    size = _ANSWER.itemsize
    if len(answers) == size:
        return (answers,)
    return [answers[at : at + size] for at in range(0, len(answers), size)]


def _seen(answer: bytes) -> bytes:
    return answer[_SEEN]


def _merged(one: bytes, other: bytes) -> bytes:
    """What is known about one pod's answers, in whatever order it was reported."""
    return one[_WHO] + max(one[_SEEN], other[_SEEN]) + max(one[_OPENED], other[_OPENED])


def _time(ns: int) -> bytes:
    return max(ns, 0).to_bytes(8, "big")
