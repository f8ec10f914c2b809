"""Our counts of the shop's retransmissions beside those of the pods' own kernels."""

import asyncio
import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from conftest import eventually
from flowverdict_contracts import enriched
from flowverdict_contracts.subjects import FLOWS_ENRICHED
from flowverdict_runtime.stored_messages import stored_messages
from tests.cluster.installation import Installation
from tests.kernel_counts import SKIPPED

__all__ = ["Retransmissions", "published"]

_ARRIVAL_SECONDS = 5


Counts = Callable[[Installation], Awaitable[dict[str, float]]]
"""Returns retransmitted segments by pod, as Flowverdict has them."""


async def exported(installation: Installation) -> dict[str, float]:
    """What the exporter's page says."""
    found: defaultdict[str, float] = defaultdict(float)
    for line in installation.page("exporter", 9191).splitlines():
        if line.startswith("tcp_retransmissions_total{"):
            found[line.partition('src_pod="')[2].partition('"')[0]] += float(line.split()[-1])
    return found


async def published(installation: Installation) -> dict[str, float]:
    """What the stream of enriched flows holds, though the exporter began anew."""
    found: defaultdict[str, float] = defaultdict(float)
    async with installation.jetstream() as jetstream:
        async for message in stored_messages(jetstream, FLOWS_ENRICHED):
            rows = enriched.decode(message.data).select(["src_pod", "retransmitted_segments"])
            for row in rows.to_pylist():
                found[row["src_pod"]] += row["retransmitted_segments"]
    return found


class Retransmissions:
    """Retransmitted segments by pod of the shop, since they were `begun`."""

    @classmethod
    async def begun(
        cls, installation: Installation, counts: Counts = exported
    ) -> "Retransmissions":
        """Begin with nothing on its way through the pipeline: the shop stands still meanwhile."""
        with _no_traffic(installation):
            settled: Retransmissions = await eventually(
                lambda: cls._settled(installation, counts), 60
            )
            return settled

    @classmethod
    async def _settled(cls, installation: Installation, counts: Counts) -> "Retransmissions | None":
        """None if something has been counted within the time that a count takes to arrive."""
        began = cls(installation, counts)
        first = (await began._ours(), began._kernels())
        await asyncio.sleep(_ARRIVAL_SECONDS)
        began._before, began._kernel_before = await began._ours(), began._kernels()
        return began if first == (began._before, began._kernel_before) else None

    def __init__(self, installation: Installation, counts: Counts) -> None:
        pods = installation.pods("shop")
        self._installation, self._counts = installation, counts
        self._inside = {each["metadata"]["name"]: installation.process_in(each) for each in pods}
        self._before: dict[str, float] = {}
        self._kernel_before: dict[str, float] = {}

    async def _ours(self) -> dict[str, float]:
        counts = await self._counts(self._installation)
        return {name: counts.get(name, 0.0) for name in self._inside}

    def _kernels(self) -> dict[str, float]:
        return {name: _tcp(process, "RetransSegs") for name, process in self._inside.items()}

    async def _missing(self) -> dict[str, float]:
        """By pod, how many the kernel counted and we did not; empty while there are none at all."""
        ours, kernels = await self._ours(), self._kernels()
        counted = {name: kernels[name] - self._kernel_before[name] for name in kernels}
        if not sum(counted.values()):
            return {}
        return {name: counted[name] - (ours[name] - self._before[name]) for name in counted}

    async def are_exact(self) -> None:
        """Stop the shop, and fail unless our counts become equal to the kernels'."""

        async def agree() -> bool:
            missing = (await self._missing()).values()
            return bool(missing) and min(missing) == 0 and sum(missing) <= SKIPPED

        with _no_traffic(self._installation):
            try:
                await eventually(agree, 90)
            except AssertionError:
                raise AssertionError(f"missing by pod: {await self._missing()}") from None


@contextlib.contextmanager
def _no_traffic(installation: Installation) -> Iterator[None]:
    processes = installation.processes("shop")
    for process in processes:
        os.kill(process, signal.SIGSTOP)
    try:
        yield
    finally:
        for process in processes:
            os.kill(process, signal.SIGCONT)


def _tcp(process: int, name: str) -> int:
    lines = Path(f"/proc/{process}/net/snmp").read_text().splitlines()
    names, values = (line.split() for line in lines if line.startswith("Tcp:"))
    return int(values[names.index(name)])
