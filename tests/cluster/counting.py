"""Our counts of the shop's retransmissions beside those of the pods' own kernels."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from conftest import eventually
from tests.cluster.installation import Installation

__all__ = ["Retransmissions"]

_ARRIVAL_SECONDS = 5
SKIPPED = 2
"""Events that the kernel may not show to any program: docs/architecture.md, "Skipped events"."""


class Retransmissions:
    """Retransmitted segments by pod of the shop, since they were `begun`."""

    @classmethod
    async def begun(cls, installation: Installation) -> "Retransmissions":
        """Begin with nothing on its way to the exporter: the shop stands still for a moment."""
        with _no_traffic(installation):
            settled: Retransmissions = await eventually(lambda: cls._settled(installation), 60)
            return settled

    @classmethod
    async def _settled(cls, installation: Installation) -> "Retransmissions | None":
        """None if something has been counted within the time that a count takes to arrive."""
        before = cls(installation)
        await asyncio.sleep(_ARRIVAL_SECONDS)
        after = cls(installation)
        same = (before._before, before._kernel_before) == (after._before, after._kernel_before)
        return after if same else None

    def __init__(self, installation: Installation) -> None:
        pods = installation.pods("shop")
        self._installation = installation
        self._inside = {each["metadata"]["name"]: installation.process_in(each) for each in pods}
        self._before, self._kernel_before = self._ours(), self._kernels()

    def _ours(self) -> dict[str, float]:
        found = dict.fromkeys(self._inside, 0.0)
        for line in self._installation.metrics("exporter", 9191).splitlines():
            pod = line.partition('src_pod="')[2].partition('"')[0]
            if line.startswith("tcp_retransmissions_total{") and pod in found:
                found[pod] += float(line.split()[-1])
        return found

    def _kernels(self) -> dict[str, float]:
        return {name: _tcp(process, "RetransSegs") for name, process in self._inside.items()}

    def _missing(self) -> dict[str, float]:
        """By pod, how many the kernel counted and we did not; empty while there are none at all."""
        ours, kernels = self._ours(), self._kernels()
        counted = {name: kernels[name] - self._kernel_before[name] for name in kernels}
        if not sum(counted.values()):
            return {}
        return {name: counted[name] - (ours[name] - self._before[name]) for name in counted}

    async def are_exact(self) -> None:
        """Stop the shop, and fail unless our counts become equal to the kernels'."""

        def agree() -> bool:
            missing = self._missing().values()
            return bool(missing) and min(missing) == 0 and sum(missing) <= SKIPPED

        with _no_traffic(self._installation):
            try:
                await eventually(agree, 90)
            except AssertionError:
                raise AssertionError(f"missing by pod: {self._missing()}") from None


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
