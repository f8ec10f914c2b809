"""Compiles, loads and attaches flows.bpf.c in a child process that then exits.

LLVM takes about 150 MB that a process never gives back; the programs and maps need only their
file descriptors. So a child process does the work, sends the descriptors over a Unix socket
(unix(7), SCM_RIGHTS) and exits. It compiles against the few headers next to the C file and the
offsets in the running kernel's BTF, so the node needs no kernel headers.
"""

import ctypes
import importlib
import json
import os
import socket
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flowverdict_collector.btf import KernelTypes, NoKernelTypes
from flowverdict_collector.definitions import compiler_flags, drop_offsets, namespace_flags
from flowverdict_collector.hooks import HOOKS, NAMESPACE_HOOK, SWITCH, Hook
from flowverdict_runtime.context import CannotRun
from flowverdict_runtime.ebpf import bpf, missing_capabilities

__all__ = ["FIRST_PROCESS_NAMESPACE", "NODE_MAP", "OWNERS_MAP", "LoadError", "Loaded", "load"]

_BPF = Path(__file__).parent / "bpf"
_DEBIAN_PACKAGES = "/usr/lib/python3/dist-packages"
_MAPS = ("flows_even", "flows_odd", "active_flows", "lost")
OWNERS_MAP, NODE_MAP = "network_namespaces", "node_process_namespace"
"""The maps of namespaces.bpf.c, loaded in a container only."""
FIRST_PROCESS_NAMESPACE = 0xEFFFFFFC
"""The inode number of the kernel's first one (include/linux/proc_ns.h, PROC_PID_INIT_INO)."""


_TEST_RUN = 10


class _TestRun(ctypes.Structure):
    """The part of union bpf_attr that BPF_PROG_TEST_RUN reads, without any input."""

    _fields_ = (("program", ctypes.c_uint32), ("zero", ctypes.c_uint32 * 19))


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
    """

    maps: dict[str, int]
    attached: dict[str, int]
    programs: dict[str, int]
    missing: dict[str, str]

    def close(self) -> None:
        """Detach everything."""
        for each in (self.maps, self.attached, self.programs):
            for descriptor in each.values():
                os.close(descriptor)


def load(max_flows: int, max_sockets: int) -> Loaded:
    """Attach every program, from a child process.

    Raises:
        LoadError: if something the collector requires is missing.
    """
    ours, theirs = socket.socketpair()
    with ours, theirs, tempfile.TemporaryFile() as output:
        argv = [sys.executable, "-m", __name__]
        argv += [str(theirs.fileno()), str(max_flows), str(max_sockets)]
        child = subprocess.Popen(argv, pass_fds=[theirs.fileno()], stdout=output, stderr=output)
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
    of_maps = len(answer["maps"])
    of_hooks = of_maps + len(answer["attached"])
    return Loaded(
        maps=dict(zip(answer["maps"], descriptors[:of_maps], strict=True)),
        attached=dict(zip(answer["attached"], descriptors[of_maps:of_hooks], strict=True)),
        programs=dict(zip(answer["attached"], descriptors[of_hooks:], strict=True)),
        missing=answer["missing"],
    )


def _bcc() -> Any:
    # Debian's package belongs to the system's Python; a virtual environment does not see it.
    sys.path.append(_DEBIAN_PACKAGES)
    try:
        bcc = importlib.import_module("bcc")
    except (ImportError, OSError) as error:
        raise LoadError(f"BCC is missing ({error}): install Debian's python3-bpfcc") from None
    if not hasattr(bcc, "BPF"):
        raise LoadError("the Python package 'bcc' is not BCC: remove it and install python3-bpfcc")
    return bcc


def _attach(
    bpf_class: Any, program: Any, hooks: Sequence[Hook]
) -> tuple[dict[str, int], dict[str, str]]:
    attached, missing = {}, {}
    for hook in hooks:
        try:
            program.load_func(hook.function, bpf_class.RAW_TRACEPOINT)
            program.attach_raw_tracepoint(
                tp=hook.tracepoint.encode(), fn_name=hook.function.encode()
            )
        except Exception as error:  # noqa: BLE001 # BCC raises bare Exception
            if hook.required:
                raise LoadError(
                    f"cannot attach to tracepoint {hook.tracepoint} ({error}): "
                    f"without it the collector cannot count {hook.counts}"
                ) from None
            missing[hook.tracepoint] = str(error)
        else:
            attached[hook.tracepoint] = program.raw_tracepoint_fds[hook.tracepoint.encode()]
    return attached, missing


def _run_once(descriptor: int) -> None:
    """Run a raw tracepoint's program without its tracepoint; Linux can since 5.10.

    Raises:
        OSError: if the kernel refuses.
    """
    bpf(_TEST_RUN, _TestRun(descriptor))


def _load_here(max_flows: int, max_sockets: int) -> tuple[dict[str, Any], list[int]]:
    missing = missing_capabilities()
    if missing:
        raise LoadError(f"loading eBPF needs {' and '.join(missing)}: run as root or grant them")
    bcc = _bcc()
    text = (_BPF / "flows.bpf.c").read_bytes()
    own = Path("/proc/self/ns/pid").stat().st_ino
    in_container, no_namespaces = own != FIRST_PROCESS_NAMESPACE, ""
    with KernelTypes() as types:
        flags = compiler_flags(types, max_flows, max_sockets)
        reasons = drop_offsets(types)
        if in_container:
            try:
                flags += namespace_flags(types, own)
                text += (_BPF / "namespaces.bpf.c").read_bytes()
            except NoKernelTypes as error:
                in_container, no_namespaces = False, str(error)
    os.environ["BCC_KERNEL_SOURCE"] = str(_BPF)
    try:
        program = bcc.BPF(text=text, cflags=flags)
    except Exception as error:  # noqa: BLE001 # BCC raises bare Exception
        raise LoadError(f"the kernel or the compiler rejected the programs: {error}") from None
    for reason, offset in reasons.items():
        program["drop_offsets"][ctypes.c_int(reason)] = ctypes.c_uint32(offset)
    program["active_flows"][ctypes.c_int(0)] = ctypes.c_int(program["flows_even"].map_fd)
    hooks = [*HOOKS, NAMESPACE_HOOK] if in_container else HOOKS
    attached, not_attached = _attach(bcc.BPF, program, hooks)
    _run_once(program.load_func("mark_start", bcc.BPF.RAW_TRACEPOINT).fd)
    if not reasons:
        not_attached["kfree_skb"] = "this kernel has no drop reasons (before Linux 5.17)"
    if no_namespaces:
        not_attached[SWITCH] = no_namespaces
    maps = [*_MAPS, OWNERS_MAP, NODE_MAP] if in_container else list(_MAPS)
    programs = [program.funcs[each.function.encode()].fd for each in hooks
                if each.tracepoint in attached]  # fmt: skip
    descriptors = [*(program[name].map_fd for name in maps), *attached.values(), *programs]
    return {"attached": list(attached), "missing": not_attached, "maps": maps}, descriptors


def _main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    try:
        answer, descriptors = _load_here(int(sys.argv[2]), int(sys.argv[3]))
    except (LoadError, NoKernelTypes) as error:
        channel.send(json.dumps({"error": str(error)}).encode())
        return
    socket.send_fds(channel, [json.dumps(answer).encode()], descriptors)
    # The programs outlive this process through the descriptors; BCC's own clean-up would detach.
    os._exit(0)


if __name__ == "__main__":
    _main()
