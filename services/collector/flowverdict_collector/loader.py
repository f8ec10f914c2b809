"""What runs in the kernel, loaded by a child process that then exits.

LLVM takes about 150 MB that a process never gives back; the programs and maps need only their
file descriptors. So a child process (`attach`) does the work, sends the descriptors over a Unix
socket (unix(7), SCM_RIGHTS) and exits. It compiles against the few headers next to the C file and
the offsets in the running kernel's BTF, so the node needs no kernel headers.
"""

import json
import os
import socket
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from flowverdict_collector.pins import Pins
from flowverdict_runtime.context import CannotRun

__all__ = ["LoadError", "Loaded", "load"]


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
    """

    maps: dict[str, int]
    attached: dict[str, int]
    programs: dict[str, int]
    missing: dict[str, str]
    pins: Pins | None = None
    unpinned: str = ""

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


def load(
    max_flows: int,
    pins: Pins | None = None,
    *,
    claim: int | None = None,
    find_namespaces: bool = True,
) -> Loaded:
    """Attach every program, from a child process.

    Args:
        max_flows: capacity of the maps.
        pins: the node's, where to keep everything, and to find what is there already.
        claim: what `pins.claim` returned.
        find_namespaces: whether to find out which network namespaces belong to this node, if it
            may share its kernel with others.

    Raises:
        LoadError: if something the collector requires is missing.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryFile() as output:
        argv = [sys.executable, "-m", "flowverdict_collector.attach", str(theirs.fileno())]
        argv.append(json.dumps([max_flows, str(pins.folder) if pins else "", find_namespaces]))
        # The child must not go on with pins that are no longer claimed.
        kept = [theirs.fileno(), *([] if claim is None else [claim])]
        child = subprocess.Popen(argv, pass_fds=kept, stdout=output, stderr=output)
        theirs.close()
        message, descriptors, _, _ = socket.recv_fds(ours, 1 << 20, 64)
        child.wait()
        output.seek(0)
        printed = output.read().decode(errors="replace").strip()
    if not message:
        raise LoadError(f"the loader exited with status {child.returncode}: {printed[-2000:]}")
    answer = json.loads(message)
    if "error" in answer:
        raise LoadError(answer["error"] + (f"\n{printed[-2000:]}" if printed else ""))
    remaining = iter(descriptors)
    maps, attached, programs = (
        {name: next(remaining) for name in answer[kind]}
        for kind in ("maps", "attached", "programs")
    )
    folder = Pins(Path(answer["pins"])) if answer["pins"] else None
    return Loaded(maps, attached, programs, answer["missing"], folder, answer["unpinned"])
