"""Boots a guest under qemu, and passes on what it prints."""

import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path

from flowverdict_lab.kernels.guest import Bootable

__all__ = ["GuestCrash", "qemu_for", "run_guest"]

_EXIT = re.compile(r"guest: exit (\d+)")
_MEMORY_MIB = 5120
# Without hardware support the processor is emulated. The oldest that numpy runs on (x86-64-v2).
_QEMU = {
    "amd64": ("qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "Nehalem"),
    "arm64": ("qemu-system-aarch64", "-accel", "tcg,thread=multi", "-machine", "virt", "-cpu",
              "cortex-a72"),
}  # fmt: skip
_CONSOLE = {"amd64": "ttyS0", "arm64": "ttyAMA0"}


class GuestCrash(RuntimeError):
    """The guest ended without a word of how its command ended."""


def qemu_for(architecture: str) -> str:
    """The program that emulates such a processor."""
    return _QEMU[architecture][0]


def run_guest(
    bootable: Bootable, checkout: Path, seconds: float, tell: Callable[[str], None]
) -> int:
    """Boot a guest and run the command that came with the checkout; returns its exit status.

    Args:
        bootable: the kernel and its archives.
        checkout: the archive of the checkout.
        seconds: when to give up.
        tell: called with each line that the guest prints.

    Raises:
        GuestCrash: if the guest's kernel crashed, or the time was not enough.
    """
    with tempfile.NamedTemporaryFile(dir=checkout.parent, suffix=".cpio") as files:
        for archive in (*bootable.archives, checkout):
            with archive.open("rb") as part:
                shutil.copyfileobj(part, files)
        files.flush()
        argv = [
            "timeout", f"{seconds:g}", *_QEMU[bootable.architecture], "-smp", "2", "-nic", "none",
            "-m", str(_MEMORY_MIB), "-display", "none", "-monitor", "none", "-serial", "stdio",
            "-no-reboot", "-kernel", str(bootable.image), "-initrd", files.name, "-append",
            f"console={_CONSOLE[bootable.architecture]} quiet oops=panic panic=-1",
        ]  # fmt: skip
        status = None
        with subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
            text=True, errors="replace",
        ) as qemu:  # fmt: skip
            assert qemu.stdout is not None
            try:
                for line in qemu.stdout:
                    if ended := _EXIT.match(line):
                        status = int(ended[1])
                    elif status is None and line.strip():
                        tell(line.rstrip())
            finally:
                qemu.terminate()
    if status is None:
        raise GuestCrash("the guest's kernel crashed, or the time was not enough")
    return status
