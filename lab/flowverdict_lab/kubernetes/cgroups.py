"""A cgroup for each node, below the machine's own mounts of cgroup v1 or v2."""

import time
from collections.abc import Iterator
from pathlib import Path

__all__ = ["make", "remove"]

_MOUNT = Path("/sys/fs/cgroup")
_V1 = ("cpu", "cpuacct", "cpuset", "memory", "devices", "freezer", "blkio", "pids", "systemd")


def make(name: str) -> str:
    """Create a cgroup under each controller; returns the kubelet's `cgroupRoot`."""
    if (_MOUNT / "cgroup.controllers").exists():  # version 2 alone
        wanted = (_MOUNT / "cgroup.controllers").read_text().split()
        (_MOUNT / "cgroup.subtree_control").write_text(" ".join(f"+{each}" for each in wanted))
        (_MOUNT / name).mkdir(exist_ok=True)
        return f"/{name}"
    for controller in _V1:
        if (_MOUNT / controller).is_dir():
            (_MOUNT / controller / name).mkdir(exist_ok=True)
    cpuset = _MOUNT / "cpuset"
    for file in ("cpuset.cpus", "cpuset.mems"):  # empty at first, which admits no process
        (cpuset / name / file).write_text((cpuset / file).read_text())
    return f"/{name}"


def remove(name: str, seconds: float = 15.0) -> None:
    """Remove the cgroup and all below it, once the processes in it have ended."""
    deadline = time.monotonic() + seconds
    while list(filter(lambda folder: not _removed(folder), _folders(name))):
        if time.monotonic() > deadline:
            return
        time.sleep(0.1)


def _folders(name: str) -> Iterator[Path]:
    # runc makes one in "unified", too, where version 2 is mounted beside version 1.
    for parent in (_MOUNT, *(_MOUNT / each for each in (*_V1, "unified"))):
        if (parent / name).is_dir():
            yield parent / name


def _removed(folder: Path) -> bool:
    for below in sorted(folder.rglob("*/"), reverse=True):
        if below.is_dir():
            try:
                below.rmdir()
            except OSError:
                return False
    try:
        folder.rmdir()
    except OSError:
        return False
    return True
