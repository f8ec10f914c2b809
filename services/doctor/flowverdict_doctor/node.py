"""This node: can eBPF programs run here?"""

import platform
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from flowverdict_doctor.finding import BROKEN, OK, WARNING, Finding, broken, ok, skipped, warning
from flowverdict_runtime.ebpf import BTF, REQUIRED_TRACEPOINTS, missing_capabilities

__all__ = ["findings", "of_kernel"]

_OLDEST, _TESTED = (5, 8), (5, 15)


def _kernel() -> Finding:
    release = platform.release()
    found = re.match(r"(\d+)\.(\d+)", release)
    version = (int(found[1]), int(found[2])) if found else (0, 0)
    if version < _OLDEST:
        return broken(
            "kernel", release, "too old, CAP_BPF needs 5.8; use a node image with 5.15 or newer"
        )
    if version < _TESTED:
        return warning("kernel", release, "untested before 5.15; see the collector's check")
    return ok("kernel", release)


def _btf(root: Path) -> Finding:
    if (root / BTF.lstrip("/")).exists():
        return ok("BTF", f"{BTF} exists")
    return broken(
        "BTF",
        f"{BTF} is missing",
        "use a kernel built with CONFIG_DEBUG_INFO_BTF=y, as distribution kernels are",
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
            "eBPF cannot read kernel memory in this mode: boot with lockdown=integrity or none",
        )


def _tracefs(root: Path) -> Finding:
    events = root / "sys/kernel/tracing/events"
    try:
        if not events.is_dir():
            return ok("tracefs", "not mounted, and not needed: the collector uses raw tracepoints")
        wanted = [f"{subsystem}/{name}" for name, subsystem in REQUIRED_TRACEPOINTS.items()]
        missing = [each for each in wanted if not (events / each).is_dir()]
    except PermissionError:
        return warning("tracefs", "this user cannot read it", "run as root to see the tracepoints")
    if missing:
        return broken(
            "tracefs",
            f"this kernel lacks the tracepoints {', '.join(missing)}",
            "use kernel 4.16 or newer with CONFIG_TRACEPOINTS=y",
        )
    return ok("tracefs", "mounted, with all required tracepoints")


def _capabilities(root: Path) -> Finding:
    missing = missing_capabilities(root)
    if not missing:
        return ok("capabilities", "this process can load eBPF programs")
    return skipped(
        "capabilities",
        f"no {' or '.join(missing)} here; the collector needs them, and has them in its pod",
    )


def _collector() -> Iterator[Finding]:
    """The findings of `flowverdict-collector --check`, if it is installed."""
    sibling = Path(sys.executable).with_name("flowverdict-collector")
    command = str(sibling) if sibling.exists() else shutil.which("flowverdict-collector")
    if command is None:
        yield skipped(
            "collector",
            "not installed here",
            "check it in its pod: kubectl -n flowverdict exec ds/collector -- service --check",
        )
        return
    try:
        done = subprocess.run(
            [command, "--check"], capture_output=True, text=True, timeout=120, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        yield broken("collector", f"{command} --check: {error}", "run that command by hand")
        return
    for line in (done.stdout + done.stderr).splitlines():
        level, _, detail = line.partition(" ")
        detail = detail.strip()
        if detail.startswith("NATS"):
            continue  # reported by the NATS checks
        if level in (OK, WARNING, BROKEN):
            yield Finding(level, "collector", detail)  # the message includes the advice
    if done.returncode not in (0, 1):
        yield broken("collector", done.stderr.strip() or f"status {done.returncode}", "")


def of_kernel(root: Path = Path("/")) -> Iterator[Finding]:
    """Check the kernel and this process; `root` is the directory with their /proc and /sys."""
    yield _kernel()
    yield _btf(root)
    yield from _lockdown(root)
    yield _tracefs(root)
    yield ok("headers", "not needed: the collector ships the few headers it compiles against")
    yield _capabilities(root)


def findings() -> Iterator[Finding]:
    """Check this node."""
    yield from of_kernel()
    yield from _collector()
