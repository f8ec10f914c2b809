"""Whether this machine can run the lab live, and where it pins.

Run as a program, it prints why not, or nothing.
"""

import contextlib
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from flowverdict_runtime.ebpf import BPF_MACHINES, BTF, may_load_programs

__all__ = ["bpf_file_system", "why_not_live"]


def why_not_live() -> str | None:
    """Why eBPF or network namespaces are not available here; None if they are."""
    if sys.platform != "linux":
        return f"this is {platform.system()}, and eBPF needs Linux"
    if platform.machine() not in BPF_MACHINES:
        return f"BCC is untested on {platform.machine()}"
    if not Path(BTF).exists():
        return f"this kernel has no BTF ({BTF})"
    if os.geteuid() != 0:
        return "eBPF needs root"
    if not may_load_programs():
        return "bpf(2) is not permitted here, as in most containers"
    if not shutil.which("unshare") or not shutil.which("nsenter") or not shutil.which("setpriv"):
        return "util-linux (unshare, nsenter, setpriv) is missing"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        return "network namespaces are not permitted here"
    return None


@contextlib.contextmanager
def bpf_file_system(folder: Path) -> Iterator[Path]:
    """A BPF file system of its own, in a new folder."""
    folder.mkdir()
    subprocess.run(["mount", "-t", "bpf", "bpf", folder], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


if __name__ == "__main__":
    print(why_not_live() or "", end="")
