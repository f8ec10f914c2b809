"""The lab's faults, a class each; a new one needs to be added only here."""

from flowverdict_lab.cluster import NAMESPACE, Cluster, Node, Pod
from flowverdict_lab.faults.closed_port import BlackholedPort, RefusedPort
from flowverdict_lab.faults.fault import Fault, FaultError
from flowverdict_lab.faults.link_loss import LinkLoss
from flowverdict_lab.faults.lossy_hub import LossyHub
from flowverdict_lab.faults.mtu_blackhole import MtuBlackhole
from flowverdict_lab.faults.no_fault import NoFault
from flowverdict_lab.faults.node_loss import NodeLoss
from flowverdict_lab.faults.one_way_loss import ReceiveLoss, SendLoss
from flowverdict_lab.faults.pod_delay import BandwidthLimit, PodDelay, PodJitter
from flowverdict_lab.faults.pod_loss import PodLoss
from flowverdict_lab.faults.slow_server import FullReceiver, ResettingServer, SlowServer

__all__ = ["FAULTS", "Fault", "FaultError", "LossyHub", "parse_fault"]

_ALL: tuple[type[Fault], ...] = (
    PodLoss,
    SendLoss,
    ReceiveLoss,
    NodeLoss,
    LinkLoss,
    MtuBlackhole,
    RefusedPort,
    BlackholedPort,
    PodDelay,
    PodJitter,
    BandwidthLimit,
    SlowServer,
    FullReceiver,
    ResettingServer,
    NoFault,
)

FAULTS = {each.name: each for each in _ALL}
"""The faults by their names on the command line."""


def parse_fault(kind: str, target: str, loss_percent: float, cluster: Cluster) -> Fault:
    """The fault that the command line asks for; an empty `target` means that fault's default.

    Raises:
        FaultError: if the cluster has no such target, or the fault cannot affect it.
    """
    fault = FAULTS[kind]
    names = [
        name.strip().removeprefix(f"{NAMESPACE}/")
        for name in (target or fault.default_target).split(",")
        if name.strip()
    ]
    targets: list[Pod | Node] = []
    for name in names:
        found: Pod | Node | None = cluster.pod(name) or cluster.node(name)
        if found is None:
            known = ", ".join([*(p.name for p in cluster.pods), *(n.name for n in cluster.nodes)])
            raise FaultError(f"there is no {name} in the lab; choose from {known}")
        targets.append(found)
    return fault(targets, loss_percent, cluster)
