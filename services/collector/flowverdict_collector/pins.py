"""What outlives the collector in the kernel: maps, programs and attachments, pinned.

A pin is a file on a BPF file system (bpf(2), BPF_OBJ_PIN). It keeps a kernel object alive without
any process. Below the configured directory, each node has a folder, and in it each set of maps:
`NODE/LAYOUT-NUMBER/map-NAME`, and for each version of the programs that uses those maps
`program-VERSION-TRACEPOINT` and `link-VERSION-TRACEPOINT`.
"""

import contextlib
import ctypes
import fcntl
import os
import secrets
from dataclasses import dataclass
from pathlib import Path

from flowverdict_runtime.context import CannotRun
from flowverdict_runtime.ebpf import bpf, smallest_map

__all__ = ["Pins", "PinsError", "unpin"]

_PIN, _GET = 6, 7
_BPF_FS = 0xCAFE4A11
"""The magic number of a BPF file system (include/uapi/linux/magic.h)."""


class PinsError(CannotRun):
    """Nothing can be pinned here; the message says why and what to do."""


class _Object(ctypes.Structure):
    _fields_ = (
        ("path", ctypes.c_uint64),
        ("descriptor", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


def _bpf_object(command: int, path: Path, descriptor: int = 0) -> int:
    name = ctypes.create_string_buffer(os.fsencode(path))
    return bpf(command, _Object(ctypes.addressof(name), descriptor, 0))


class _StatFs(ctypes.Structure):
    _fields_ = (("type", ctypes.c_long), ("rest", ctypes.c_long * 32))


def _is_bpf_fs(path: Path) -> bool:
    answer = _StatFs()
    return not ctypes.CDLL(None).statfs(os.fsencode(path), ctypes.byref(answer)) and (
        answer.type & 0xFFFFFFFF == _BPF_FS
    )


@dataclass(frozen=True, slots=True)
class Pins:
    """The pins of one node's collector.

    Attributes:
        folder: where they are.
    """

    folder: Path

    @classmethod
    def of_node(cls, directory: Path, node: str) -> "Pins":
        """Those of `node`, in a folder made for them if there is none.

        Raises:
            PinsError: if `directory` is not on a BPF file system, or no folder can be made in it.
        """
        if not _is_bpf_fs(directory):
            raise PinsError(
                f"{directory} is not on a BPF file system: mount -t bpf bpf /sys/fs/bpf"
            )
        # A BPF file system does not allow dots in names, and a node's name has no '+'.
        pins = cls(directory / "flowverdict" / node.replace(".", "+"))
        try:
            pins.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise PinsError(f"cannot use {pins.folder}: {error.strerror}") from None
        return pins

    def claim(self) -> int | None:
        """Make these pins this process's until the returned descriptor is closed.

        None while another collector, which counts the same node, has them.
        """
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self.folder, os.O_RDONLY | os.O_DIRECTORY)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.samestat(os.fstat(descriptor), self.folder.stat()):
                return descriptor
        except (BlockingIOError, FileNotFoundError):
            pass
        os.close(descriptor)  # in use, or removed meanwhile
        return None

    def check(self) -> None:
        """Pin something and remove it again.

        Raises:
            PinsError: if the kernel refuses.
        """
        descriptor = smallest_map()
        try:
            self.put("tried", descriptor)
            self.remove("tried")
        except OSError as error:
            raise PinsError(f"cannot pin in {self.folder}: {error.strerror}") from None
        finally:
            os.close(descriptor)

    def sets(self) -> "list[Pins]":
        """Each set of maps, with its programs."""
        return [Pins(each) for each in sorted(self.folder.iterdir()) if each.is_dir()]

    def new_set(self, layout: str) -> "Pins":
        """A folder for another set of maps, of this layout."""
        folder = self.folder / f"{layout}-{secrets.token_hex(4)}"
        folder.mkdir(mode=0o700)
        return Pins(folder)

    def names(self, prefix: str) -> list[str]:
        """The rest of each name that begins with `prefix`."""
        return sorted(each.name.removeprefix(prefix) for each in self.folder.glob(f"{prefix}*"))

    def get_all(self, prefix: str) -> dict[str, int]:
        """Descriptors of the objects whose name begins with `prefix`, by the rest of the name."""
        return {
            name: _bpf_object(_GET, self.folder / f"{prefix}{name}") for name in self.names(prefix)
        }

    def put(self, name: str, descriptor: int) -> None:
        """Pin an object, in place of what had the name before.

        Raises:
            OSError: if the kernel refuses.
        """
        self.remove(name)
        _bpf_object(_PIN, self.folder / name, descriptor)

    def remove(self, pattern: str) -> None:
        """Remove the pins that match `pattern`."""
        for path in self.folder.glob(pattern):
            path.unlink()

    def remove_node(self) -> None:
        """Remove every pin of the node, and the folders above if no other node has any."""
        self.remove_all()
        with contextlib.suppress(OSError):  # other nodes on this kernel have theirs beside it
            self.folder.parent.rmdir()

    def remove_all(self) -> None:
        """Remove every pin, and with it whatever nobody else uses, and the folder."""
        for path in self.folder.iterdir():
            if path.is_dir():
                Pins(path).remove_all()
            else:
                path.unlink()
        self.folder.rmdir()


def unpin(directory: Path, node: str) -> bool:
    """Detach and free what the node's last collector left in the kernel; False if nothing.

    Raises:
        PinsError: if a running collector uses it, or `directory` is not on a BPF file system.
    """
    pins = Pins.of_node(directory, node)
    descriptor = pins.claim()
    if descriptor is None:
        raise PinsError(f"a running collector of node {node} uses {pins.folder}: stop it first")
    is_empty = not any(pins.folder.iterdir())
    pins.remove_node()
    os.close(descriptor)
    return not is_empty
