"""Which network namespaces are counted.

On most machines all of them: one kernel is one node. Where several nodes share a kernel (kind,
k3d), a collector counts the namespaces of its own node; namespaces.bpf.c finds out which those are.
"""

import ctypes
import errno
import logging
from collections.abc import Callable

from flowverdict_collector.hooks import SWITCH
from flowverdict_collector.kernel import read_value
from flowverdict_collector.loader import Loaded
from flowverdict_collector.source import FIRST_PROCESS_NAMESPACE, OF_NODE, OWNERS_MAP, PROCESS_MAP
from flowverdict_contracts.raw import FIELDS, RECORD_BYTES

__all__ = ["Namespaces"]

log = logging.getLogger(__name__)

_OF_ANOTHER, _OWNER_BITS = 2, 3
_OFFSET = next(field.offset for field in FIELDS if field.name == "netns")


class Namespaces:
    """Leaves out the records of network namespaces that are not counted here.

    Args:
        loaded: what runs in the kernel.
        only: inode numbers of the namespaces to count; empty to count those of this node.
    """

    def __init__(self, loaded: Loaded, only: frozenset[int] = frozenset()) -> None:
        self._only = only
        self._loaded = loaded
        self._announced = False

    def counted(self, records: bytes, record_bytes: int = RECORD_BYTES) -> bytes:
        """Those of the packed `records` that are counted here."""
        if self._only:
            # Of some packets without a socket, the namespace is not known.
            return _keep(records, record_bytes, lambda inode: inode in self._only or not inode)
        if SWITCH not in self._loaded.attached:
            return records
        node = self._node()
        if node == FIRST_PROCESS_NAMESPACE:  # the parent of the collector's: a kernel of its own
            self._loaded.detach(SWITCH)
            return records
        if node and not self._announced:
            log.info("other nodes use this kernel, too: counting only this node's namespaces")
            self._announced = True
        return _keep(records, record_bytes, lambda inode: not self._belongs_to_another(inode))

    def _node(self) -> int:
        slot = ctypes.c_uint32(OF_NODE)
        return int(read_value(self._loaded.maps[PROCESS_MAP], slot, ctypes.c_uint32).value)

    def _belongs_to_another(self, inode: int) -> bool:
        try:
            owners = self._loaded.maps[OWNERS_MAP]
            found = read_value(owners, ctypes.c_uint32(inode), ctypes.c_uint64).value
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False  # nothing has run in it yet; better counted twice than not at all
        return bool(found & _OWNER_BITS == _OF_ANOTHER)


def _keep(records: bytes, record_bytes: int, is_counted: Callable[[int], bool]) -> bytes:
    known: dict[bytes, bool] = {}
    kept = []
    for at in range(0, len(records), record_bytes):
        netns = records[at + _OFFSET : at + _OFFSET + 4]
        if netns not in known:
            known[netns] = is_counted(int.from_bytes(netns, "little"))
        if known[netns]:
            kept.append(records[at : at + record_bytes])
    return b"".join(kept)
