"""What is tried: one fault or several, how much they lose, and what makes them hard to see."""

from dataclasses import dataclass, field

from bench.accuracy.clusters import FAULTS, Traffic

__all__ = ["CELLS", "Cell"]

_PLAIN = ("pod sending", "pod receiving", "pod", "node", "link", "node pair")


@dataclass(frozen=True, slots=True)
class Cell:
    """One kind of trial.

    Attributes:
        name: for people.
        faults: how many at once.
        loss: from and to, as a share of segments.
        kinds: of faults, names in `FAULTS`.
        traffic: of the cluster.
        history: clean windows that are learnt from; 0 for no baseline.
        faulty_history: whether one of them has a fault in it.
        uneven: as in `GeneratedCluster.fault`.
        factor, echo: as in `GeneratedCluster.window`.
        renamed: whether half of the pods have new names since.
        unheard: share of the nodes whose own counts are missing.
        least: what the lower bound of F1 is to reach; None if nothing is promised.
    """

    name: str
    faults: int = 1
    loss: tuple[float, float] = (0.002, 0.02)
    kinds: tuple[str, ...] = _PLAIN
    traffic: Traffic = field(default_factory=Traffic)
    history: int = 6
    faulty_history: bool = False
    factor: float = 1.0
    echo: float = 0.0
    uneven: float = 0.0
    renamed: bool = False
    unheard: float = 0.0
    least: float | None = None


CELLS = (
    Cell("one fault, 0.2 to 2%", least=0.98),
    Cell("one fault, 10 to 40%", loss=(0.1, 0.4), least=0.98),
    Cell("three faults, 0.2 to 2%", faults=3, least=0.985),
    Cell("three faults, 10 to 40%", faults=3, loss=(0.1, 0.4), least=0.985),
    Cell("five faults, 0.2 to 40%", faults=5, loss=(0.002, 0.4)),
    Cell("0.05 to 0.2%", loss=(0.0005, 0.002), traffic=Traffic(background=1e-4), least=0.85),
    Cell("much background, 0.5%", loss=(0.005, 0.02), traffic=Traffic(background=5e-3)),
    Cell("hub at +0.05%", traffic=Traffic(hub=5e-4), least=0.95),
    Cell("hub at +0.3%", traffic=Traffic(hub=3e-3), least=0.95),
    Cell("hub at +0.3%, three faults", faults=3, traffic=Traffic(hub=3e-3), least=0.97),
    Cell("hub, one clean window", traffic=Traffic(hub=3e-3), history=1),
    Cell("no history", history=0),
    Cell("a fault in the history", faulty_history=True),
    Cell("sparse: 100 segments a pair", traffic=Traffic(segments=100), least=0.85),
    Cell("periodic: each pair in one window of four", traffic=Traffic(period=4)),
    Cell("short-lived: one pair in five talks", traffic=Traffic(talking=0.2)),
    Cell("pairs differ", traffic=Traffic(spread=0.5)),
    Cell("bursts of four", traffic=Traffic(burst=4), least=0.90),
    Cell("three times the background", factor=3.0, least=0.97),
    Cell("a quarter echoes", echo=0.25, least=0.97),
    Cell("a fault differs between pairs", uneven=0.5),
    Cell("a fault differs, 10 to 40%", loss=(0.1, 0.4), uneven=0.5),
    Cell("three faults differ", faults=3, loss=(0.002, 0.4), uneven=0.5),
    Cell("two of six nodes unheard", unheard=1 / 3, traffic=Traffic(pods=24), least=0.80),
    Cell("half of the pods renamed", renamed=True, traffic=Traffic(hub=3e-3), least=0.90),
    Cell("zones and services", kinds=("zone", "service"), traffic=Traffic(pods=24)),
    Cell("call graph", traffic=Traffic(graph="calls", pods=24)),
    Cell("call graph, all kinds", traffic=Traffic(graph="calls", pods=24), kinds=tuple(FAULTS)),
    Cell("between workloads", kinds=("workload pair",), traffic=Traffic(pods=24)),
    Cell("four pods", traffic=Traffic(pods=4)),
    Cell("64 pods", traffic=Traffic(pods=64, segments=600)),
    Cell("256 pods", traffic=Traffic(pods=256, segments=100)),
    Cell("512 pods, call graph", traffic=Traffic(graph="calls", pods=512)),
    Cell("512 pods", traffic=Traffic(pods=512, segments=100)),
)
"""Every cell of the table."""
