"""What a kernel shows only in part, and why."""

import re
from pathlib import Path

from flowverdict_collector.btf import KernelTypes
from flowverdict_collector.definitions import drop_offsets, owner_flags
from flowverdict_contracts.raw import FIELDS

__all__ = ["kernel_version", "limits_of", "limits_of_machine"]

_LIMITS = (
    ((5, 12), "skipped runs", "before Linux 5.12 it is unknown how often a program was skipped"),
    ((5, 19), "capabilities", "before Linux 5.19 reading maps takes CAP_BPF, which is kept"),
    ((6, 1), "sockets", "before Linux 6.1 no more are tracked than FLOWVERDICT_MAX_FLOWS"),
    ((6, 12), "resets sent", "before Linux 6.12 those to closed ports are not traced"),
)
"""Before which version, what, and why."""

_HOST_PODS = "pods with hostNetwork"


def kernel_version(release: str) -> tuple[int, int]:
    """Major and minor number of a kernel, from what `uname -r` prints."""
    major, minor = map(int, re.findall(r"\d+", release)[:2])
    return major, minor


def limits_of(release: str, types: KernelTypes, *, drained: bool) -> dict[str, str]:
    """What is counted in part or not at all on this kernel, and why.

    Args:
        release: the kernel's, as `uname -r` prints it.
        types: the kernel's.
        drained: whether it lets a program count what connections have in store.
    """
    found = {what: why for before, what, why in _LIMITS if kernel_version(release) < before}
    if not drained:
        found["what was received last"] = (
            "before Linux 5.12, on arm64 before 5.18, it is counted with the next segment"
        )
    counted = {of_kind for of_kind, _ in drop_offsets(types).values()}
    reasons = [
        field.name for field in FIELDS
        if field.name.startswith("drops_") and field.offset not in counted
    ]  # fmt: skip
    if reasons and counted:
        found[", ".join(reasons)] = "this kernel has no drop reasons for them"
    if not owner_flags(types):
        found[_HOST_PODS] = "this kernel does not tell the control group of a socket"
    return found


def limits_of_machine() -> dict[str, str]:
    """The same for how this machine is set up, whatever its kernel can."""
    mounts = [each.split() for each in Path("/proc/self/mounts").read_text().splitlines()]
    if ["/sys/fs/cgroup", "cgroup2"] in [each[1:3] for each in mounts]:
        return {}
    return {_HOST_PODS: "this machine has cgroup v1, which does not tell whose a socket is"}
