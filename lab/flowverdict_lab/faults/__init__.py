"""Faults of the lab, a class and a file each; a new one is added here and nowhere else."""

from flowverdict_lab.cluster import Cluster, Node, Pod
from flowverdict_lab.faults.fault import Fault, FaultError
from flowverdict_lab.faults.link_loss import LinkLoss
from flowverdict_lab.faults.no_fault import NoFault
from flowverdict_lab.faults.node_loss import NodeLoss
from flowverdict_lab.faults.pod_loss import PodLoss

__all__ = ["FAULTS", "Fault", "FaultError", "parse_fault"]

_ALL: tuple[type[Fault], ...] = (PodLoss, NodeLoss, LinkLoss, NoFault)

FAULTS = {each.name: each for each in _ALL}
"""Name on the command line to fault."""


def parse_fault(kind: str, target: str, loss_percent: int, cluster: Cluster) -> Fault:
    """The fault that the command line asks for; an empty `target` is the kind's default.

    Raises:
        FaultError: if the cluster has no such target, or the fault cannot hit it.
    """
    fault = FAULTS[kind]
    names = [name for name in (target or fault.default_target).split(",") if name]
    targets: list[Pod | Node] = []
    for name in names:
        found: Pod | Node | None = cluster.pod(name) or cluster.node(name)
        if found is None:
            known = ", ".join([*(p.name for p in cluster.pods), *(n.name for n in cluster.nodes)])
            raise FaultError(f"there is no {name} in the lab; there are {known}")
        targets.append(found)
    return fault(targets, loss_percent, cluster)
