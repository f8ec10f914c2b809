"""Whether this machine can run the lab live.

Needs nothing but Python, so that it can be asked first. Run as a program it prints the reason why
not, or nothing.
"""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

__all__ = ["why_not_live"]

_BPF_SYSCALL = {"x86_64": 321, "aarch64": 280, "riscv64": 280, "s390x": 351, "ppc64le": 361}
_BPF_MAP_CREATE, _ARRAY = 0, 2


def why_not_live() -> str | None:
    """Why eBPF or network namespaces cannot be had here; None where they can."""
    if sys.platform != "linux":
        return f"this is {platform.system()}, and eBPF needs Linux"
    if platform.machine() not in _BPF_SYSCALL:
        return f"BCC is not tried on {platform.machine()}"
    if not Path("/sys/kernel/btf/vmlinux").exists():
        return "this kernel gives no BTF (/sys/kernel/btf/vmlinux)"
    if os.geteuid() != 0:
        return "eBPF needs root"
    if not _may_load_bpf():
        return "bpf(2) is not permitted here, as in most containers"
    if not shutil.which("unshare") or not shutil.which("nsenter") or not shutil.which("setpriv"):
        return "util-linux (unshare, nsenter, setpriv) is missing"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        return "network namespaces are not permitted here"
    return None


def _may_load_bpf() -> bool:
    """Create the smallest map there is, as every eBPF program would have to."""
    attributes = (ctypes.c_uint32 * 18)(_ARRAY, 4, 4, 1)
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.syscall(
        _BPF_SYSCALL[platform.machine()], _BPF_MAP_CREATE, attributes, ctypes.sizeof(attributes)
    )
    if descriptor < 0:
        return False
    os.close(descriptor)
    return True


if __name__ == "__main__":
    print(why_not_live() or "", end="")
