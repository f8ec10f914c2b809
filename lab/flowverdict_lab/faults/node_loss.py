"""Packet loss on all of a node's interfaces."""

from flowverdict_lab.cluster import Cluster, Node
from flowverdict_lab.faults.fault import Fault, FaultError, drop_chain
from flowverdict_lab.network import Network

__all__ = ["NodeLoss"]


class NodeLoss(Fault):
    """Drops what a node receives on any interface.

    It receives each forwarded packet just once.
    """

    name = "node-loss"
    default_target = "worker0"

    def check_targets(self, cluster: Cluster) -> None:
        if not all(isinstance(target, Node) for target in self.targets):
            raise FaultError("node-loss needs nodes as --target, such as worker0")
        hit = {pair for pair in cluster.pairs if any(pod.node in self.targets for pod in pair)}
        self.check_comparable(cluster, hit)
        for node in self.targets:
            if sum(pod.node is node for pod in cluster.pods) < 2:
                raise FaultError(
                    f"{node.name} with one pod cannot be distinguished from the pod: use more pods"
                )

    def chains(self, network: Network) -> dict[Node, list[str]]:
        chains: dict[Node, list[str]] = {}
        for node in self.targets:
            assert isinstance(node, Node)
            pods = [pod for pod in network.cluster.pods if pod.node is node]
            ports = ["uplink", *map(network.port_of, pods)]
            chains[node] = [drop_chain("ingress", port, [self.drops()]) for port in ports]
        return chains
