"""Connections that never leave their pod, though they are to somewhere else.

A sidecar of a service mesh has its pod's connections redirected to itself. At the client's end they
are to another pod or a service; the end that answers is in the same network namespace, with a
loopback address. What the sidecar opens then goes where they were to go. They say nothing about
the network, and counted as well they would hide half of a pod's losses.
"""

from collections import OrderedDict

import numpy as np

from flowverdict_contracts.addresses import is_packed_loopback, to_bytes
from flowverdict_contracts.interval_header import TOLERATED_SECONDS, IntervalHeader
from flowverdict_contracts.raw import ROLES
from flowverdict_enricher.records import Records, Rows, ends_of
from flowverdict_flows.batches import distinct_addresses

__all__ = ["LocalHops"]

_CLIENT, _SERVER = ROLES.index("client"), ROLES.index("server")
_LOOPBACK = np.void(to_bytes("127.0.0.1"))
_MOST = 100_000
_TOLERATED_NS = TOLERATED_SECONDS * 1_000_000_000


class LocalHops:
    """Which connections are answered in their own pod, as learnt from the ends that answer."""

    def __init__(self) -> None:
        # By the client's end and its network namespace, the end of the interval in which the
        # answering end was reported.
        self._clients: OrderedDict[tuple[bytes, int], int] = OrderedDict()

    def learn(self, header: IntervalHeader, records: Records) -> None:
        """Learn from what a node reports."""
        # A client whose connections are one flow has no port.
        servers = np.flatnonzero((records["role"] == _SERVER) & (records["dst_port"] != 0))
        rows = _over_loopback(records, servers, "src")
        answers = np.setdiff1d(rows, _over_loopback(records, rows, "dst"))
        for client in _clients(records, answers, "dst"):
            self._clients[client] = header.end_ns
            self._clients.move_to_end(client)
        while len(self._clients) > _MOST:
            self._clients.popitem(last=False)

    def marked(self, header: IntervalHeader, records: Records) -> Records:
        """The same records; those of such connections go to a loopback address.

        The port may be another connection's later, so only what was reported about then counts.
        """
        if not self._clients:
            return records
        rows = np.flatnonzero(records["role"] == _CLIENT)
        first, last = header.start_ns - _TOLERATED_NS, header.end_ns + _TOLERATED_NS
        known = [
            first <= self._clients.get(each, 0) <= last for each in _clients(records, rows, "src")
        ]
        local = rows[np.array(known, np.bool_)]
        if not local.size:
            return records
        marked = records.copy()
        marked["dst"][local] = _LOOPBACK
        return marked


def _over_loopback(records: Records, rows: Rows, end: str) -> Rows:
    """Those of the rows whose `end` has a loopback address."""
    codes, addresses = distinct_addresses(records[end][rows])
    loopback = np.array([is_packed_loopback(each) for each in addresses], np.bool_)
    return rows[loopback[codes]]


def _clients(records: Records, rows: Rows, end: str) -> list[tuple[bytes, int]]:
    """The clients' ends of the rows, which are at `end`, and their network namespaces."""
    return list(zip(ends_of(records, rows, end), records["netns"][rows].tolist(), strict=True))
