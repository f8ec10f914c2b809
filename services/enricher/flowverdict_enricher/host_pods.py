"""Pods on their node's network: which of them a socket with the node's address belongs to.

The collector on the node knows it by the socket's control group (`raw.FIELDS`, `owner`). At the
other end of the connection, it is known from that, by address and port. As long as nobody has told,
the address stays the node's, and all pods on its network are candidates.
"""

import threading
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace

import numpy as np

from flowverdict_contracts.addresses import ENDS, is_packed_loopback
from flowverdict_contracts.enriched import Names
from flowverdict_contracts.interval_header import TOLERATED_SECONDS, IntervalHeader
from flowverdict_contracts.raw import ROLES
from flowverdict_contracts.raw_records import RawMessage
from flowverdict_enricher.objects import Service
from flowverdict_enricher.recent import Recent
from flowverdict_enricher.records import Records, Rows, are_new, ends_of
from flowverdict_enricher.tenures import KEEP_NS, STILL
from flowverdict_flows.batches import distinct_addresses

__all__ = ["HostPods", "Hosted"]

_SERVED_BY = {"src": ROLES.index("server"), "dst": ROLES.index("client")}
"""The role of a row at whose end the server is."""
_OTHER = {"src": "dst", "dst": "src"}
_TOLERATED_NS = TOLERATED_SECONDS * 1_000_000_000
_MOST_SOCKETS, _MOST_ADDRESSES = 100_000, 10_000
_ADDRESS_BYTES = 16


@dataclass(frozen=True, slots=True)
class _Pod:
    names: Names
    services: frozenset[Service]
    until_ns: int = STILL


@dataclass(frozen=True, slots=True)
class Hosted:
    """The ends of a node's records that belong to pods on a node's network.

    Attributes:
        names: by position: that of the record for its `src`, and for its `dst` that and the number
            of records.
        missing: whether a node that has not reported yet may tell more.
    """

    names: dict[int, Names]
    missing: bool


class HostPods:
    """Pods by the uid of their control group, and their sockets. Several threads may add pods."""

    def __init__(self) -> None:
        self._pods: dict[str, _Pod] = {}
        self._changes = threading.Lock()
        # The address and port of a server, or both ends of a client's connection, to the pod, and
        # the end of the interval in which that was reported.
        self._sockets = Recent[bytes, tuple[str, int]](_MOST_SOCKETS)
        self._nodes = Recent[bytes, str](_MOST_ADDRESSES)  # with such pods, by address

    def put(self, uid: str, names: Names, services: Iterable[Service] = ()) -> None:
        """Add a pod, or a container, that is behind these services; or update it."""
        with self._changes:
            self._pods[uid] = _Pod(names, frozenset(services))

    def end(self, uid: str, at_ns: int) -> None:
        """A pod is gone; no error if it is unknown."""
        with self._changes:
            if (pod := self._pods.get(uid)) is not None:
                gone = replace(pod.names, condition="gone")
                self._pods[uid] = replace(pod, names=gone, until_ns=at_ns)

    def keep_only(self, uids: Iterable[str], now_ns: int) -> None:
        """End every pod that is not among `uids`."""
        for uid in set(self._pods) - set(uids):
            if self._pods[uid].until_ns == STILL:
                self.end(uid, now_ns)

    def forget(self, now_ns: int) -> None:
        """Drop pods that ended longer ago than flows are kept."""
        with self._changes:
            for uid, pod in list(self._pods.items()):
                if pod.until_ns <= now_ns - KEEP_NS:
                    del self._pods[uid]

    def services_at(self, end: bytes) -> frozenset[Service]:
        """The services that the pod with a socket at this address and port is behind."""
        pod = self._pods.get(self._sockets.get(end, ("", 0))[0])
        return pod.services if pod else frozenset()

    def learn(self, raw: RawMessage) -> None:
        """Learn from what a node reports."""
        self._sockets.forget()
        self._nodes.forget()
        rows = np.flatnonzero(raw.records["owner"])
        owners, ports = (raw.records[name][rows].tolist() for name in ("owner", "src_port"))
        sockets = _sockets_of(raw.records, rows, "src")
        for socket, port, owner in zip(sockets, ports, owners, strict=True):
            address = socket[:_ADDRESS_BYTES]
            uid = raw.owners.get(owner, "")
            if is_packed_loopback(address):
                continue
            if uid in self._pods:
                self._nodes[address] = raw.header.node
            # The ports of a client may be folded. A socket may be another program's now.
            if port and (uid in self._pods or socket in self._sockets):
                self._sockets[socket] = uid, raw.header.end_ns

    def find(self, header: IntervalHeader, records: Records, owners: Mapping[int, str]) -> Hosted:
        """Which ends of a node's records belong to such pods; `owners` has uids by `owner`."""
        names, missing = dict[int, Names](), False
        for end in ENDS:
            codes, addresses = distinct_addresses(records[end])
            nodes = [self._nodes.get(each, "") for each in addresses]
            if not any(nodes):
                continue
            rows = np.flatnonzero(np.array([bool(each) for each in nodes], np.bool_)[codes])
            found, first = records[rows], len(records) if end == "dst" else 0
            serves = (found["role"] == _SERVED_BY[end]).tolist()
            for row, socket, serving, new in zip(
                rows.tolist(), _sockets_of(records, rows, end), serves, are_new(found).tolist(),
                strict=True,
            ):  # fmt: skip
                owner = int(records["owner"][row]) if end == "src" else 0
                uid = (
                    owners.get(owner, "")
                    if owner
                    else self._uid_at(socket, header, lasts=serving or not new)
                )
                pod = self._pod_of(uid, header.start_ns)
                if pod is not None:
                    names[first + row] = pod.names
                    self._nodes.keep(socket[:_ADDRESS_BYTES])
                elif new and nodes[codes[row]] != header.node:
                    missing = missing or _is_answered(records[row])
        return Hosted(names, missing)

    def _uid_at(self, socket: bytes, header: IntervalHeader, *, lasts: bool) -> str:
        """Who has this socket: what serves has its port for as long as it runs, and a client its
        connection; another's new one may have ports that were this one's.
        """
        uid, seen_ns = self._sockets.get(socket, ("", 0))
        first, last = header.start_ns - _TOLERATED_NS, header.end_ns + _TOLERATED_NS
        if not (lasts or first < seen_ns < last):
            return ""
        self._sockets.keep(socket)
        return uid

    def _pod_of(self, uid: str, start_ns: int) -> _Pod | None:
        pod = self._pods.get(uid)
        return pod if pod is not None and pod.until_ns > start_ns else None


def _sockets_of(records: Records, rows: Rows, end: str) -> list[bytes]:
    """For each row, the address and port of the server at its `end`, or of a client both ends: two
    of them may have one port, towards different servers.
    """
    ends, others = (ends_of(records, rows, each) for each in (end, _OTHER[end]))
    serves = (records["role"][rows] == _SERVED_BY[end]).tolist()
    return [
        own if serving else own + other
        for own, other, serving in zip(ends, others, serves, strict=True)
    ]


def _is_answered(record: np.void) -> bool:
    """Whether somebody has answered a connection, and both its ports are known."""
    needed = ("src_port", "dst_port", "segments_received")
    return all(record[name] for name in needed)
