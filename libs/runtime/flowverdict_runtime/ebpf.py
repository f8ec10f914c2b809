"""What eBPF requires of a machine: the bpf(2) system call, capabilities, tracepoints."""

import contextlib
import ctypes
import os
import platform
import resource
from pathlib import Path

__all__ = [
    "BPF_MACHINES",
    "BTF",
    "CAPABILITIES",
    "REQUIRED_TRACEPOINTS",
    "bpf",
    "can_compare_and_swap",
    "may_load_programs",
    "missing_capabilities",
    "smallest_map",
]

BTF = "/sys/kernel/btf/vmlinux"
"""Where the running kernel describes its own types."""

_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
"""The system call number of bpf(2) (arch/*/kernel/syscalls, include/uapi/asm-generic/unistd.h)."""

BPF_MACHINES = tuple(_SYSCALL)
"""Architectures BCC has been tried on, as `uname -m` reports them."""

CAPABILITIES = {"CAP_SYS_ADMIN": 21, "CAP_PERFMON": 38, "CAP_BPF": 39}
"""Those that loading programs takes, as bits (include/uapi/linux/capability.h): the first, or the
others."""

REQUIRED_TRACEPOINTS = {
    "inet_sock_set_state": "sock",
    "tcp_probe": "tcp",
    "tcp_retransmit_skb": "tcp",
    "tcp_destroy_sock": "tcp",
    "tcp_retransmit_synack": "tcp",
}
"""Tracepoints the collector requires, and their tracefs subsystems."""

_MAP_CREATE, _ARRAY = 0, 2
_PROGRAM_LOAD, _RAW_TRACEPOINT = 5, 17
_COMPARE_AND_SWAP = (
    0x0000_0000_0000_00B7,  # r0 = 0
    0x0000_0000_FFF8_0A7B,  # *(u64 *)(r10 - 8) = r0
    0x0000_0001_0000_01B7,  # r1 = 1
    0x0000_00F1_FFF8_1ADB,  # r0 = cmpxchg(r10 - 8, r0, r1)
    0x0000_0000_0000_0095,  # exit
)
"""A program of five instructions (Documentation/bpf/standardization/instruction-set.rst)."""
_libc = ctypes.CDLL(None, use_errno=True)


class _MapCreate(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_uint32) for name in ("type", "key_bytes", "value_bytes", "entries", "flags")
    ]


class _ProgramLoad(ctypes.Structure):
    _fields_ = [
        ("type", ctypes.c_uint32),
        ("instruction_count", ctypes.c_uint32),
        ("instructions", ctypes.c_uint64),
        ("license", ctypes.c_uint64),
    ]


def bpf(command: int, attributes: ctypes.Structure) -> int:
    """Make the system call; `attributes` is a union bpf_attr (include/uapi/linux/bpf.h).

    Raises:
        OSError: if the kernel refuses.
    """
    number = _SYSCALL[platform.machine()]
    result: int = _libc.syscall(
        number, command, ctypes.byref(attributes), ctypes.sizeof(attributes)
    )
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    return result


def smallest_map() -> int:
    """A new map of one number, to try something with; returns its descriptor.

    Before Linux 5.11, maps and programs count as locked memory of whoever loads them, also those
    that are pinned (getrlimit(2), RLIMIT_MEMLOCK). The limit of this process is lifted, if it may
    do that.

    Raises:
        OSError: if the kernel refuses.
    """
    with contextlib.suppress(ValueError, OSError):
        unlimited = (resource.RLIM_INFINITY, resource.RLIM_INFINITY)
        resource.setrlimit(resource.RLIMIT_MEMLOCK, unlimited)
    return bpf(_MAP_CREATE, _MapCreate(_ARRAY, 4, 4, 1, 0))


def can_compare_and_swap() -> bool:
    """Whether programs can change a value in one step if it is still what they have read: in Linux
    since 5.12, on arm64 since 5.18. False, too, without the privileges to load one.
    """
    code = (ctypes.c_uint64 * len(_COMPARE_AND_SWAP))(*_COMPARE_AND_SWAP)
    terms = ctypes.create_string_buffer(b"GPL")
    program = _ProgramLoad(
        _RAW_TRACEPOINT, len(code), ctypes.addressof(code), ctypes.addressof(terms)
    )
    try:
        os.close(bpf(_PROGRAM_LOAD, program))
    except OSError:
        return False
    return True


def may_load_programs() -> bool:
    """Whether bpf(2) is permitted here; creates the smallest possible map and closes it."""
    try:
        os.close(smallest_map())
    except OSError:
        return False
    return True


def missing_capabilities(root: Path = Path("/")) -> list[str]:
    """Names of the capabilities(7) that this process lacks; CAP_SYS_ADMIN covers both."""
    status = (root / "proc/self/status").read_text()
    effective = int(status.split("CapEff:")[1].split()[0], 16)
    lacking = [name for name, bit in CAPABILITIES.items() if not effective & 1 << bit]
    return lacking[1:] if "CAP_SYS_ADMIN" in lacking else []
