"""The running kernel's own types, read from its BTF through libbpf.

Layout of the records: Documentation/bpf/btf.rst in the kernel's source.
"""

import ctypes
from collections.abc import Iterator
from pathlib import Path

from flowverdict_runtime.ebpf import BTF

__all__ = ["KernelTypes", "NoKernelTypes"]

_LAST_PAGE = (1 << 64) - 4096
_STRUCT, _UNION, _ENUM = 4, 5, 6
_MODIFIERS = (8, 9, 10, 11, 18)  # typedef, volatile, const, restrict, type tag


class NoKernelTypes(RuntimeError):
    """The kernel has no BTF, libbpf is missing, or a type or member does not exist."""


class _Type(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_uint32),
        ("info", ctypes.c_uint32),
        ("size_or_type", ctypes.c_uint32),
    ]


class _Member(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_uint32),
        ("type", ctypes.c_uint32),
        ("bits", ctypes.c_uint32),
    ]


class _Enumerator(ctypes.Structure):
    _fields_ = [("name", ctypes.c_uint32), ("value", ctypes.c_int32)]


def _libbpf() -> ctypes.CDLL:
    for name in ("libbpf.so.1", "libbpf.so.0"):
        try:
            library = ctypes.CDLL(name, use_errno=True)
        except OSError:
            continue
        library.btf__parse.restype = ctypes.c_void_p
        library.btf__parse.argtypes = [ctypes.c_char_p, ctypes.c_void_p]
        library.btf__free.argtypes = [ctypes.c_void_p]
        library.btf__find_by_name_kind.restype = ctypes.c_int32
        library.btf__find_by_name_kind.argtypes = [
            ctypes.c_void_p,
            ctypes.c_char_p,
            ctypes.c_uint32,
        ]
        library.btf__type_by_id.restype = ctypes.c_void_p
        library.btf__type_by_id.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        library.btf__name_by_offset.restype = ctypes.c_char_p
        library.btf__name_by_offset.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
        return library
    raise NoKernelTypes("libbpf is missing: install libbpf1 (Debian; comes with python3-bpfcc)")


class KernelTypes:
    """Looks up struct members and enumerators of the running kernel.

    Raises:
        NoKernelTypes: if there is no BTF to read, or no libbpf to read it with.
    """

    def __init__(self, path: str = BTF) -> None:
        if not Path(path).exists():
            raise NoKernelTypes(
                f"{path} is missing: the kernel was built without CONFIG_DEBUG_INFO_BTF"
            )
        self._libbpf = _libbpf()
        self._btf = self._libbpf.btf__parse(path.encode(), None)
        # Before libbpf 1.0, an error was returned as a pointer into the last page.
        if not self._btf or self._btf >= _LAST_PAGE:
            raise NoKernelTypes(f"{path} cannot be read as BTF")

    def __enter__(self) -> "KernelTypes":
        return self

    def __exit__(self, *_: object) -> None:
        self._libbpf.btf__free(self._btf)

    def offset(self, struct: str, member: str) -> int:
        """Bytes from the start of `struct` to `member`, which may be in an anonymous union.

        `member` may be a path: `skc_net.net`.

        Raises:
            NoKernelTypes: if the kernel has no such struct or member.
        """
        type_id = self._libbpf.btf__find_by_name_kind(self._btf, struct.encode(), _STRUCT)
        bits = 0
        for name in member.split("."):
            found = self._find(type_id, name) if type_id > 0 else None
            if found is None:
                raise NoKernelTypes(f"this kernel's BTF has no {struct}.{member}")
            bits, type_id = bits + found[0], found[1]
        return bits // 8

    def has_struct(self, name: str) -> bool:
        """Whether the kernel has a struct of that name."""
        found: int = self._libbpf.btf__find_by_name_kind(self._btf, name.encode(), _STRUCT)
        return found > 0

    def enumerators(self, enum: str) -> dict[str, int]:
        """Name to value; empty if the kernel has no such enum."""
        type_id = self._libbpf.btf__find_by_name_kind(self._btf, enum.encode(), _ENUM)
        if type_id <= 0:
            return {}
        _, count, _, body = self._type(type_id)
        table = (_Enumerator * count).from_address(body)
        return {self._name(entry.name): entry.value for entry in table}

    def _name(self, offset: int) -> str:
        name: bytes = self._libbpf.btf__name_by_offset(self._btf, offset) or b""
        return name.decode()

    def _type(self, type_id: int) -> tuple[int, int, int, int]:
        address = self._libbpf.btf__type_by_id(self._btf, type_id)
        record = _Type.from_address(address)
        kind, count = (record.info >> 24) & 0x1F, record.info & 0xFFFF
        return kind, count, record.size_or_type, address + ctypes.sizeof(_Type)

    def _members(self, type_id: int) -> Iterator[tuple[str, int, int]]:
        kind, count, aliased, body = self._type(type_id)
        while kind in _MODIFIERS:
            kind, count, aliased, body = self._type(aliased)
        if kind not in (_STRUCT, _UNION):
            return
        for member in (_Member * count).from_address(body):
            yield self._name(member.name), member.bits & 0xFFFFFF, member.type

    def _find(self, type_id: int, name: str) -> tuple[int, int] | None:
        for found, bits, member_type in self._members(type_id):
            if found == name:
                return bits, member_type
            if not found:
                inner = self._find(member_type, name)
                if inner is not None:
                    return bits + inner[0], inner[1]
        return None
