"""`flowverdict-collector --check`: what this machine gives and what is missing."""

import os
import platform

from flowverdict_collector.hooks import HOOKS
from flowverdict_collector.loader import LoadError, load
from flowverdict_collector.settings import CollectorSettings
from flowverdict_runtime.connection import check_nats

__all__ = ["check"]


async def check(settings: CollectorSettings) -> int:
    """Attach everything, detach it again, and print what came of it; 0 where all required is there."""
    print(f"kernel   {platform.release()} {platform.machine()}, node {settings.node}")
    try:
        loaded = load(settings.max_flows, settings.max_flows)
    except LoadError as error:
        print(f"broken   {error}")
        broken = 1
    else:
        broken = 0
        for hook in HOOKS:
            if hook.tracepoint in loaded.missing:
                print(f"warning  {hook.tracepoint}: {loaded.missing[hook.tracepoint]}; not counted: {hook.counts}")
            else:
                print(f"ok       {hook.tracepoint}: {hook.counts}")
        for descriptor in (*loaded.maps.values(), *loaded.attached.values()):
            os.close(descriptor)
    return max(broken, await check_nats(settings.nats_url))
