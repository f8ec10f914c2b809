"""The pods and containers on the node's own network, for the records that refer to them.

The kernel keeps the names of a socket's control group and of those above it (owners.bpf.c). The
kubelet calls a pod's `podUID` (cgroupfs) or `kubepods-burstable-podUID.slice` (systemd, which lets
no hyphen be in a part); for a static pod, that is its `kubernetes.io/config.hash`. Docker calls a
container's `docker-ID.scope`, or `ID` below `docker`.
"""

import ctypes
import re
from collections.abc import Mapping

from flowverdict_collector.kernel import read_value
from flowverdict_contracts import numbered_texts
from flowverdict_contracts.raw import FIELDS

__all__ = ["Owners", "owner_in"]

_OFFSET = next(field.offset for field in FIELDS if field.name == "owner")
_SEVERAL = 0xFFFFFFFF
_LEVELS, _LEVEL_BYTES = 4, 96
_MOST = 4096

_UID = r"[0-9a-f]{8}(?:[-_][0-9a-f]{4}){3}[-_][0-9a-f]{12}|[0-9a-f]{32}"
_POD = re.compile(rf"(?:^|-)pod({_UID})(?:\.slice)?$")
_CONTAINER = re.compile(r"^docker-([0-9a-f]{64})\.scope$")
_CONTAINER_BELOW_DOCKER = re.compile(r"^([0-9a-f]{64})/docker(?:/|$)")


class _Group(ctypes.Structure):
    """`struct control_group` in owners.bpf.c."""

    _fields_ = (("names", (ctypes.c_char * _LEVEL_BYTES) * _LEVELS),)


class Owners:
    """Pods and containers by the number of their control group.

    Args:
        maps: map name to descriptor; without the map of control groups nobody is known.
    """

    def __init__(self, maps: Mapping[str, int]) -> None:
        self._groups = maps.get("control_groups")
        self._known: dict[int, str] = {}

    def of(self, records: bytes, record_bytes: int) -> bytes:
        """Those that packed records of this size refer to, packed.

        Raises:
            OSError: if the kernel refuses.
        """
        if self._groups is None or record_bytes <= _OFFSET:
            return b""
        numbers = set(memoryview(records).cast("I")[_OFFSET // 4 :: record_bytes // 4])
        found = {each: self._owner(each) for each in sorted(numbers - {0, _SEVERAL})}
        return numbered_texts.encode({number: owner for number, owner in found.items() if owner})

    def _owner(self, number: int) -> str:
        if number not in self._known:
            if len(self._known) >= _MOST:
                self._known.clear()
            try:
                group = read_value(self._groups or 0, ctypes.c_uint32(number), _Group)
            except FileNotFoundError:  # the kernel has room for the latest only
                return ""
            names = [each.value.decode(errors="replace") for each in group.names]
            if not names[0]:  # the kernel is just writing them
                return ""
            self._known[number] = owner_in(names)
        return self._known[number]


def owner_in(names: list[str]) -> str:
    """The uid of the pod, or else the id of the container, that a control group belongs to; empty
    if to neither.

    Args:
        names: of the group and of those above it, from below.
    """
    for name in names:
        if found := _POD.search(name):
            return found[1].replace("_", "-")
    for at, name in enumerate(names):
        if found := _CONTAINER.match(name) or _CONTAINER_BELOW_DOCKER.match("/".join(names[at:])):
            return found[1]
    return ""
