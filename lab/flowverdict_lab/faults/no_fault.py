"""No fault: any verdict would be wrong."""

from flowverdict_lab.cluster import Cluster, Node
from flowverdict_lab.faults.fault import Fault, FaultError
from flowverdict_lab.network import Network

__all__ = ["NoFault"]


class NoFault(Fault):
    """Breaks nothing."""

    name = "none"
    default_target = ""
    words = "no fault"

    def check_targets(self, cluster: Cluster) -> None:  # noqa: ARG002 # there is none
        if self.targets:
            raise FaultError("--fault none takes no --target")

    def chains(self, network: Network) -> dict[Node, list[str]]:  # noqa: ARG002 # none anywhere
        return {}
