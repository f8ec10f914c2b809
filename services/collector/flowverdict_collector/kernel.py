"""The kernel maps, as the service sees them: swap, read, discard, and what was lost."""

import contextlib
import ctypes
import errno
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowverdict_runtime.ebpf import bpf

__all__ = [
    "FlowMaps",
    "Lost",
    "describe",
    "move_entries",
    "read_value",
    "run_program",
    "write_value",
]

_LOOKUP, _UPDATE, _DELETE, _LOOKUP_BATCH, _LOOKUP_AND_DELETE_BATCH = 1, 2, 3, 24, 25
_NO_EXIST = 1
_TEST_RUN = 10
_BATCH = 512


class _Element(ctypes.Structure):
    _fields_ = [
        ("map", ctypes.c_uint32),
        ("key", ctypes.c_uint64),
        ("value", ctypes.c_uint64),
        ("flags", ctypes.c_uint64),
    ]


class _TestRun(ctypes.Structure):
    """The part of union bpf_attr that BPF_PROG_TEST_RUN uses, without data."""

    _fields_ = [
        ("program", ctypes.c_uint32),
        ("returned", ctypes.c_uint32),
        ("data", ctypes.c_uint64 * 4),
        ("argument_bytes", ctypes.c_uint32),
        ("bytes_out", ctypes.c_uint32),
        ("arguments", ctypes.c_uint64),
        ("rest", ctypes.c_uint64 * 2),
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


def describe(descriptor: int) -> dict[str, int]:
    """What the kernel says about the map or program with this descriptor.

    A map has `map_id`, `key_size` and `value_size`. For a program, `recursion_misses` (since Linux
    5.12) are the runs that the kernel skipped because the program was running on that CPU already;
    `run_cnt` and `run_time_ns` are counted on request only (kernel/bpf/syscall.c,
    bpf_map_show_fdinfo and bpf_prog_show_fdinfo).
    """
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    found = dict(line.split(":", 1) for line in lines)
    return {name: int(value) for name, value in found.items() if value.strip().isdigit()}


def read_value(descriptor: int, key: Any, value: Callable[[], Any]) -> Any:
    """A value of a kernel map; `key` is a ctypes object, `value` a ctypes type.

    Raises:
        OSError: ENOENT if the map has no such key.
    """
    found = value()
    bpf(_LOOKUP, _Element(descriptor, ctypes.addressof(key), ctypes.addressof(found), 0))
    return found


def write_value(descriptor: int, key: Any, value: Any) -> None:
    """Set a value of a kernel map; both are ctypes objects.

    Raises:
        OSError: if the kernel refuses.
    """
    bpf(_UPDATE, _Element(descriptor, ctypes.addressof(key), ctypes.addressof(value), 0))


def run_program(descriptor: int, argument: int = 0) -> int:
    """Run a raw tracepoint's program once, without its tracepoint, and return what it returns.

    Linux can since 5.10.

    Raises:
        OSError: if the kernel refuses.
    """
    given = ctypes.c_uint64(argument)
    attributes = _TestRun(
        program=descriptor,
        argument_bytes=ctypes.sizeof(given),
        arguments=ctypes.addressof(given),
    )
    bpf(_TEST_RUN, attributes)
    return int(attributes.returned)


def move_entries(source: int, target: int, cleared: int) -> None:
    """Move what one hash map holds into another with the same sizes of key and value, unless that
    has the key already, with zeros in the 64-bit word at offset `cleared` of each value. Programs
    may do the same meanwhile.

    Raises:
        OSError: if the kernel refuses, or the target is too small.
    """
    sizes = describe(source)
    key_bytes, value_bytes = sizes["key_size"], sizes["value_size"]
    value = ctypes.create_string_buffer(value_bytes)
    for keys, _, count in _batches(_LOOKUP_BATCH, source, key_bytes, value_bytes):
        for at in range(0, count * key_bytes, key_bytes):
            key = ctypes.addressof(keys) + at
            # As it is at this moment: it may be gone, or there already.
            with contextlib.suppress(FileNotFoundError, FileExistsError):
                bpf(_LOOKUP, _Element(source, key, ctypes.addressof(value), 0))
                ctypes.memset(ctypes.addressof(value) + cleared, 0, 8)
                bpf(_UPDATE, _Element(target, key, ctypes.addressof(value), _NO_EXIST))
            with contextlib.suppress(FileNotFoundError):
                bpf(_DELETE, _Element(source, key, 0, 0))


def _batches(
    command: int, descriptor: int, key_bytes: int, value_bytes: int
) -> Iterator[tuple[Any, Any, int]]:
    """The keys and the values of a hash map, and how many there are, batch by batch; the next one
    replaces them.
    """

    def buffers() -> tuple[Any, Any]:
        return (ctypes.c_char * (key_bytes * room))(), (ctypes.c_char * (value_bytes * room))()

    room = _BATCH
    keys, values = buffers()
    # For a hash map the position is a bucket number; as wide as a key to be safe.
    position = (ctypes.c_char * max(key_bytes, 8))()
    first = True
    done = False
    while not done:
        batch = _Batch(
            start=0 if first else ctypes.addressof(position),
            next=ctypes.addressof(position),
            keys=ctypes.addressof(keys),
            values=ctypes.addressof(values),
            count=room,
            map=descriptor,
        )
        try:
            bpf(command, batch)
        except OSError as error:
            if error.errno == errno.ENOSPC:
                room *= 2
                keys, values = buffers()
                continue
            if error.errno != errno.ENOENT:
                raise
            done = True
        first = False
        yield keys, values, batch.count


@dataclass(frozen=True, slots=True)
class Lost:
    """What was lost because the kernel's maps were full.

    Attributes:
        flow_updates: events not counted because the flow map was full.
        sockets: sockets not tracked because the socket map was full.
    """

    flow_updates: int
    sockets: int


class FlowMaps:
    """Two flow maps: the kernel counts in one while the other is read.

    Args:
        maps: map name to descriptor.
        drain: the program that counts what the hooks left, if they leave anything.

    Attributes:
        record_bytes: size of a record.
    """

    def __init__(self, maps: Mapping[str, int], drain: int | None = None) -> None:
        self._drain = drain
        self._flows = (maps["flows_even"], maps["flows_odd"])
        self._active_map = maps["active_flows"]
        self._lost_map = maps["lost"]
        sizes = describe(self._flows[0])
        self._key_bytes, self.record_bytes = sizes["key_size"], sizes["value_size"]
        # From user space, a map of maps holds their ids.
        active = read_value(self._active_map, ctypes.c_uint32(0), ctypes.c_uint32).value
        self._active = [describe(each)["map_id"] for each in self._flows].index(active)

    def swap(self) -> None:
        """Count what connections have in store, then let the kernel count in the other map, which
        must be empty.

        Updating a map of maps returns after every program that could still see the old inner map
        has ended (kernel/bpf/syscall.c, maybe_wait_bpf_programs), so the old map no longer changes.

        Raises:
            OSError: if the kernel refuses.
        """
        interval = time.monotonic_ns()
        while self._drain is not None and run_program(self._drain, interval):
            pass
        other = 1 - self._active
        write_value(self._active_map, ctypes.c_uint32(0), ctypes.c_uint32(self._flows[other]))
        self._active = other

    def read(self) -> Iterator[bytes]:
        """The records of the map that no longer changes, packed, some thousands at a time; they
        come in the same order each time.

        Raises:
            OSError: if the kernel refuses.
        """
        for values, count in self._walk(_LOOKUP_BATCH, 1 - self._active):
            yield values.raw[: self.record_bytes * count]

    def count(self, *, active: bool = False) -> int:
        """How many records the map has that no longer changes, or the one that the kernel counts
        in.

        Raises:
            OSError: if the kernel refuses.
        """
        which = self._active if active else 1 - self._active
        return sum(count for _, count in self._walk(_LOOKUP_BATCH, which))

    def discard(self) -> None:
        """Delete what `read` returns.

        Raises:
            OSError: if the kernel refuses.
        """
        for _ in self._walk(_LOOKUP_AND_DELETE_BATCH, 1 - self._active):
            pass

    def lost(self) -> Lost:
        """What was lost since counting began."""
        counts = [
            read_value(self._lost_map, ctypes.c_uint32(at), ctypes.c_uint64).value
            for at in range(2)
        ]
        return Lost(*counts)

    def _walk(self, command: int, which: int) -> Iterator[tuple[Any, int]]:
        batches = _batches(command, self._flows[which], self._key_bytes, self.record_bytes)
        for _, values, count in batches:
            yield values, count
