"""Which programs count, and into which maps, when a collector is followed by another.

The map `control` says which version counts; all others that are attached do nothing. Another
version goes on with the same maps, or with maps of its own that share `control` and find in those
before what was counted of each socket last. So one write switches from the old programs to the new
ones, and no event falls between them.
"""

import contextlib
import ctypes
import os
from collections.abc import Mapping, Sequence
from typing import Any

from flowverdict_collector.kernel import describe, move_entries, read_value, write_value
from flowverdict_collector.pins import Pins
from flowverdict_collector.source import Source, identify
from flowverdict_contracts.raw import KEY_BYTES

__all__ = [
    "activate",
    "counting_version",
    "current_set",
    "detach_others",
    "end",
    "go_on_from",
    "move_sockets",
    "number_of",
    "pin",
]

_SAMPLED_AT = KEY_BYTES + 8
"""Where that is in struct tracked_socket (maps.bpf.h): it names a place in the maps before."""


class _Control(ctypes.Structure):
    """The value of the map `control` (maps.bpf.h)."""

    _fields_ = (
        ("active_program", ctypes.c_uint64),
        ("started", ctypes.c_uint64),
        ("node_network", ctypes.c_uint64),
        ("started_ns", ctypes.c_uint64),
    )


def _read(control: int) -> Any:
    return read_value(control, ctypes.c_uint32(0), _Control)


def activate(control: int, number: int) -> None:
    """From now on the version with this number counts, and no other that reads this map."""
    value = _read(control)
    value.active_program = number
    write_value(control, ctypes.c_uint32(0), value)


def number_of(version: str, pins: Pins | None) -> int:
    """What `control` calls a version that counts into these maps; other maps may share it."""
    return int(identify(version, pins.folder.name if pins else ""), 16)


def counting_version(pins: Pins) -> str:
    """Which version counts into these maps; empty if none does any longer."""
    versions = {name.partition("-")[0] for name in pins.names("program-")}
    control = pins.get_all("map-control").get("")
    active = None if control is None else _read(control).active_program
    return next((each for each in versions if number_of(each, pins) == active), "")


def current_set(node: Pins, source: Source) -> tuple[Pins, dict[str, int]]:
    """The pinned maps that are of this layout and counted into, or a folder for new ones.

    Maps into which nothing counts any longer, or not all of a version, are only still to be
    published: to count into them again would count what others have counted meanwhile.
    """
    for each in node.sets():
        if not each.folder.name.startswith(f"{source.layout}-"):
            continue
        maps = each.get_all("map-")
        version = counting_version(each)
        if set(maps) != set(source.maps) or not _read(maps["control"]).started:
            each.remove_all()  # of a collector that was killed before it counted
        elif version == source.version:
            if each.names(f"link-{version}-") == each.names(f"program-{version}-"):
                return each, maps
        elif version:
            return each, maps
    return node.new_set(source.layout), {}


def go_on_from(others: Sequence[Pins], maps: Mapping[str, int]) -> None:
    """Let programs that are not loaded yet take over from those that count with other maps.

    They share the map that says who counts, and find in `sockets_before` what was counted of each
    socket last.
    """
    for other in filter(counting_version, others):
        theirs = other.get_all("map-")
        shared = {"control": "control", "sockets_before": "sockets"}
        if theirs.keys() >= set(shared.values()) and all(
            _are_alike(maps[ours], theirs[name]) for ours, name in shared.items()
        ):
            for ours, name in shared.items():
                os.dup2(theirs[name], maps[ours])


def _are_alike(one: int, other: int) -> bool:
    sizes = [describe(each) for each in (one, other)]
    return all(sizes[0][name] == sizes[1][name] for name in ("key_size", "value_size"))


def end(other: Pins, maps: Mapping[str, int]) -> None:
    """Let nothing count into another set of maps any longer, if one write is not to do that."""
    control = other.get_all("map-control").get("")
    if control is not None and describe(control)["map_id"] != describe(maps["control"])["map_id"]:
        activate(control, 0)


def move_sockets(maps: Mapping[str, int]) -> None:
    """Move what was counted of each socket last out of the maps before, which can then be freed."""
    with contextlib.suppress(OSError):  # no room: each moves when something happens to it
        move_entries(maps["sockets_before"], maps["sockets"], _SAMPLED_AT)


def detach_others(node: Pins, current: Pins | None, version: str) -> None:
    """Detach the versions that no longer count; what is in their maps is still to be published."""
    for each in node.sets():
        for kind in ("link", "program", "drain"):
            for name in each.names(f"{kind}-"):
                if each != current or not name.startswith(version):
                    each.remove(f"{kind}-{name}")


def pin(
    pins: Pins,
    version: str,
    maps: Mapping[str, int],
    attached: Mapping[str, int],
    programs: Mapping[str, int],
    drain: int | None,
) -> None:
    """Pin a version, and its maps if they are new.

    What is pinned last makes it complete: the programs, and of new maps the one that says who
    counts.

    Raises:
        OSError: if the kernel refuses.
    """
    if drain is not None:
        pins.put(f"drain-{version}", drain)
    for prefix, descriptors in (
        ("map-", {name: each for name, each in maps.items() if name != "control"}),
        (f"link-{version}-", attached),
        (f"program-{version}-", programs),
        ("map-", {name: each for name, each in maps.items() if name == "control"}),
    ):
        for name, descriptor in descriptors.items():
            pins.put(f"{prefix}{name}", descriptor)
