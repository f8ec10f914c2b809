"""Packet loss on one of a pod's two ways."""

from typing import ClassVar

from flowverdict_lab.faults.pod_loss import PodLoss

__all__ = ["ReceiveLoss", "SendLoss"]


class SendLoss(PodLoss):
    """Drops some of what a pod sends."""

    name = "send-loss"
    hooks: ClassVar[tuple[str, ...]] = ("ingress",)

    @property
    def words(self) -> str:
        return f"{self.loss_percent:g}% loss of what {self.where} sends"


class ReceiveLoss(PodLoss):
    """Drops some of what is sent to a pod."""

    name = "receive-loss"
    hooks: ClassVar[tuple[str, ...]] = ("egress",)

    @property
    def words(self) -> str:
        return f"{self.loss_percent:g}% loss of what is sent to {self.where}"
