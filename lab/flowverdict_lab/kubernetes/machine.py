"""What this machine lacks for a cluster."""

import os
import re
import shutil
import subprocess
from collections.abc import Sequence

from flowverdict_lab.kubernetes.build import cache

__all__ = ["missing_for_flux", "missing_to_build", "what_is_missing"]

_COMMANDS = {
    "kubectl": "kubectl, which talks to the cluster",
    "ip": "ip (iproute2)",
    "iptables": "iptables",
    "nft": "nft (nftables)",
    "openssl": "openssl",
    "mkfs.ext4": "mkfs.ext4 (e2fsprogs)",
    "unshare": "unshare (util-linux)",
}
_TO_BUILD = {"go": "Go 1.26 or newer", "gcc": "gcc"}
_TO_BUILD_FLUX = {"cargo": "Rust (cargo and rustc)", "gcc": "gcc"}
_FEATURES = {
    "bridge devices": "ip link add b0 type bridge",
    "veth devices": "ip link add v0 type veth peer name v1",
    "nftables": "nft add table inet t",
    "iptables with NFQUEUE, owner and conntrack matches": (
        "iptables -t mangle -A POSTROUTING -m owner --uid-owner 0 -m conntrack "
        "--ctstate ESTABLISHED -j NFQUEUE --queue-num 98"
    ),
    "overlayfs": (
        "mount -t tmpfs t /mnt && mkdir /mnt/u /mnt/w "
        "&& mount -t overlay -o lowerdir=/var,upperdir=/mnt/u,workdir=/mnt/w o /var"
    ),
    "loop devices": "test -e /dev/loop-control",
}


def what_is_missing(build: bool) -> str:
    """One line that says what this machine lacks; empty if nothing.

    Args:
        build: whether programs still have to be built.
    """
    if os.geteuid() != 0:
        return "a cluster needs root, for network and mount namespaces"
    if str(cache()).startswith(("/tmp/", "/run/", "/var/", "/etc/")):  # noqa: S108 # what nodes hide
        return f"the cache is {cache()}, which a node does not see: set XDG_CACHE_HOME"
    if missing := _first_missing(_COMMANDS) or (missing_to_build() if build else ""):
        return missing
    if build and not _run(["sh", "-c", "echo '#include <seccomp.h>' | gcc -E -"])[0]:
        return "seccomp.h is missing (libseccomp-dev), which runc is built with"
    for feature, script in _FEATURES.items():
        enter = ["unshare", "--net", "--mount", "--propagation", "private"]
        works, output = _run([*enter, "sh", "-c", script])
        if not works:
            last = output.strip().splitlines()[-1:] or ["no reason given"]
            return f"this kernel or this container lacks {feature}: {last[0]}"
    return ""


def missing_to_build() -> str:
    """What this machine lacks to build Go programs; empty if nothing."""
    if missing := _first_missing(_TO_BUILD):
        return missing
    output = _run(["go", "version"])[1]
    found = re.search(r"go(\d+)\.(\d+)", output)
    if found is None or (int(found[1]), int(found[2])) < (1, 26):
        return f"Go 1.26 or newer is needed; this is {output.strip()}"
    return ""


def missing_for_flux() -> str:
    """What this machine lacks to build Flux, a part of InfluxDB; empty if nothing."""
    return _first_missing(_TO_BUILD_FLUX)


def _first_missing(commands: dict[str, str]) -> str:
    missing = [name for command, name in commands.items() if shutil.which(command) is None]
    return f"{missing[0]} is missing" if missing else ""


def _run(argv: Sequence[str]) -> tuple[bool, str]:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    return done.returncode == 0, done.stderr or done.stdout
