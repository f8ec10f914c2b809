"""What compiling the programs on the node costs: time, memory and the image's size.

Run as a program, it compiles and loads them once and prints what that took.
"""

import importlib
import json
import os
import statistics
import subprocess
import sys
import time

from bench.figure import CannotMeasure, Figure
from bench.processes import peak_mebibytes
from flowverdict_collector.source import BPF, Options, find_source
from flowverdict_lab.live_support import why_not_live

__all__ = ["measure"]

_MAX_FLOWS = 65536
_ROUNDS = 5
_COMPILER = ("libllvm", "libclang")


def _once() -> dict[str, float]:
    """Seconds to compile and to load, and the most memory meanwhile, in MiB."""
    sys.path.append("/usr/lib/python3/dist-packages")
    bcc = importlib.import_module("bcc")
    os.environ["BCC_KERNEL_SOURCE"] = str(BPF)
    source = find_source(Options(_MAX_FLOWS))
    began = time.monotonic()
    program = bcc.BPF(text=source.text.encode(), cflags=source.flags)
    compiled = time.monotonic()
    for hook in source.hooks:
        program.load_func(hook.function, bcc.BPF.RAW_TRACEPOINT)
    loaded = time.monotonic()
    return {
        "compile": compiled - began,
        "load": loaded - compiled,
        "memory": peak_mebibytes(os.getpid()),
        "bytecode": sum(len(program.dump_func(hook.function)) for hook in source.hooks),
    }


def _packages() -> dict[str, float]:
    """Installed packages that compiling needs, and libbpf, by name, in kB."""

    def asked(what: str, *names: str) -> list[str]:
        argv = ["dpkg-query", "--show", "--showformat", f"{what}\n", *names]
        done = subprocess.run(argv, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()

    try:
        needed = [each.split()[0] for each in asked("${Depends}", "libbpfcc")[0].split(",")]
        compiler = [each.strip() for each in needed if each.strip().startswith(_COMPILER)]
        lines = asked("${Package} ${Installed-Size}", *compiler, "libbpfcc", "libbpf1")
    except (OSError, subprocess.CalledProcessError):
        return {}
    return {name: float(size) * 1.024 for name, size in map(str.split, lines)}


def measure() -> list[Figure]:
    """Medians of five processes, and the packages' sizes.

    Raises:
        CannotMeasure: without eBPF.
    """
    if why := why_not_live():
        raise CannotMeasure(why)
    rounds = []
    for _ in range(_ROUNDS):
        child = [sys.executable, "-m", "bench.loading"]
        done = subprocess.run(child, capture_output=True, text=True, check=False)
        if done.returncode:
            raise CannotMeasure(done.stderr.strip()[-500:])
        rounds.append(json.loads(done.stdout.splitlines()[-1]))
    of = {name: statistics.median(each[name] for each in rounds) for name in rounds[0]}
    return [
        Figure("loading", "compiling", 1000 * of["compile"], "milliseconds"),
        Figure("loading", "loading, with the verifier", 1000 * of["load"], "milliseconds"),
        Figure("loading", "most memory meanwhile", of["memory"], "MiB"),
        Figure("loading", "the programs' bytecode", of["bytecode"], "bytes"),
        *(Figure("loading", f"package {name}", size, "kB") for name, size in _packages().items()),
    ]


if __name__ == "__main__":
    print(json.dumps(_once()))
