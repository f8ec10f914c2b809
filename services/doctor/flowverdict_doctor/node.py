"""This node: can eBPF programs run here?"""

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from flowverdict_doctor.finding import BROKEN, OK, WARNING, Finding, broken, ok, warning
from flowverdict_runtime.ebpf import BTF, REQUIRED_TRACEPOINTS, missing_capabilities

__all__ = ["findings", "of_kernel"]

_OLDEST, _TRIED = (5, 8), (5, 15)


def _kernel() -> Finding:
    release = platform.release()
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < _OLDEST:
        return broken(
            "kernel", release, "5.8 is the first with CAP_BPF; use a node image with 5.15 or newer"
        )
    if version < _TRIED:
        return warning("kernel", release, "written for 5.15 and newer; the collector's check tells")
    return ok("kernel", release)


def _btf(root: Path) -> Finding:
    if (root / BTF.lstrip("/")).exists():
        return ok("BTF", f"{BTF} is there")
    return broken(
        "BTF",
        f"{BTF} is missing",
        "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as those of the distributions are",
    )


def _lockdown(root: Path) -> Iterator[Finding]:
    file = root / "sys/kernel/security/lockdown"
    try:
        state = file.read_text()
    except OSError:
        return
    if "[confidentiality]" in state:
        yield broken(
            "lockdown",
            "the kernel is locked down for confidentiality",
            "eBPF may not read the kernel's memory then: boot with lockdown=integrity or none",
        )


def _tracefs(root: Path) -> Finding:
    events = root / "sys/kernel/tracing/events"
    try:
        if not events.is_dir():
            return ok("tracefs", "not mounted here; the collector's raw tracepoints do without it")
        wanted = [f"{subsystem}/{name}" for name, subsystem in REQUIRED_TRACEPOINTS.items()]
        missing = [each for each in wanted if not (events / each).is_dir()]
    except PermissionError:
        return warning(
            "tracefs", "this user may not look into it", "run as root to see the tracepoints"
        )
    if missing:
        return broken(
            "tracefs",
            f"this kernel has no tracepoint {', '.join(missing)}",
            "use a kernel from 4.16 on with CONFIG_TRACEPOINTS=y",
        )
    return ok("tracefs", "mounted, with the tracepoints that are needed")


def _capabilities(root: Path) -> Finding:
    missing = missing_capabilities(root)
    if not missing:
        return ok("capabilities", "this process could load eBPF programs")
    return ok(
        "capabilities",
        f"not {' and '.join(missing)} here; the collector needs them, and has them in its pod",
    )


def _collector() -> Iterator[Finding]:
    """What `flowverdict-collector --check` says, where it is installed."""
    beside = Path(sys.executable).with_name("flowverdict-collector")
    command = str(beside) if beside.exists() else shutil.which("flowverdict-collector")
    if command is None:
        yield ok(
            "collector",
            "not installed here; in its pod: "
            "kubectl -n flowverdict exec ds/collector -- service --check",
        )
        return
    try:
        done = subprocess.run(
            [command, "--check"], capture_output=True, text=True, timeout=120, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield broken("collector", f"{command} --check: {error}", "run it by itself")
        return
    for line in (done.stdout + done.stderr).splitlines():
        level, _, said = line.partition(" ")
        said = said.strip()
        if said.startswith("NATS"):
            continue  # has lines of its own
        if level in (OK, WARNING, BROKEN):
            yield Finding(level, "collector", said)  # its lines hold what to do
    if done.returncode not in (0, 1):
        yield broken("collector", done.stderr.strip() or f"status {done.returncode}", "")


def of_kernel(root: Path = Path("/")) -> Iterator[Finding]:
    """Lines about the kernel and this process; `root` is where their /proc and /sys are."""
    yield _kernel()
    yield _btf(root)
    yield from _lockdown(root)
    yield _tracefs(root)
    yield ok("headers", "not needed: the collector brings the few that it compiles with")
    yield _capabilities(root)


def findings() -> Iterator[Finding]:
    """Lines about this node."""
    yield from of_kernel()
    yield from _collector()
