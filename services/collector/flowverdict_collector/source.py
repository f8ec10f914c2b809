"""What is to run in this kernel: the C text, its definitions, and what identifies both."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from flowverdict_collector.btf import KernelTypes, NoKernelTypes
from flowverdict_collector.definitions import (
    compiler_flags,
    drop_offsets,
    layout_flags,
    lookup_flags,
    namespace_flags,
    owner_flags,
)
from flowverdict_collector.hooks import (
    HOOKS,
    LOOKUP_HOOKS,
    NAMESPACE_HOOK,
    READ_HOOK,
    SWITCH,
    Hook,
)
from flowverdict_runtime.ebpf import can_compare_and_swap

__all__ = [
    "BPF",
    "DRAIN",
    "FIRST_PROCESS_NAMESPACE",
    "OF_NODE",
    "OWN",
    "OWNERS_MAP",
    "PROCESS_MAP",
    "Options",
    "Source",
    "find_source",
    "identify",
]

BPF = Path(__file__).parent / "bpf"
"""Where the C files and the headers that they include are."""
DRAIN = "count_rest"
"""The program that counts what sockets have in store at the end of an interval; the service runs
it, where the kernel lets it work beside the others."""
OWNERS_MAP, PROCESS_MAP = "network_namespaces", "process_namespaces"
"""The maps of namespaces.bpf.c, loaded in a container only."""
OWN, OF_NODE = 0, 1
"""Whose process namespace is in which slot of the latter."""
FIRST_PROCESS_NAMESPACE = 0xEFFFFFFC
"""The inode number of the kernel's first one (include/linux/proc_ns.h, PROC_PID_INIT_INO)."""

_MAPS = (
    "flows_even", "flows_odd", "active_flows", "sockets", "sockets_before", "no_flow", "no_socket",
    "untracked", "connecting", "lost", "control", "progress", "drop_offsets",
)  # fmt: skip
_LOOKUP_MAPS = ("lookups", "begun", "pending_lookups", "names", "names_needed_since")
_DRAINED_MAP = "changed"
_OWNER_MAPS = ("control_groups",)


@dataclass(frozen=True, slots=True)
class Options:
    """What is to be counted, and how.

    Attributes:
        max_flows: capacity of the maps.
        find_namespaces: whether to find out which network namespaces belong to this node, if it
            may share its kernel with others.
        lookups: whether to count DNS lookups.
        fold_client_ports: whether all connections of a client to one port of a server are one flow.
    """

    max_flows: int
    find_namespaces: bool = True
    lookups: bool = False
    fold_client_ports: bool = False


@dataclass(frozen=True, slots=True)
class Source:
    """What is to run in this kernel: C text and definitions, and what goes into the maps.

    Attributes:
        layout: identifies the maps.
        version: identifies the programs.
        drop_offsets: drop reason to the offsets of its kind's counter and its own.
        own_process_namespace: inode number, 0 if network namespaces are not told apart.
        lookups: whether DNS lookups are counted.
        drained: whether connections are sampled once a tick, so that the program `DRAIN` must count
            the rest.
        owners: whether the control groups of sockets are read.
        missing: tracepoint to why it cannot be of use.
    """

    text: str
    flags: list[str]
    layout: str
    version: str
    drop_offsets: dict[int, tuple[int, int]]
    own_process_namespace: int
    lookups: bool
    drained: bool
    owners: bool
    missing: dict[str, str]

    @property
    def maps(self) -> tuple[str, ...]:
        """The names of the maps."""
        of_namespaces = (OWNERS_MAP, PROCESS_MAP) if self.own_process_namespace else ()
        of_lookups = _LOOKUP_MAPS if self.lookups else ()
        of_drain = (_DRAINED_MAP,) if self.drained else ()
        of_owners = _OWNER_MAPS if self.owners else ()
        return (*_MAPS, *of_namespaces, *of_lookups, *of_drain, *of_owners)

    @property
    def hooks(self) -> tuple[Hook, ...]:
        """The programs, and where they attach."""
        of_reading = () if self.drained else (READ_HOOK,)
        of_namespaces = (NAMESPACE_HOOK,) if self.own_process_namespace else ()
        of_lookups = LOOKUP_HOOKS if self.lookups else ()
        return (*HOOKS, *of_reading, *of_namespaces, *of_lookups)


def identify(*parts: str) -> str:
    """15 hexadecimal digits, the same for the same parts only."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:15]


def find_source(options: Options) -> Source:
    """What to run here.

    Raises:
        NoKernelTypes: if the kernel does not describe what the programs read.
    """
    own = Path("/proc/self/ns/pid").stat().st_ino
    in_container = options.find_namespaces and own != FIRST_PROCESS_NAMESPACE
    maps, text = ((BPF / name).read_text() for name in ("maps.bpf.h", "flows.bpf.c"))
    missing = {}
    with KernelTypes() as types:
        drained = can_compare_and_swap()
        of_layout = layout_flags(types, options.max_flows, drained=drained)
        flags = [*of_layout, *compiler_flags(types)]
        reasons = drop_offsets(types)
        if options.fold_client_ports:
            flags.append("-DFOLD_CLIENT_PORTS")
        if options.lookups:
            flags += lookup_flags(types)
        of_owners = owner_flags(types)
        flags += of_owners
        if in_container:
            try:
                flags += namespace_flags(types)
            except NoKernelTypes as error:
                in_container, missing[SWITCH] = False, str(error)
    if not reasons:
        missing["kfree_skb"] = "this kernel has no drop reasons (before Linux 5.17)"
    parts = {
        "owners.bpf.c": bool(of_owners),
        "namespaces.bpf.c": in_container,
        "lookups.bpf.c": options.lookups,
    }
    others = "".join((BPF / name).read_text() for name, is_part in parts.items() if is_part)
    version = identify(maps, text, others, *flags, repr(sorted(reasons.items())))
    return Source(
        text=maps + text + others,
        flags=flags,
        layout=identify(maps, others, *of_layout),
        version=version,
        drop_offsets=reasons,
        own_process_namespace=own if in_container else 0,
        lookups=options.lookups,
        drained=drained,
        owners=bool(of_owners),
        missing=missing,
    )
