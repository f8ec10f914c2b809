"""Who had an address, and when.

Addresses in a cluster change hands: a pod ends and another gets its address seconds later. A flow
must be named as of its own interval, even if it is read minutes later.
"""

import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace
from itertools import repeat

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from flowverdict_contracts import addresses
from flowverdict_contracts.enriched import Names
from flowverdict_enricher.backends import Backends
from flowverdict_enricher.host_pods import HostPods
from flowverdict_enricher.objects import Network
from flowverdict_enricher.pod_networks import PodNetworks
from flowverdict_enricher.tenures import KEEP_NS, STILL, Tenure, Tenures, begun, ended, holder_in
from flowverdict_flows.batches import distinct_addresses
from flowverdict_flows.name_table import NameTable

__all__ = ["ALWAYS", "Directory"]

Addresses = npt.NDArray[np.void]
"""Of 16 bytes each."""

ALWAYS = 0
_FEW = 8
_MOST_ROWS = 200_000
"""The table of names is begun anew beyond that, at about 60 MB."""


_HAVE_THEIRS = ("pod", "service")
_EXTERNAL, _UNKNOWN = (Names(kind, name_confidence="none") for kind in ("external", "unknown"))
_DELETED = replace(_UNKNOWN, condition="gone")


class Directory:
    """Addresses and their owners over time. Several threads may use it, but one calls `columns`.

    Attributes:
        backends: the pods behind each service.
        host_pods: the pods that have no address of their own.
    """

    def __init__(self) -> None:
        self.backends = Backends()
        self.host_pods = HostPods()
        self._pod_networks = PodNetworks()
        self._tenures: dict[bytes, Tenures] = {}
        self._addresses: dict[str, Collection[bytes]] = {}
        self._changes = threading.Lock()
        # Of addresses whose names have held since `_since_ns`: their rows in the table.
        self._settled: dict[bytes, int] = {}
        self._since_ns = np.zeros(1, np.int64)
        self._table = NameTable()

    def put(
        self, owner: str, names: Names, owned: Iterable[bytes], from_ns: int, now_ns: int
    ) -> None:
        """Record that `owner` (a unique id) has `names` and the addresses `owned` since `from_ns`.

        Addresses it had before but no longer has end at `now_ns`. If another owner had one of
        them, the owner that came later has it from then on.
        """
        wanted = tuple(dict.fromkeys(owned))
        with self._changes:
            had = frozenset(self._addresses.get(owner, ()))
            for address in had.symmetric_difference(wanted):
                self._settled.pop(address, None)
            for address in had.difference(wanted):
                self._set(address, ended(self._tenures.get(address, ()), owner, now_ns))
            for address in wanted:
                # An address added later counts from now, however old the owner is.
                since_ns = now_ns if had and address not in had else from_ns
                self._set(address, begun(self._tenures.get(address, ()), owner, names, since_ns))
            # A set of one address takes four times the memory.
            self._addresses[owner] = wanted if len(wanted) <= _FEW else frozenset(wanted)

    def rename(self, owner: str, names: Names) -> None:
        """Record that `owner` has other names, as long as it has had its addresses."""
        with self._changes:
            for address in self._addresses.get(owner, ()):
                tenures = self._tenures.get(address, ())
                self._set(
                    address,
                    tuple(
                        replace(each, names=names) if each.owner == owner else each
                        for each in tenures
                    ),
                )

    def end(self, owner: str, at_ns: int) -> None:
        """Record that `owner` gave up its addresses at `at_ns`; no error if it is unknown."""
        with self._changes:
            for address in self._addresses.pop(owner, ()):
                self._settled.pop(address, None)
                tenures = ended(self._tenures.get(address, ()), owner, at_ns)
                for other in self._holders(address)[-1:]:  # it still has what both had
                    tenures = begun(tenures, other.owner, other.names, at_ns)
                self._set(address, tenures)

    def keep_only(self, owners: Iterable[str], now_ns: int) -> None:
        """End every owner that is not among `owners`, as after a fresh list."""
        for owner in set(self._addresses) - set(owners):
            self.end(owner, now_ns)

    def forget(self, now_ns: int) -> None:
        """Drop tenures that ended longer ago than flows are kept."""
        with self._changes:
            for address, tenures in list(self._tenures.items()):
                kept = tuple(each for each in tenures if each.until_ns > now_ns - KEEP_NS)
                if kept:
                    self._set(address, kept)
                else:
                    del self._tenures[address]
            self.backends.forget(self._tenures)
            self.host_pods.forget(now_ns)

    def set_pod_networks(self, node: str, networks: Iterable[Network]) -> None:
        """Set the networks that the pods of a node get their addresses from."""
        with self._changes:
            if self._pod_networks.put(node, networks) and len(self._table):
                self._begin_table()

    def __len__(self) -> int:
        """The number of owners that currently have an address."""
        return len(self._addresses)

    def at(self, address: bytes, start_ns: int, end_ns: int, used_on: str = "") -> Names:
        """Who had `address` in the interval; for the longest part of it if it changed hands.

        If several pods have it at once, the answer is only likely. An address from a pod network
        that nobody has, nor had as far as is known, belonged to a deleted pod, unless it is in use.

        Args:
            address: 16 bytes.
            start_ns, end_ns: the interval, UTC nanoseconds.
            used_on: the node that reports it as its own end of a flow.
        """
        return self._find(address, start_ns, end_ns, used_on)[0]

    def columns(
        self,
        src: Addresses,
        dst: Addresses,
        interval_ns: tuple[int, int],
        node: str,
        host_pods: Mapping[int, Names],
    ) -> dict[str, pa.DictionaryArray]:
        """The names of flows' ends, as columns of an enriched batch.

        Args:
            src: the local ends' addresses.
            dst: the remote ends' addresses.
            interval_ns: start and end, UTC nanoseconds.
            node: that reports the flows.
            host_pods: the pods at some ends, by position in `src` and then `dst`, if the address is
                no pod's or service's own. An address otherwise has the same names in all rows.
        """
        codes, addresses = distinct_addresses(np.concatenate([src, dst]))
        local = {addresses[code] for code in np.unique(codes[: len(src)]).tolist()}
        with self._changes:
            if self._table.size > _MOST_ROWS:
                self._begin_table()
            table = self._table
            rows = np.fromiter(
                map(self._settled.get, addresses, repeat(-1)), np.int32, len(addresses)
            )
            passing: dict[int, Names] = {}
            for at in np.flatnonzero((rows < 0) | (self._since_ns[rows] > interval_ns[0])).tolist():
                address = addresses[at]
                names, since_ns = self._find(
                    address, *interval_ns, node if address in local else ""
                )
                if since_ns is None or address in self._settled:
                    passing[at] = names
                else:
                    rows[at] = self._settle(address, names, since_ns)
            of_pods = {
                end: names
                for end, names in host_pods.items()
                if self._find(addresses[codes[end]], *interval_ns, node)[0].kind not in _HAVE_THEIRS
            }
        kept = len(table)
        for at, names in passing.items():
            rows[at] = table.add(addresses[at], names)
        of_ends = rows[codes]
        row_of: dict[tuple[int, Names], int] = {}
        for end, names in of_pods.items():
            key = int(codes[end]), names
            if key not in row_of:
                row_of[key] = table.add(addresses[key[0]], names)
            of_ends[end] = row_of[key]
        columns = table.columns(of_ends[: len(src)], of_ends[len(src) :])
        table.truncate(kept)
        return columns

    def service_at(self, address: bytes) -> tuple[str, str] | None:
        """Namespace and name of the service that has `address`, if one does."""
        tenures = self._tenures.get(address, ())
        if not tenures or tenures[-1].names.kind != "service":
            return None
        return tenures[-1].names.namespace, tenures[-1].names.service

    def _find(
        self, address: bytes, start_ns: int, end_ns: int, used_on: str
    ) -> tuple[Names, int | None]:
        """As `at`; and since when that is so, until the address changes. None if it is so only for
        this interval.
        """
        tenures = self._tenures.get(address, ())
        twins = self._twins(address) if len(tenures) > 1 else []
        if len(pods := [each for each in twins if each.from_ns < end_ns]) > 1:
            here = (each for each in pods if used_on and each.names.node == used_on)
            return replace(next(here, pods[-1]).names, name_confidence="likely"), None
        names, tenure = holder_in(tenures, start_ns, end_ns)
        if names is not None:
            lasts = tenure is not None and tenure.until_ns == STILL and not twins
            return names, tenure.from_ns if tenure and lasts else None
        if address in self._pod_networks:
            return _UNKNOWN if used_on else _DELETED, None
        is_external = addresses.parse(address).is_global
        return _EXTERNAL if is_external else _UNKNOWN, None if tenures else ALWAYS

    def _twins(self, address: bytes) -> list[Tenure]:
        """The latest tenure of each pod that has the address, if they are on several nodes.

        On one node, the newer pod shows that the older one is gone, though nobody has reported it.
        """
        pods = [
            each for each in self._holders(address) if each.names.kind == "pod" and each.names.node
        ]
        return pods if len({each.names.node for each in pods}) > 1 else []

    def _holders(self, address: bytes) -> list[Tenure]:
        """The latest tenure of each owner whose address it is, as far as has been reported."""
        latest = {each.owner: each for each in self._tenures.get(address, ())}
        return [each for owner, each in latest.items() if address in self._addresses.get(owner, ())]

    def _set(self, address: bytes, tenures: Tenures) -> None:
        if self._tenures.get(address) != tenures:
            self._tenures[address] = tenures
            self._settled.pop(address, None)

    def _settle(self, address: bytes, names: Names, since_ns: int) -> int:
        row = self._table.add(address, names)
        if row == len(self._since_ns):
            self._since_ns = np.concatenate([self._since_ns, np.zeros_like(self._since_ns)])
        self._since_ns[row] = since_ns
        self._settled[address] = row
        return row

    def _begin_table(self) -> None:
        self._settled, self._table = {}, NameTable()
