"""Connections that never leave their pod, though they are to somewhere else.

A sidecar of a service mesh has its pod's connections redirected to itself. At the client's end they
are to another pod or a service; the end that answers is in the same network namespace, with a
loopback address. What the sidecar opens then goes where they were to go. They say nothing about
the network, and counted as well they would hide half of a pod's losses.
"""

from collections import OrderedDict

import numpy as np
import numpy.typing as npt

from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.interval_header import TOLERATED_SECONDS, IntervalHeader
from flowverdict_contracts.raw import ROLES

__all__ = ["LocalHops"]

Records = npt.NDArray[np.void]

_CLIENT, _SERVER = ROLES.index("client"), ROLES.index("server")
_LOOPBACK = np.void(to_bytes("127.0.0.1"))
_IPV4_LOOPBACK = to_bytes("127.0.0.1")[:13]  # 127.0.0.0/8, mapped
_IPV6_LOOPBACK = to_bytes("::1")
_END = np.dtype([("address", "V16"), ("port", "<u2"), ("netns", "<u4")])
_MOST = 100_000
_TOLERATED_NS = TOLERATED_SECONDS * 1_000_000_000


class LocalHops:
    """Which connections are answered in their own pod, as learnt from the ends that answer."""

    def __init__(self) -> None:
        # By the client's end, the end of the interval in which the answering one was reported.
        self._clients: OrderedDict[bytes, int] = OrderedDict()

    def learn(self, header: IntervalHeader, records: Records) -> None:
        """Learn from what a node reports."""
        servers = records[records["role"] == _SERVER]
        answers = servers[_is_loopback(servers["src"]) & ~_is_loopback(servers["dst"])]
        for client in _ends(answers, "dst"):
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
            first <= self._clients.get(each, 0) <= last for each in _ends(records[rows], "src")
        ]
        local = rows[np.array(known, np.bool_)]
        if not local.size:
            return records
        marked = records.copy()
        marked["dst"][local] = _LOOPBACK
        return marked


def _is_loopback(addresses: npt.NDArray[np.void]) -> npt.NDArray[np.bool_]:
    octets = np.ascontiguousarray(addresses).view(np.uint8).reshape(-1, 16)
    mapped = (octets[:, :13] == np.frombuffer(_IPV4_LOOPBACK, np.uint8)).all(axis=1)
    own = (octets == np.frombuffer(_IPV6_LOOPBACK, np.uint8)).all(axis=1)
    found: npt.NDArray[np.bool_] = mapped | own
    return found


def _ends(records: Records, end: str) -> list[bytes]:
    """Address, port and network namespace at one end."""
    found = np.empty(len(records), _END)
    found["address"], found["port"] = records[end], records[f"{end}_port"]
    found["netns"] = records["netns"]
    packed: list[bytes] = found.view(f"V{_END.itemsize}").tolist()
    return packed
