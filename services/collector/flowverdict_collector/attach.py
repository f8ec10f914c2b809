"""The child process of `loader`: compiles and attaches the programs, or finds them pinned.

What an earlier collector pinned goes on counting meanwhile. If it is the same version, there is
nothing to compile. Another version with the same maps takes over with all that is in them: all of
it is attached before it counts, then one write to the map `control` switches from the old programs
to the new ones, so that no event falls between them.
"""

import contextlib
import ctypes
import importlib
import json
import os
import socket
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from flowverdict_collector.btf import NoKernelTypes
from flowverdict_collector.hooks import Hook
from flowverdict_collector.kernel import (
    copy_entries,
    describe,
    read_value,
    run_program,
    write_value,
)
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


class _Control(ctypes.Structure):
    """The value of the map `control` (maps.bpf.h)."""

    _fields_ = (
        ("active_program", ctypes.c_uint64),
        ("started", ctypes.c_uint64),
        ("node_network", ctypes.c_uint64),
        ("started_ns", ctypes.c_uint64),
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


def _load(bpf_class: Any, program: Any, function: str) -> int:
    """A function that runs at no tracepoint, but when it is told to."""
    descriptor: int = program.load_func(function, bpf_class.RAW_TRACEPOINT).fd
    return descriptor


def _control(maps: Mapping[str, int]) -> Any:
    return read_value(maps["control"], ctypes.c_uint32(0), _Control)


def _activate(maps: Mapping[str, int], program: int) -> None:
    """From now on this version counts, and no other with these maps."""
    control = _control(maps)
    control.active_program = program
    write_value(maps["control"], ctypes.c_uint32(0), control)


def _load_here(folder: str, options: Options) -> tuple[dict[str, Any], list[int]]:
    lacking = missing_capabilities()
    if lacking:
        raise LoadError(f"loading eBPF needs {' and '.join(lacking)}: run as root or grant them")
    if why := why_refused():
        raise LoadError(why)
    source = find_source(options)
    node = Pins(Path(folder)) if folder else None
    pins, maps = _current_set(node, source) if node else (None, {})
    if pins and maps and _control(maps).active_program == source.number:
        loaded = _found(pins, maps, source)
    else:
        loaded = _start(source, maps, pins, node)
    if node:
        _detach_others(node, pins, source.version)
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


def _current_set(node: Pins, source: Source) -> tuple[Pins, dict[str, int]]:
    """The pinned maps that are of this layout and counted into, or a folder for new ones.

    Maps into which nothing counts any longer, or not all of a version, are only still to be
    published: to count into them again would count what others have counted meanwhile.
    """
    for each in node.sets():
        if not each.folder.name.startswith(f"{source.layout}-"):
            continue
        maps = each.get_all("map-")
        if set(maps) != set(source.maps) or not _control(maps).started:
            each.remove_all()  # of a collector that was killed before it counted
        elif _control(maps).active_program == source.number:
            if each.names(f"link-{source.version}-") == each.names(f"program-{source.version}-"):
                return each, maps
        elif _control(maps).active_program:
            return each, maps
    return node.new_set(source.layout), {}


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


def _compiled(bcc: Any, source: Source, pinned: Mapping[str, int]) -> tuple[Any, dict[str, int]]:
    """BCC's object, of which nothing is loaded yet, and its maps: those pinned, or new ones."""
    os.environ["BCC_KERNEL_SOURCE"] = str(BPF)
    try:
        program = bcc.BPF(text=source.text.encode(), cflags=source.flags)
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
    program, maps = _compiled(bcc, source, pinned)
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
            _pin(pins, source.version, {} if pinned else maps, attached, programs, drain)
        except OSError as error:
            unpinned = f"the kernel refuses to pin programs: {error.strerror}"
    mark_start = _load(bcc.BPF, program, "mark_start")
    for other in node.sets() if node else []:
        if other != pins:
            _end(other, maps)
    _activate(maps, source.number)
    if not pinned:
        run_program(mark_start)
    if pins and unpinned:
        pins.remove_all()
    return Loaded(maps, attached, programs, missing, unpinned=unpinned, drain=drain)


def _end(other: Pins, maps: Mapping[str, int]) -> None:
    """Let nothing count into another set of maps any longer, and go on from its sockets' totals."""
    ended = other.get_all("map-")
    if not ended.keys() >= {"control", "sockets"} or not _control(ended).active_program:
        return
    _activate(ended, 0)
    sizes = [describe(each["sockets"]) for each in (ended, maps)]
    if all(sizes[0][name] == sizes[1][name] for name in ("key_size", "value_size")):
        with contextlib.suppress(OSError):  # the new maps may be smaller
            copy_entries(ended["sockets"], maps["sockets"])


def _detach_others(node: Pins, current: Pins | None, version: str) -> None:
    """Detach the versions that no longer count; what is in their maps is still to be published."""
    for each in node.sets():
        for kind in ("link", "program", "drain"):
            for name in each.names(f"{kind}-"):
                if each != current or not name.startswith(version):
                    each.remove(f"{kind}-{name}")


def _pin(
    pins: Pins,
    version: str,
    maps: Mapping[str, int],
    attached: Mapping[str, int],
    programs: Mapping[str, int],
    drain: int | None,
) -> None:
    # What is pinned last, the programs, makes a version complete.
    if drain is not None:
        pins.put(f"drain-{version}", drain)
    for prefix, descriptors in (
        ("map-", maps),
        (f"link-{version}-", attached),
        (f"program-{version}-", programs),
    ):
        for name, descriptor in descriptors.items():
            pins.put(f"{prefix}{name}", descriptor)


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
