"""A pod whose port cannot be connected to."""

from typing import ClassVar

from flowverdict_lab.faults.pod_loss import PodLoss
from flowverdict_lab.network import HTTP_PORT, Network

__all__ = ["BlackholedPort", "RefusedPort"]


class RefusedPort(PodLoss):
    """Refuses new connections to a pod's server, as when it does not run."""

    name = "refused-port"
    serves = True
    action: ClassVar[str] = "reject with tcp reset"
    does: ClassVar[str] = "refuses connections"

    @property
    def words(self) -> str:
        return f"{self.where} {self.does}"

    def inject(self, network: Network) -> None:
        """Filter in the pods' own networks."""
        syn = f"tcp dport {HTTP_PORT} tcp flags & (syn | ack) == syn"
        rule = f"type filter hook input priority 0\n{syn} counter {self.action}\n"
        rules = f"table inet {self.table} {{\nchain input {{\n{rule}}}\n}}\n"
        for pod in self.targets:
            network.inside(pod.name, ["nft", "-f", "-"], rules)

    def remove(self, network: Network) -> None:
        """Remove the filters."""
        for pod in self.targets:
            network.inside(pod.name, ["nft", "delete", "table", "inet", self.table])


class BlackholedPort(RefusedPort):
    """Drops new connections to a pod's server, as a network policy does."""

    name = "blackholed-port"
    action = "drop"
    does = "does not answer connection requests"
