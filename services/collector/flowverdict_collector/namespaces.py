"""Which network namespaces are counted.

On most machines all of them: one kernel is one node. Where several nodes share a kernel (kind,
k3d), a collector counts the namespaces of its own node; namespaces.bpf.c finds out which those are.
"""

import ctypes
import errno
import logging
import os
from collections.abc import Callable

from flowverdict_collector.hooks import SWITCH
from flowverdict_collector.kernel import lookup
from flowverdict_collector.loader import FIRST_PROCESS_NAMESPACE, NODE_MAP, OWNERS_MAP, Loaded
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
        self._maps = loaded.maps
        self._attached = loaded.attached
        self._announced = False
        if only and SWITCH in self._attached:  # whose namespaces they are does not matter
            os.close(self._attached.pop(SWITCH))

    def counted(self, records: bytes) -> bytes:
        """Those of the packed `records` that are counted here."""
        if self._only:
            # Of some packets without a socket, the namespace is not known.
            return _keep(records, lambda inode: inode in self._only or not inode)
        if SWITCH not in self._attached:
            return records
        node = self._node()
        if node == FIRST_PROCESS_NAMESPACE:  # the parent of the collector's: a kernel of its own
            os.close(self._attached.pop(SWITCH))
            return records
        if node and not self._announced:
            log.info("other nodes use this kernel, too: counting only this node's namespaces")
            self._announced = True
        return _keep(records, lambda inode: not self._belongs_to_another(inode))

    def _node(self) -> int:
        return lookup(self._maps[NODE_MAP], ctypes.c_uint32(0), ctypes.c_uint32)

    def _belongs_to_another(self, inode: int) -> bool:
        try:
            found = lookup(self._maps[OWNERS_MAP], ctypes.c_uint32(inode), ctypes.c_uint64)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise
            return False  # nothing has run in it yet; better counted twice than not at all
        return found & _OWNER_BITS == _OF_ANOTHER


def _keep(records: bytes, is_counted: Callable[[int], bool]) -> bytes:
    known: dict[bytes, bool] = {}
    kept = []
    for at in range(0, len(records), RECORD_BYTES):
        netns = records[at + _OFFSET : at + _OFFSET + 4]
        if netns not in known:
            known[netns] = is_counted(int.from_bytes(netns, "little"))
        if known[netns]:
            kept.append(records[at : at + RECORD_BYTES])
    return b"".join(kept)
