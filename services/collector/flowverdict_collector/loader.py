"""What runs in the kernel, loaded by a child process that then exits.

Only loading needs privileges, and LLVM takes about 150 MB that a process never gives back, while
the programs and maps need only their file descriptors. So a child process (`attach`) does the work,
sends the descriptors over a Unix socket (unix(7), SCM_RIGHTS) and exits. It compiles against the
few headers next to the C file and the offsets in the running kernel's BTF, so the node needs no
kernel headers.
"""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path

from flowverdict_collector.pins import Pins
from flowverdict_collector.source import Options
from flowverdict_runtime.context import CannotRun

__all__ = ["LoadError", "Loaded", "Loader"]


class LoadError(CannotRun):
    """The programs cannot run here; the message says what is missing and how to get it."""


@dataclass(frozen=True, slots=True)
class Loaded:
    """Descriptors of what is running in the kernel, until they are closed.

    Attributes:
        maps: map name to descriptor.
        attached: tracepoint to the descriptor that keeps its program attached.
        programs: tracepoint to its program.
        missing: tracepoint to why it is not attached.
        pins: what keeps all this in the kernel when they are closed, if anything does.
        unpinned: why nothing does, if it should.
        drain: the program that counts at the end of an interval what the others left, if they
            leave anything.
    """

    maps: dict[str, int]
    attached: dict[str, int]
    programs: dict[str, int]
    missing: dict[str, str]
    pins: Pins | None = None
    unpinned: str = ""
    drain: int | None = None

    def detach(self, tracepoint: str) -> None:
        """Detach one program, also from what is pinned."""
        os.close(self.attached.pop(tracepoint))
        if self.pins is not None:
            self.pins.remove(f"program-*-{tracepoint}")
            self.pins.remove(f"link-*-{tracepoint}")

    def close(self) -> None:
        """Detach everything that is not pinned."""
        for each in (self.maps, self.attached, self.programs):
            for descriptor in each.values():
                os.close(descriptor)
        if self.drain is not None:
            os.close(self.drain)


class Loader:
    """The process that loads the programs. It has the privileges of whoever starts it, and keeps
    them when its parent gives up its own.
    """

    def __init__(self) -> None:
        self._open = contextlib.ExitStack()
        self._output = self._open.enter_context(tempfile.TemporaryFile())  # noqa: SIM115
        channel, theirs = socket.socketpair()
        self._channel = self._open.enter_context(channel)
        argv = [sys.executable, "-m", "flowverdict_collector.attach", str(theirs.fileno())]
        self._child = subprocess.Popen(
            argv, pass_fds=[theirs.fileno()], stdout=self._output, stderr=self._output
        )
        theirs.close()

    def close(self) -> None:
        """End the process, if it has not loaded anything."""
        self._open.close()
        self._child.wait()

    def load(
        self,
        options: Options,
        pins: Pins | None = None,
        *,
        claim: int | None = None,
    ) -> Loaded:
        """Attach every program; can be called once.

        Args:
            options: what is to be counted.
            pins: the node's, where to keep everything, and to find what is there already.
            claim: what `pins.claim` returned: the process holds it, too, as long as it runs.

        Raises:
            LoadError: if something the collector requires is missing.
        """
        folder = str(pins.folder) if pins else ""
        request = json.dumps([folder, asdict(options)])
        claims = [] if claim is None else [claim]
        try:
            socket.send_fds(self._channel, [request.encode()], claims)
            message, descriptors, _, _ = socket.recv_fds(self._channel, 1 << 20, 64)
        except OSError:  # it has ended
            message, descriptors = b"", []
        self._child.wait()
        self._output.seek(0)
        printed = self._output.read().decode(errors="replace").strip()
        if not message:
            raise LoadError(
                f"the loader exited with status {self._child.returncode}: {printed[-2000:]}"
            )
        answer = json.loads(message)
        if "error" in answer:
            raise LoadError(answer["error"] + (f"\n{printed[-2000:]}" if printed else ""))
        remaining = iter(descriptors)
        maps, attached, programs = (
            {name: next(remaining) for name in answer[kind]}
            for kind in ("maps", "attached", "programs")
        )
        kept = Pins(Path(answer["pins"])) if answer["pins"] else None
        return Loaded(
            maps,
            attached,
            programs,
            answer["missing"],
            kept,
            answer["unpinned"],
            next(remaining, None),
        )
