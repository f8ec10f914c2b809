"""The child process of `loader`: compiles and attaches the programs, or finds them pinned.

What an earlier collector pinned goes on counting meanwhile. If it is the same version, there is
nothing to compile. Another version is attached before it counts, and then takes over.
"""

import ctypes
import importlib
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowverdict_collector import takeover
from flowverdict_collector.btf import NoKernelTypes
from flowverdict_collector.hooks import Hook
from flowverdict_collector.kernel import run_program, write_value
from flowverdict_collector.loader import Loaded, LoadError
from flowverdict_collector.pins import Pins
from flowverdict_collector.refusals import why_refused
from flowverdict_collector.source import (
    BPF,
    DRAIN,
    OF_NODE,
    OWN,
    PROCESS_MAP,
    Options,
    Source,
    find_source,
)
from flowverdict_runtime.ebpf import missing_capabilities

_DEBIAN_PACKAGES = "/usr/lib/python3/dist-packages"


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


def _load(bpf_class: Any, program: Any, function: str) -> int:
    """A function that runs at no tracepoint, but when it is told to."""
    descriptor: int = program.load_func(function, bpf_class.RAW_TRACEPOINT).fd
    return descriptor


def _load_here(folder: str, options: Options) -> tuple[dict[str, Any], list[int]]:
    lacking = missing_capabilities()
    if lacking:
        raise LoadError(f"loading eBPF needs {' and '.join(lacking)}: run as root or grant them")
    if why := why_refused():
        raise LoadError(why)
    source = find_source(options)
    node = Pins(Path(folder)) if folder else None
    pins, maps = takeover.current_set(node, source) if node else (None, {})
    if pins and maps and takeover.counting_version(pins) == source.version:
        loaded = _found(pins, maps, source)
    else:
        loaded = _start(source, maps, pins, node)
    if node:
        takeover.detach_others(node, pins, source.version)
    takeover.move_sockets(loaded.maps)
    if source.own_process_namespace:
        for slot, inode in ((OF_NODE, 0), (OWN, source.own_process_namespace)):
            write_value(loaded.maps[PROCESS_MAP], ctypes.c_uint32(slot), ctypes.c_uint32(inode))
    answer = {
        "maps": list(loaded.maps),
        "attached": list(loaded.attached),
        "programs": list(loaded.programs),
        "missing": loaded.missing | source.missing,
        "unpinned": loaded.unpinned,
        "pins": str(pins.folder) if pins and not loaded.unpinned else "",
    }
    descriptors = (loaded.maps, loaded.attached, loaded.programs)
    drain = [] if loaded.drain is None else [loaded.drain]
    return answer, [*(each for kind in descriptors for each in kind.values()), *drain]


def _found(pins: Pins, maps: dict[str, int], source: Source) -> Loaded:
    """What is pinned of this version."""
    attached = pins.get_all(f"link-{source.version}-")
    programs = pins.get_all(f"program-{source.version}-")
    missing = {
        hook.tracepoint: "it could not be attached when counting began"
        for hook in source.hooks
        if hook.tracepoint not in attached
    }
    drain = pins.get_all(f"drain-{source.version}").get("")
    return Loaded(maps, attached, programs, missing, drain=drain)


def _compiled(
    bcc: Any, source: Source, pinned: Mapping[str, int], number: int
) -> tuple[Any, dict[str, int]]:
    """BCC's object, of which nothing is loaded yet, and its maps: those pinned, or new ones."""
    os.environ["BCC_KERNEL_SOURCE"] = str(BPF)
    flags = [*source.flags, f"-DPROGRAM_ID={number}ULL"]
    try:
        program = bcc.BPF(text=source.text.encode(), cflags=flags)
    except Exception as error:  # noqa: BLE001 # BCC raises bare Exception
        raise LoadError(f"the kernel or the compiler rejected the programs: {error}") from None
    # The kernel looks up a program's maps by descriptor, when it loads the program.
    for name, descriptor in pinned.items():
        os.dup2(descriptor, program[name].map_fd)
    maps = {name: program[name].map_fd for name in source.maps}
    for reason in range(len(program["drop_offsets"])):
        offsets = (ctypes.c_uint16 * 2)(*source.drop_offsets.get(reason, (0, 0)))
        write_value(maps["drop_offsets"], ctypes.c_uint32(reason), offsets)
    if not pinned:
        write_value(maps["active_flows"], ctypes.c_uint32(0), ctypes.c_uint32(maps["flows_even"]))
    return program, maps


def _start(
    source: Source, pinned: Mapping[str, int], pins: Pins | None, node: Pins | None
) -> Loaded:
    """Compile and attach the programs, and let them count, with the maps that are pinned if any."""
    if pins:  # an earlier copy of these programs; it is detached long before they are compiled
        pins.remove(f"link-{source.version}-*")
    bcc = _bcc()
    number = takeover.number_of(source.version, pins)
    others = [each for each in node.sets() if each != pins] if node else []
    program, maps = _compiled(bcc, source, pinned, number)
    if not pinned:
        takeover.go_on_from(others, maps)
    attached, missing = _attach(bcc.BPF, program, source.hooks)
    programs = {
        hook.tracepoint: program.funcs[hook.function.encode()].fd
        for hook in source.hooks
        if hook.tracepoint in attached
    }
    drain = _load(bcc.BPF, program, DRAIN) if source.drained else None
    unpinned = ""
    if pins:
        try:
            takeover.pin(pins, source.version, {} if pinned else maps, attached, programs, drain)
        except OSError as error:
            unpinned = f"the kernel refuses to pin programs: {error.strerror}"
    mark_start = _load(bcc.BPF, program, "mark_start")
    for other in others:
        takeover.end(other, maps)
    takeover.activate(maps["control"], number)
    run_program(mark_start)
    if pins and unpinned:
        pins.remove_all()
    return Loaded(maps, attached, programs, missing, unpinned=unpinned, drain=drain)


def _main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    # The claim is held until this process ends.
    request, _, _, _ = socket.recv_fds(channel, 1 << 16, 1)
    if not request:
        return  # nothing is to be loaded
    try:
        folder, options = json.loads(request)
        answer, descriptors = _load_here(folder, Options(**options))
    except (LoadError, NoKernelTypes) as error:
        channel.send(json.dumps({"error": str(error)}).encode())
        return
    socket.send_fds(channel, [json.dumps(answer).encode()], descriptors)
    # The programs outlive this process through the descriptors; BCC's own clean-up would detach.
    os._exit(0)


if __name__ == "__main__":
    _main()
