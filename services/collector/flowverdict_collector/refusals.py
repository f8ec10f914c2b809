"""Why a machine does not let eBPF programs run, beyond missing capabilities."""

import re
from pathlib import Path

from flowverdict_runtime.ebpf import may_load_programs

__all__ = ["why_refused"]

_NOT_LOCKED_SINCE = (5, 11)


def why_refused(root: Path = Path("/"), *, permitted: bool | None = None) -> str:
    """What forbids it and what to do; empty if nothing does.

    Args:
        root: the directory with /proc and /sys.
        permitted: whether bpf(2) works here; tried, unless it is given.
    """
    lockdown = _text(root / "sys/kernel/security/lockdown")
    if "[confidentiality]" in lockdown:
        return (
            "the kernel is locked down for confidentiality, so eBPF cannot read its memory: "
            "boot with lockdown=integrity or none"
        )
    if may_load_programs() if permitted is None else permitted:
        return ""
    seccomp = [line.split()[1] for line in _text(root / "proc/self/status").splitlines()
               if line.startswith("Seccomp:")]  # fmt: skip
    if seccomp == ["2"]:
        return (
            "a seccomp profile forbids bpf(2): allow it for CAP_BPF, as the profiles of containerd "
            "1.6 and CRI-O 1.22 do, or see docs/install.md"
        )
    limit = re.search(r"^Max locked memory +(\d+)", _text(root / "proc/self/limits"), re.MULTILINE)
    if limit and _version(_text(root / "proc/sys/kernel/osrelease")) < _NOT_LOCKED_SINCE:
        return (
            f"{limit[1]} bytes of locked memory are too few for the maps (before Linux 5.11 they"
            " count as that): set LimitMEMLOCK=infinity for the service or the container runtime,"
            " or grant CAP_SYS_RESOURCE"
        )
    return "bpf(2) is not permitted here, by a security module such as SELinux or AppArmor"


def _version(release: str) -> tuple[int, ...]:
    return tuple(int(each) for each in re.findall(r"\d+", release)[:2])


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
