"""The child process of `loader`: compiles and attaches the programs, or finds them pinned.

What an earlier collector pinned goes on counting meanwhile. If it is the same version, there is
nothing to compile. Another version with the same maps takes over with all that is in them: all of
it is attached before it counts, then one write to the map `control` switches from the old programs
to the new ones, so each event is counted by exactly one of them.
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

from flowverdict_collector.btf import NoKernelTypes
from flowverdict_collector.hooks import HOOKS, Hook
from flowverdict_collector.kernel import read_value, write_value
from flowverdict_collector.loader import PINS, LoadError
from flowverdict_collector.pins import Pins
from flowverdict_collector.source import BPF, OF_NODE, OWN, PROCESS_MAP, Source, find_source
from flowverdict_runtime.ebpf import bpf, missing_capabilities

_DEBIAN_PACKAGES = "/usr/lib/python3/dist-packages"
_TEST_RUN = 10


class _TestRun(ctypes.Structure):
    """The part of union bpf_attr that BPF_PROG_TEST_RUN reads, without any input."""

    _fields_ = (("program", ctypes.c_uint32), ("zero", ctypes.c_uint32 * 19))


class _Control(ctypes.Structure):
    """The value of the map `control` (maps.bpf.h)."""

    _fields_ = (("active_program", ctypes.c_uint64), ("started", ctypes.c_uint64))


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


def _control(maps: Mapping[str, int]) -> Any:
    return read_value(maps["control"], ctypes.c_uint32(0), _Control)


def _activate(maps: Mapping[str, int], program: int) -> None:
    """From now on this version counts, and no other with these maps."""
    control = _control(maps)
    control.active_program = program
    write_value(maps["control"], ctypes.c_uint32(0), control)


def _load_here(
    max_flows: int, folder: str, find_namespaces: bool
) -> tuple[dict[str, Any], list[int]]:
    lacking = missing_capabilities()
    if lacking:
        raise LoadError(f"loading eBPF needs {' and '.join(lacking)}: run as root or grant them")
    source = find_source(max_flows, find_namespaces=find_namespaces)
    node = Pins(Path(folder)) if folder else None
    pins = node and node.of_layout(source.layout)
    maps = _pinned_maps(pins, source) if pins else {}
    attached = pins.get_all(f"link-{source.version}-") if pins else {}
    missing = {
        hook.tracepoint: "it could not be attached when counting began"
        for hook in HOOKS
        if hook.tracepoint not in attached
    }
    is_counting = bool(maps) and _control(maps).active_program == source.number
    if (
        pins
        and is_counting
        and not any(hook.required and hook.tracepoint in missing for hook in HOOKS)
    ):
        programs = pins.get_all(f"program-{source.version}-")
    else:
        maps, attached, programs, missing = _start(source, maps, pins, node)
    if PINS in missing:
        pins = None
    if pins and node:
        _detach_others(pins, node, source)
    if source.own_process_namespace:
        for slot, inode in ((OF_NODE, 0), (OWN, source.own_process_namespace)):
            write_value(maps[PROCESS_MAP], ctypes.c_uint32(slot), ctypes.c_uint32(inode))
    answer = {
        "maps": list(maps),
        "attached": list(attached),
        "programs": list(programs),
        "missing": missing | source.missing,
        "pins": str(pins.folder) if pins else "",
    }
    return answer, [*maps.values(), *attached.values(), *programs.values()]


def _pinned_maps(pins: Pins, source: Source) -> dict[str, int]:
    maps = pins.get_all("map-")
    if set(maps) == set(source.maps) and _control(maps).started:
        return maps
    pins.remove("*")  # of a collector that was killed before it counted
    return {}


def _start(
    source: Source, maps: dict[str, int], pins: Pins | None, node: Pins | None
) -> tuple[dict[str, int], dict[str, int], dict[str, int], dict[str, str]]:
    """Compile and attach the programs, and let them count; with `maps` if there are any."""
    bcc = _bcc()
    os.environ["BCC_KERNEL_SOURCE"] = str(BPF)
    try:
        program = bcc.BPF(text=source.text.encode(), cflags=source.flags)
    except Exception as error:  # noqa: BLE001 # BCC raises bare Exception
        raise LoadError(f"the kernel or the compiler rejected the programs: {error}") from None
    # The kernel looks up a program's maps by descriptor, when it loads the program.
    for name, descriptor in maps.items():
        os.dup2(descriptor, program[name].map_fd)
    for reason, offset in source.drop_offsets.items():
        program["drop_offsets"][ctypes.c_int(reason)] = ctypes.c_uint32(offset)
    is_new = not maps
    maps = {name: program[name].map_fd for name in source.maps}
    if is_new:
        write_value(maps["active_flows"], ctypes.c_uint32(0), ctypes.c_uint32(maps["flows_even"]))
    attached, missing = _attach(bcc.BPF, program, source.hooks)
    programs = {
        hook.tracepoint: program.funcs[hook.function.encode()].fd
        for hook in source.hooks
        if hook.tracepoint in attached
    }
    if pins:
        try:
            _pin(pins, source.version, maps, attached, programs)
        except OSError as error:
            pins.remove("*")
            missing[PINS] = f"the kernel refuses to pin programs ({error.strerror})"
    mark_start = program.load_func("mark_start", bcc.BPF.RAW_TRACEPOINT).fd
    for other in node.other_layouts(source.layout) if node else []:
        control = other.get("map-control")
        if control is not None:
            _activate({"control": control}, 0)
    if is_new:
        _run_once(mark_start)
    _activate(maps, source.number)
    return maps, attached, programs, missing


def _detach_others(pins: Pins, node: Pins, source: Source) -> None:
    """Detach the versions that no longer count; what is in their maps is still to be published."""
    for kind in ("link", "program"):
        pins.remove(f"{kind}-*", keep=source.version)
        for other in node.other_layouts(source.layout):
            other.remove(f"{kind}-*")


def _pin(
    pins: Pins,
    version: str,
    maps: Mapping[str, int],
    attached: Mapping[str, int],
    programs: Mapping[str, int],
) -> None:
    for prefix, descriptors in (
        ("map-", maps),
        (f"link-{version}-", attached),
        (f"program-{version}-", programs),
    ):
        for name, descriptor in descriptors.items():
            pins.put(f"{prefix}{name}", descriptor)


def _main() -> None:
    channel = socket.socket(fileno=int(sys.argv[1]))
    try:
        answer, descriptors = _load_here(*json.loads(sys.argv[2]))
    except (LoadError, NoKernelTypes) as error:
        channel.send(json.dumps({"error": str(error)}).encode())
        return
    socket.send_fds(channel, [json.dumps(answer).encode()], descriptors)
    # The programs outlive this process through the descriptors; BCC's own clean-up would detach.
    os._exit(0)


if __name__ == "__main__":
    _main()
