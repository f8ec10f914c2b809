"""Why a machine does not let eBPF programs run, beyond missing capabilities."""

from pathlib import Path

from flowverdict_runtime.ebpf import may_load_programs

__all__ = ["why_refused"]


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
    return "bpf(2) is not permitted here, by a security module such as SELinux or AppArmor"


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
