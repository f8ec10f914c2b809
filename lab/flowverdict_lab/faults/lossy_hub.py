"""A loss that has always been there, where everyone goes."""

from collections import Counter

from flowverdict_lab.cluster import Cluster
from flowverdict_lab.faults.pod_loss import PodLoss

__all__ = ["LossyHub"]


class LossyHub(PodLoss):
    """Drops some of what the pod with the most peers sends and receives, from beginning to end."""

    name = "lossy-hub"
    table = "flowverdict_lab_hub"

    def __init__(self, loss_percent: float, cluster: Cluster) -> None:
        peers = Counter(pod for pair in cluster.pairs for pod in pair)
        hub = max(reversed(cluster.pods), key=peers.__getitem__)
        super().__init__([hub], loss_percent, cluster)
