"""A machine of the cluster: a process with network, mounts, processes and a name of its own.

What runs on it ends with that process. All machines are in the process namespace of the cluster, so
ending the cluster's first process ends everything at once, and the kernel removes the rest.
"""

import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flowverdict_lab.kubernetes.processes import (
    ProcessError,
    alive,
    end,
    innermost,
    remember,
    spawn,
    wait_until,
)

__all__ = ["FABRIC", "Host"]

FABRIC = "fabric"
"""The first process: it holds the bridge between the machines, and the disk that they share."""

# Reaps what loses its parent, as a machine's init does.
_INIT = "while :; do sleep 1000; done"
_OWN = ("unshare", "--fork", "--kill-child", "--pid", "--net", "--mount", "--uts", "--ipc",
        "--propagation", "private")  # fmt: skip


@dataclass(frozen=True, slots=True)
class Host:
    """A machine.

    Attributes:
        name: its host name.
        folder: the cluster's folder on this machine, with logs and process ids.
    """

    name: str
    folder: Path

    @property
    def pid(self) -> int:
        """Its first process; 0 if it does not run."""
        return alive(self._record(""))

    @property
    def root(self) -> Path:
        """Its file system, as this machine sees it."""
        return Path(f"/proc/{self.pid}/root")

    def start(self, setup: str) -> None:
        """Start it within the fabric's namespaces; the fabric itself within this machine's.

        Args:
            setup: a shell script, run on it before anything else.

        Raises:
            ProcessError: if the script fails.
        """
        if self.name == FABRIC:
            self._begin(_OWN, setup, ancestors=1)
        else:
            fabric = Host(FABRIC, self.folder)
            enter = ["nsenter", "-t", str(fabric.pid), "--pid", "--net", "--mount"]
            self._begin([*enter, *_OWN], setup, ancestors=2)

    def inside(self, argv: Sequence[str], text: str | None = None) -> str:
        """Run a command on it; returns its output.

        Raises:
            ProcessError: if it fails, with its output.
        """
        done = subprocess.run(
            [*self._enter(), *argv], input=text, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            output = (done.stderr or done.stdout).strip()
            raise ProcessError(f"{' '.join(argv[:2])} on {self.name}: {output}")
        return done.stdout

    def run(self, part: str, argv: Sequence[str]) -> None:
        """Start a long-running part of it, such as its kubelet; it goes on by itself."""
        pid = spawn([*self._enter(), *argv], self.log(part))
        remember(innermost(pid, 1), self._record(part))

    def stop(self, part: str) -> None:
        """Kill a part."""
        end(self._record(part))

    def runs(self, part: str) -> bool:
        """Whether the part runs."""
        return bool(alive(self._record(part)))

    def parts(self) -> list[str]:
        """The parts that were started on it."""
        begins = f"{self.name}-"
        found = (self.folder / "run").glob(f"{begins}*.pid")
        return sorted(file.stem.removeprefix(begins) for file in found)

    def log(self, part: str) -> Path:
        """The part's log."""
        return self.folder / "log" / f"{self.name}-{part or 'init'}.log"

    def _enter(self) -> list[str]:
        return ["nsenter", "-t", str(self.pid), "--pid", "--net", "--mount", "--uts", "--ipc"]

    def _record(self, part: str) -> Path:
        return self.folder / "run" / ("-".join(filter(None, (self.name, part))) + ".pid")

    def _begin(self, how: Sequence[str], setup: str, ancestors: int) -> None:
        ready = self.folder / "run" / f"{self.name}.ready"
        ready.unlink(missing_ok=True)
        script = f"set -e\nmount -t proc proc /proc\nhostname {self.name}\n{setup}\n"
        script += f"touch {ready}\nset +e\n{_INIT}\n"
        pid = spawn([*how, "sh", "-c", script], self.log(""))
        first = innermost(pid, ancestors)
        remember(first, self._record(""))
        wait_until(lambda: ready.exists() or not self.pid, 30, f"{self.name} to start")
        if not self.pid:
            raise ProcessError(f"{self.name} did not start: {self.log('').read_text().strip()}")
