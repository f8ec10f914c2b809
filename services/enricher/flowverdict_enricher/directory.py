"""Who had an address, and when.

Addresses in a cluster change hands: a pod ends and another gets its address seconds later. A flow
must be named as of its own interval, even if it is read minutes later.
"""

import threading
from collections.abc import Iterable
from dataclasses import dataclass, replace

from flowverdict_contracts import addresses
from flowverdict_contracts.enriched import Names
from flowverdict_enricher.backends import Backends
from flowverdict_enricher.pod_networks import PodNetworks

__all__ = ["ALWAYS", "Directory", "unowned"]

ALWAYS = 0
STILL = (1 << 63) - 1
_SECOND = 1_000_000_000
GRACE_NS = 60 * _SECOND
KEEP_NS = 2 * 3600 * _SECOND


@dataclass(slots=True)
class _Tenure:
    """How long one owner had an address. The tenures of one address never overlap.

    Pod `a` is deleted, and later pod `b` is given its address:

        tenures      |------- a -------|              |------- b ------->
        intervals         |--|      |-----|    |--|      |--|
        named              a           a        b         b
        confidence      certain     likely    likely   certain

    - An interval inside a tenure is certain. One that reaches beyond its end, or spans two, has the
      owner of its longest part and is only likely.
    - Between tenures it is the nearest owner: the one before, which is gone, or the one after if it
      begins within 60 s, since the API reports a new pod late.
    - Updates can arrive out of order. If `a` is reported only after `b` has begun, its tenure
      ends where that of `b` begins; if `b` has already ended as well, `a` begins again after it.
    """

    owner: str
    names: Names
    from_ns: int
    until_ns: int


def unowned(packed: bytes) -> Names:
    """The names of an address that belongs to nothing in the cluster."""
    kind = "external" if addresses.parse(packed).is_global else "unknown"
    return Names(kind, name_confidence="none")


def _likely(tenure: _Tenure, end_ns: int) -> Names:
    ended = tenure.until_ns < end_ns
    condition = "gone" if ended else tenure.names.condition
    return replace(tenure.names, name_confidence="likely", condition=condition)


class Directory:
    """Addresses and their owners over time. One thread may change it while others read.

    Attributes:
        pod_networks: the networks that pods get their addresses from.
        backends: the pods behind each service.
    """

    def __init__(self) -> None:
        self.pod_networks = PodNetworks()
        self.backends = Backends()
        self._tenures: dict[bytes, tuple[_Tenure, ...]] = {}
        self._addresses: dict[str, frozenset[bytes]] = {}
        self._changes = threading.Lock()

    def put(
        self, owner: str, names: Names, owned: Iterable[bytes], from_ns: int, now_ns: int
    ) -> None:
        """Record that `owner` (a unique id) has `names` and the addresses `owned` since `from_ns`.

        Addresses it had before but no longer has end at `now_ns`. If another owner had one of
        them, the owner that came later has it from then on.
        """
        wanted = frozenset(owned)
        with self._changes:
            had = self._addresses.get(owner, frozenset())
            for address in had - wanted:
                self._end(owner, address, now_ns)
            for address in wanted:
                # An address added later counts from now, however old the owner is.
                moved = bool(had) and address not in had
                self._begin(owner, names, address, now_ns if moved else from_ns)
            self._addresses[owner] = wanted

    def end(self, owner: str, at_ns: int) -> None:
        """Record that `owner` gave up its addresses at `at_ns`; no error if it is unknown."""
        with self._changes:
            for address in self._addresses.pop(owner, frozenset()):
                self._end(owner, address, at_ns)
                for other in self._holders(address)[-1:]:  # it still has what both had
                    self._begin(other.owner, other.names, address, at_ns)

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
                    self._tenures[address] = kept
                else:
                    del self._tenures[address]
            self.backends.forget(self._tenures)

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
        tenures = self._tenures.get(address, ())
        if len(tenures) > 1 and (twins := self._twins(address, end_ns)):
            here = (each for each in twins if used_on and each.names.node == used_on)
            return replace(next(here, twins[-1]).names, name_confidence="likely")
        best, longest = None, -1
        for tenure in tenures:
            overlap = min(end_ns, tenure.until_ns) - max(start_ns, tenure.from_ns)
            if overlap > longest:
                best, longest = tenure, overlap
        if best is not None:
            whole = best.from_ns <= start_ns and end_ns <= best.until_ns
            return best.names if whole else _likely(best, end_ns)
        found = self._nearest(address, start_ns, end_ns)
        if found is None and not used_on and address in self.pod_networks:
            return Names("unknown", name_confidence="none", condition="gone")
        return found or unowned(address)

    def service_at(self, address: bytes) -> tuple[str, str] | None:
        """Namespace and name of the service that has `address`, if one does."""
        tenures = self._tenures.get(address, ())
        if not tenures or tenures[-1].names.kind != "service":
            return None
        return tenures[-1].names.namespace, tenures[-1].names.service

    def _twins(self, address: bytes, end_ns: int) -> list[_Tenure]:
        """The latest tenure of each pod that has the address, if they are on several nodes.

        On one node, the newer pod shows that the older one is gone, though nobody has reported it.
        """
        pods = [
            each
            for each in self._holders(address)
            if each.names.kind == "pod" and each.names.node and each.from_ns < end_ns
        ]
        return pods if len({each.names.node for each in pods}) > 1 else []

    def _holders(self, address: bytes) -> list[_Tenure]:
        """The latest tenure of each owner whose address it is, as far as has been reported."""
        latest = {each.owner: each for each in self._tenures.get(address, ())}
        return [each for owner, each in latest.items() if address in self._addresses.get(owner, ())]

    def _nearest(self, address: bytes, start_ns: int, end_ns: int) -> Names | None:
        """The next owner, if it begins soon: the API reports it late. Else the last one, for as
        long as it is remembered: others may dial its address long after its end.
        """
        best, nearest = None, KEEP_NS
        for tenure in self._tenures.get(address, ()):
            early, late = tenure.from_ns - end_ns, start_ns - tenure.until_ns
            distance = late if early <= 0 else early if early <= GRACE_NS else KEEP_NS + 1
            if distance <= nearest:
                best, nearest = tenure, distance
        return _likely(best, end_ns) if best else None

    def _begin(self, owner: str, names: Names, address: bytes, from_ns: int) -> None:
        kept: list[_Tenure] = []
        until_ns = STILL
        from_ns = max(from_ns, self._free_since(owner, address, from_ns))
        for tenure in self._tenures.get(address, ()):
            if tenure.owner == owner and tenure.until_ns >= from_ns:
                from_ns = min(from_ns, tenure.from_ns)
                continue
            if tenure.owner != owner and tenure.from_ns > from_ns:
                # A late update about an earlier owner: the later owner keeps the address.
                until_ns = min(until_ns, tenure.from_ns)
                kept.append(tenure)
                continue
            overlaps = tenure.until_ns > from_ns and tenure.owner != owner
            ends_ns = max(from_ns, tenure.from_ns) if overlaps else tenure.until_ns
            kept.append(replace(tenure, until_ns=ends_ns))
        self._tenures[address] = (*kept, _Tenure(owner, names, from_ns, until_ns))

    def _free_since(self, owner: str, address: bytes, from_ns: int) -> int:
        """When `owner` can have got `address`: not before a younger owner, now gone, gave it up."""
        tenures = self._tenures.get(address, ())
        mine = [each.from_ns for each in tenures if each.owner == owner and each.until_ns == STILL]
        gone = [
            each.until_ns
            for each in tenures
            if each.owner != owner and from_ns < each.from_ns and each.until_ns < STILL
        ]
        return max(mine or gone, default=from_ns)

    def _end(self, owner: str, address: bytes, at_ns: int) -> None:
        self._tenures[address] = tuple(
            replace(each, until_ns=max(at_ns, each.from_ns))
            if each.owner == owner and each.until_ns > at_ns
            else each
            for each in self._tenures.get(address, ())
        )
