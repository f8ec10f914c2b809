"""Gives up what only loading the programs needs.

Whoever could run code in the collector could otherwise load programs of their own, which read all
of the kernel's memory. Reading maps needs no capability, only their descriptors.
"""

import ctypes
import os
import platform
from pathlib import Path

from flowverdict_collector.limits import kernel_version
from flowverdict_runtime.ebpf import CAPABILITIES

__all__ = ["drop_capabilities"]

_VERSION_3 = 0x20080522
_PR_SET_NO_NEW_PRIVS, _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL = 38, 47, 4
_CAP_SYSLOG = 34
_RESTRICT_LOG = Path("/proc/sys/kernel/dmesg_restrict")
_MAPS_FOR_ALL_SINCE = (5, 19)
_WORDS, _BITS = 2, 32

_libc = ctypes.CDLL(None, use_errno=True)


class _Header(ctypes.Structure):
    """include/uapi/linux/capability.h, struct __user_cap_header_struct."""

    _fields_ = (("version", ctypes.c_uint32), ("pid", ctypes.c_int))


class _Data(ctypes.Structure):
    """include/uapi/linux/capability.h, struct __user_cap_data_struct."""

    _fields_ = (
        ("effective", ctypes.c_uint32),
        ("permitted", ctypes.c_uint32),
        ("inheritable", ctypes.c_uint32),
    )


def drop_capabilities(release: str = platform.release()) -> None:
    """Give up every capability for good, also for programs that this process may execute.

    Before Linux 5.19, bpf(2) does nothing for processes without CAP_BPF where
    kernel.unprivileged_bpf_disabled is set (kernel/bpf/syscall.c), so there that one is kept, or
    CAP_SYS_ADMIN if it stands in for it. CAP_SYSLOG is kept if it was given: where
    kernel.dmesg_restrict is set, reading the kernel log takes it (kernel/printk/printk.c).

    Capabilities belong to threads (capabilities(7)), so this has to come before there are others.

    Raises:
        RuntimeError: if there are.
        OSError: if the kernel refuses.
    """
    if len(list(Path("/proc/self/task").iterdir())) > 1:
        raise RuntimeError("capabilities must be dropped before other threads begin")
    permitted = _permitted()
    kept = _needed_to_read_maps(release, permitted)
    if _RESTRICT_LOG.exists() and _RESTRICT_LOG.read_text() != "0\n":
        kept |= permitted & 1 << _CAP_SYSLOG
    data = (_Data * _WORDS)()
    for at in range(_WORDS):
        word = kept >> at * _BITS & 0xFFFFFFFF
        data[at].effective = data[at].permitted = word
    _call("prctl", _PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _call("prctl", _PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    _call("capset", ctypes.byref(_Header(_VERSION_3, 0)), data)


def _permitted() -> int:
    status = Path("/proc/self/status").read_text()
    return int(status.split("CapPrm:")[1].split()[0], 16)


def _needed_to_read_maps(release: str, permitted: int) -> int:
    if kernel_version(release) >= _MAPS_FOR_ALL_SINCE:
        return 0
    either = (1 << CAPABILITIES[name] for name in ("CAP_BPF", "CAP_SYS_ADMIN"))
    return next((bit for bit in either if permitted & bit), 0)


def _call(function: str, *arguments: object) -> None:
    if getattr(_libc, function)(*arguments) != 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{function}: {os.strerror(code)}")
