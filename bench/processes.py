"""How much memory a process has, and what it has taken of the processors, as the kernel says."""

import os
from pathlib import Path

__all__ = ["peak_mebibytes", "processor_seconds", "resident_mebibytes"]


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


def processor_seconds(pid: int) -> float:
    """What a process has taken of the processors, in user and kernel mode (proc_pid_stat(5))."""
    after_name = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return sum(map(int, after_name[11:13])) / os.sysconf("SC_CLK_TCK")
