"""The kernel maps, as the service sees them: swap, drain, read what was lost."""

import ctypes
import errno
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowverdict_collector.loader import Loaded
from flowverdict_contracts.raw import KEY_BYTES, RECORD_BYTES
from flowverdict_runtime.ebpf import bpf

__all__ = ["FlowMaps", "Lost", "lookup", "statistics"]

_LOOKUP, _UPDATE, _LOOKUP_AND_DELETE_BATCH = 1, 2, 25
_BATCH = 8192


class _Element(ctypes.Structure):
    _fields_ = [
        ("map", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


class _Batch(ctypes.Structure):
    _fields_ = [
        ("start", ctypes.c_uint64),
        ("next", ctypes.c_uint64),
        ("keys", ctypes.c_uint64),
        ("values", ctypes.c_uint64),
        ("count", ctypes.c_uint32),
        ("map", ctypes.c_uint32),
        ("element_flags", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


def statistics(program: int) -> dict[str, int]:
    """What the kernel counts about the program with this descriptor.

    `recursion_misses` (since Linux 5.12) are the runs that it skipped because the program was
    running on that CPU already; `run_cnt` and `run_time_ns` are counted on request only
    (kernel/bpf/syscall.c, bpf_prog_show_fdinfo).
    """
    lines = Path(f"/proc/self/fdinfo/{program}").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(value) for name, value in found.items() if value.strip().isdigit()}


def lookup(
    map_descriptor: int,
    key: ctypes.c_uint32,
    value: type[ctypes.c_uint64 | ctypes.c_uint32],
) -> int:
    """A value of a kernel map.

    Raises:
        OSError: ENOENT if it has no such key.
    """
    found = value()
    bpf(_LOOKUP, _Element(map_descriptor, ctypes.addressof(key), ctypes.addressof(found), 0))
    return int(found.value)


@dataclass(frozen=True, slots=True)
class Lost:
    """What was lost because the kernel's maps were full.

    Attributes:
        flow_updates: events not counted because the flow map was full.
        sockets: sockets not tracked because the socket map was full.
    """

    flow_updates: int
    sockets: int

    def __sub__(self, earlier: "Lost") -> "Lost":
        """What was lost since `earlier`."""
        return Lost(self.flow_updates - earlier.flow_updates, self.sockets - earlier.sockets)


class FlowMaps:
    """Two flow maps: the kernel counts in one while the other is drained.

    Args:
        loaded: what runs in the kernel.
        counted: returns those of the packed records that are counted here.
    """

    def __init__(self, loaded: Loaded, counted: Callable[[bytes], bytes] = bytes) -> None:
        self._counted = counted
        self._flows = (loaded.maps["flows_even"], loaded.maps["flows_odd"])
        self._active_map = loaded.maps["active_flows"]
        self._lost_map = loaded.maps["lost"]
        self._active = 0

    def drain(self) -> bytes:
        """All records counted since the last drain, packed, each exactly once.

        Updating a map-in-map returns after every program that could still see the old inner map
        has ended (kernel/bpf/syscall.c, maybe_wait_bpf_programs), so the old map no longer changes.

        Raises:
            OSError: if the kernel refuses.
        """
        old, new = self._flows[self._active], self._flows[1 - self._active]
        slot, descriptor = ctypes.c_uint32(0), ctypes.c_uint32(new)
        bpf(
            _UPDATE,
            _Element(self._active_map, ctypes.addressof(slot), ctypes.addressof(descriptor), 0),
        )
        self._active = 1 - self._active
        return self._counted(self._drain_map(old))

    def lost(self) -> Lost:
        """What was lost since the start."""
        counts = (lookup(self._lost_map, ctypes.c_uint32(at), ctypes.c_uint64) for at in range(2))
        return Lost(*counts)

    def _drain_map(self, map_descriptor: int) -> bytes:
        room, taken = _BATCH, []
        # For a hash map the position is a bucket number; as wide as a key to be safe.
        position = (ctypes.c_char * KEY_BYTES)()
        first = True
        while True:
            keys = (ctypes.c_char * (KEY_BYTES * room))()
            values = (ctypes.c_char * (RECORD_BYTES * room))()
            batch = _Batch(
                start=0 if first else ctypes.addressof(position),
                next=ctypes.addressof(position),
                keys=ctypes.addressof(keys),
                values=ctypes.addressof(values),
                count=room,
                map=map_descriptor,
            )
            try:
                bpf(_LOOKUP_AND_DELETE_BATCH, batch)
                done = False
            except OSError as error:
                if error.errno == errno.ENOSPC:
                    room *= 2
                    continue
                if error.errno != errno.ENOENT:
                    raise
                done = True
            taken.append(memoryview(values)[: RECORD_BYTES * batch.count])
            first = False
            if done:
                return b"".join(taken)
