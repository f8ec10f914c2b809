"""The `flowverdict-kernels` command, which script/kernels runs."""

import argparse
import shlex
import shutil
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from flowverdict_lab.kernels.debian import DebianError
from flowverdict_lab.kernels.guest import GuestError, archive_checkout, make_bootable
from flowverdict_lab.kernels.kernels import KERNELS
from flowverdict_lab.kernels.machine import GuestCrash, qemu_for, run_guest
from flowverdict_lab.kubernetes.build import cache

__all__ = ["main"]

_COLLECTOR = "services/collector/tests"
_LOOKUPS = "test_lookups.py::test_lookups_are_counted_by_client_and_server_with_how_they_ended"
_TESTS = (
    "tests/test_on_each_kernel.py",
    f"{_COLLECTOR}/test_definitions.py",
    f"{_COLLECTOR}/test_collector.py::test_the_check_attaches_everything_and_says_what_is_broken",
    f"{_COLLECTOR}/test_collector.py"
    "::test_once_it_counts_it_has_no_capability_left_and_cannot_get_one",
    f"{_COLLECTOR}/{_LOOKUPS}[ipv4]",
)
_SLOWER = 10
"""How many times slower an emulated processor is, for the tests' deadlines."""
_SECONDS = 1800
_PROGRAMS = ("apt-get", "dpkg-deb", "depmod", "cpio", "tar", "git")
OK, FAILED, CANNOT_RUN, INTERRUPTED = 0, 1, 3, 130


def main() -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args()
    console = Console(stderr=True, highlight=False)
    needed = (*_PROGRAMS, *(qemu_for(KERNELS[name].architecture) for name in options.kernels))
    missing = sorted({each for each in needed if not shutil.which(each)})
    if missing:
        console.print(f"script/kernels: not installed: {', '.join(missing)}", style="red")
        return CANNOT_RUN
    try:
        results = {name: _run(name, options.tests, console) for name in options.kernels}
    except (DebianError, GuestError) as error:
        console.print(f"script/kernels: {error}", style="red", markup=False, soft_wrap=True)
        return CANNOT_RUN
    except KeyboardInterrupt:
        return INTERRUPTED
    for name, result in results.items():
        console.print(f"{name:>10}  {result}", style="" if result == "passed" else "red")
    return OK if set(results.values()) == {"passed"} else FAILED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="script/kernels",
        description="Boots Debian's kernels, one after the other, in a virtual machine with an "
        "emulated processor, and runs tests of this checkout there: whether the programs attach, "
        "counts equal the kernel's, and a lossy pod is named. The first time it downloads each "
        "kernel and a Debian system.",
        epilog="Exit status: 0 all passed, 1 a test failed, 2 usage error, 3 cannot run. "
        "DEBIAN_MIRROR in the environment names a mirror other than this machine's own.",
    )
    parser.add_argument("kernels", nargs="*", type=_name, metavar="NAME", default=list(KERNELS),
                        help=f"{', '.join(KERNELS)} (default: all)")  # fmt: skip
    parser.add_argument("--tests", nargs=argparse.REMAINDER, default=_TESTS, metavar="ARGUMENT",
                        help="for pytest, instead of what every kernel must pass")  # fmt: skip
    return parser


def _name(text: str) -> str:
    if text not in KERNELS:
        raise argparse.ArgumentTypeError(f"there is no {text}; choose from {', '.join(KERNELS)}")
    return text


def _run(name: str, tests: Sequence[str], console: Console) -> str:
    """Boot a kernel and run the tests; returns how it ended, in a word."""
    started = time.monotonic()

    def tell(line: str) -> None:
        console.print(f"{name:>10} {time.monotonic() - started:5.0f} s  {line}", markup=False,
                      soft_wrap=True)  # fmt: skip

    folder = cache() / "kernels"
    bootable = make_bootable(KERNELS[name], folder, tell)
    pytest = ["python", "-m", "pytest", "-p", "no:cacheprovider", "-vv", "-rsP",
              f"--timeout={_SECONDS}", *tests]  # fmt: skip
    command = f"export FLOWVERDICT_TESTS_SLOWER={_SLOWER}\n{shlex.join(pytest)}\n"
    with tempfile.TemporaryDirectory(dir=folder) as working:
        checkout = Path(working) / "checkout.cpio"
        archive_checkout(checkout, command)
        for attempt in (1, 2):  # one boot in some fifty crashes under emulation
            try:
                return "passed" if run_guest(bootable, checkout, _SECONDS, tell) == 0 else "failed"
            except GuestCrash as error:
                tell(f"{error} (attempt {attempt} of 2)")
    return "crashed"
