"""How much memory a process has, as the kernel says."""

from pathlib import Path

__all__ = ["peak_mebibytes", "resident_mebibytes"]


def resident_mebibytes(pid: int) -> float:
    """Memory of a process in mebibytes, of what it shares its part."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0


def peak_mebibytes(pid: int) -> float:
    """The most that a process has had in memory at a time, or since it was last asked to begin
    anew (proc_pid_clear_refs(5)), in mebibytes.
    """
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
