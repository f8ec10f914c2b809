"""Nanoseconds per kernel event of each eBPF program, as the kernel itself measures them.

`kernel.bpf_stats_enabled` makes the kernel add up run time and run count of every program (bpf(2),
BPF_ENABLE_STATS); they are read from /proc/self/fdinfo of each program's descriptor. The traffic is
the lab's, with a fifth of pod-a's packets dropped.
"""

import contextlib
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bench.figure import CannotMeasure, Figure
from flowverdict_collector.hooks import HOOKS
from flowverdict_collector.kernel import FlowMaps, describe
from flowverdict_collector.loader import Loader, LoadError
from flowverdict_collector.source import Options
from flowverdict_lab.cluster import make_cluster
from flowverdict_lab.faults import parse_fault
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import Network

__all__ = ["measure"]

_SWITCH = Path("/proc/sys/kernel/bpf_stats_enabled")
_SECONDS = 10
_MAX_FLOWS = 65536


@contextmanager
def _statistics() -> Iterator[None]:
    before = _SWITCH.read_text()
    _SWITCH.write_text("1")
    try:
        yield
    finally:
        _SWITCH.write_text(before)


def measure() -> list[Figure]:
    """Nanoseconds per event and events per second of each program, over ten seconds."""
    if why := why_not_live():
        raise CannotMeasure(why)
    try:
        with contextlib.closing(Loader()) as loader:
            loaded = loader.load(Options(_MAX_FLOWS))
    except LoadError as error:
        raise CannotMeasure(str(error)) from None
    cluster = make_cluster(4, 2)
    figures, total = [], 0
    with tempfile.TemporaryDirectory() as logs, Network(cluster, Path(logs)) as network:
        network.start_traffic(30)
        parse_fault("pod-loss", "pod-a", 20, cluster).inject(network)
        before = {name: describe(program) for name, program in loaded.programs.items()}
        with _statistics():
            time.sleep(_SECONDS)
        for hook in HOOKS:
            if hook.tracepoint not in loaded.programs:
                continue
            then, now = before[hook.tracepoint], describe(loaded.programs[hook.tracepoint])
            run_ns, count = (now[name] - then[name] for name in ("run_time_ns", "run_cnt"))
            total += run_ns
            if count:
                figures.append(Figure("kernel", hook.tracepoint, run_ns / count, "ns per event"))
                figures.append(
                    Figure("kernel", hook.tracepoint, count / _SECONDS, "events per second")
                )
        share = 1000 * total / (_SECONDS * 1e9)
        figures.append(Figure("kernel", "all programs", share, "thousandths of a core"))
        maps = FlowMaps(loaded.maps, loaded.drain)
        began = time.monotonic()
        maps.swap()
        for _ in maps.read():
            pass
        maps.discard()
        figures.append(Figure("kernel", "drain", 1e6 * (time.monotonic() - began), "microseconds"))
    return figures
