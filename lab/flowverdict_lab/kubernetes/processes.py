"""Processes that go on after the command that started them, found again by id and start time."""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path

__all__ = ["ProcessError", "alive", "end", "innermost", "remember", "spawn", "wait_until"]


_STARTED: list[subprocess.Popen[bytes]] = []
"""Kept, for Python warns of processes that are forgotten while they run."""


class ProcessError(RuntimeError):
    """A process did not start, or ended too early; the message says where its log is."""


def spawn(argv: Sequence[str], log: Path) -> int:
    """Start a process in a session of its own, writing to `log`; returns its id."""
    with log.open("ab") as to:
        process = subprocess.Popen(
            argv, stdin=subprocess.DEVNULL, stdout=to, stderr=to, start_new_session=True
        )
    _STARTED.append(process)
    return process.pid


def innermost(pid: int, ancestors: int, seconds: float = 10.0) -> int:
    """The process `ancestors` generations below `pid`: what nsenter and unshare have forked.

    Raises:
        ProcessError: if it does not appear in time.
    """
    deadline = time.monotonic() + seconds
    current = pid
    while ancestors:
        children = _children(current)
        if children:
            current, ancestors = children[0], ancestors - 1
        elif time.monotonic() > deadline or not Path(f"/proc/{current}").exists():
            raise ProcessError(f"process {pid} did not start what it should have")
        else:
            time.sleep(0.01)
    return current


def _children(pid: int) -> list[int]:
    try:
        return [int(each) for each in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return []


def remember(pid: int, file: Path) -> None:
    """Write down the process, so that `alive` and `end` find it."""
    file.write_text(f"{pid} {_started(pid)}\n")


def _started(pid: int) -> str:
    """Start time in clock ticks, field 22 of /proc/PID/stat (proc_pid_stat(5)); empty if gone."""
    try:
        state, *_ = fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return "" if state == "Z" else fields[19]


def alive(file: Path) -> int:
    """The id of the process written down in `file`; 0 if it has ended."""
    try:
        pid, started = file.read_text().split()
    except (FileNotFoundError, ValueError):
        return 0
    return int(pid) if _started(int(pid)) == started else 0


def end(file: Path, how: signal.Signals = signal.SIGKILL, seconds: float = 30.0) -> None:
    """End the process written down in `file` and wait until it has ended.

    Raises:
        ProcessError: if it does not end in time.
    """
    pid = alive(file)
    if pid:
        os.kill(pid, how)
        wait_until(lambda: not alive(file), seconds, f"process {pid} to end")
    file.unlink(missing_ok=True)


def wait_until(condition: Callable[[], object], seconds: float, what: str) -> None:
    """Wait for a condition.

    Raises:
        ProcessError: if it does not come true in time.
    """
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            raise ProcessError(f"waited {seconds:.0f} s for {what}")
        time.sleep(0.1)
