"""Large packets that are lost without a word."""

from flowverdict_lab.cluster import Node, Pod
from flowverdict_lab.faults.fault import drop_chain
from flowverdict_lab.faults.pod_loss import PodLoss
from flowverdict_lab.network import Network

__all__ = ["MtuBlackhole"]

_BYTES = 1000


class MtuBlackhole(PodLoss):
    """Drops a pod's packets above a size, as a tunnel does whose ICMP messages are filtered."""

    name = "mtu-blackhole"

    @property
    def words(self) -> str:
        return f"packets of {self.where} above {_BYTES} bytes are lost"

    def chains(self, network: Network) -> dict[Node, list[str]]:
        chains: dict[Node, list[str]] = {}
        for pod in self.targets:
            assert isinstance(pod, Pod)
            rule = f"meta length > {_BYTES} counter drop"
            hooks = [
                drop_chain(hook, network.port_of(pod), [rule]) for hook in ("ingress", "egress")
            ]
            chains.setdefault(pod.node, []).extend(hooks)
        return chains
