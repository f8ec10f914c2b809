"""`flowverdict-collector --check`: what this machine provides and what is missing."""

import contextlib
import os
import platform
from pathlib import Path

from flowverdict_collector.btf import KernelTypes
from flowverdict_collector.hooks import HOOKS, LOOKUP_HOOKS, READ_HOOK
from flowverdict_collector.kernel_log import KernelLog
from flowverdict_collector.limits import limits_of, limits_of_machine
from flowverdict_collector.loader import Loader, LoadError
from flowverdict_collector.pins import Pins, PinsError
from flowverdict_collector.settings import CollectorSettings
from flowverdict_runtime.one_shot import check_nats

__all__ = ["check"]


async def check(settings: CollectorSettings) -> int:
    """Attach everything, detach it again and print the result; 0 if nothing is broken."""
    print(f"kernel   {platform.release()} {platform.machine()}, node {settings.node}")
    try:
        with contextlib.closing(Loader()) as loader:
            loaded = loader.load(settings.options)
    except LoadError as error:
        print(f"broken   {error}")
        broken = 1
    else:
        broken = 0
        for hook in (*HOOKS, READ_HOOK, *LOOKUP_HOOKS):
            why = loaded.missing.get(hook.tracepoint)
            if why:
                print(f"warning  {hook.tracepoint}: {why}; not counted: {hook.counts}")
            elif hook.tracepoint in loaded.attached:
                print(f"ok       {hook.tracepoint} (raw tracepoint): {hook.counts}")
        with KernelTypes() as types:
            limits = limits_of(platform.release(), types, drained=loaded.drain is not None)
            for what, why in (limits | limits_of_machine()).items():
                print(f"partly   {what}: {why}")
        loaded.close()
        _check_pins(settings)
        _check_kernel_log()
    return max(broken, await check_nats(settings))


def _check_kernel_log() -> None:
    try:
        KernelLog()
    except OSError as error:
        print(f"ok       kernel log: left out, since it takes CAP_SYSLOG to read it ({error})")
    else:
        print("ok       kernel log: links that go down, full tables, SYN floods")


def _check_pins(settings: CollectorSettings) -> None:
    not_counted = "what happens while no collector runs is not counted"
    if not settings.pin_directory:
        print(f"ok       pins: FLOWVERDICT_PIN_DIRECTORY is not set; {not_counted}")
        return
    try:
        pins = Pins.of_node(Path(settings.pin_directory), settings.node)
        claim = pins.claim()
        if claim is not None:
            pins.check()
    except PinsError as error:
        print(f"warning  pins: {error}; {not_counted}")
        return
    print(f"ok       pins: what is in {pins.folder} goes on counting while no collector runs")
    if claim is not None:
        if not any(pins.folder.iterdir()):
            pins.remove_node()
        os.close(claim)
