"""Kubernetes facts that services share: watched resources, why a pod is not ready."""

from dataclasses import dataclass
from typing import Any

__all__ = ["WATCHED", "Resource", "why_not_ready"]


@dataclass(frozen=True, slots=True)
class Resource:
    """An API resource: its group (empty for the core group) and its plural name."""

    group: str
    name: str

    @property
    def path(self) -> str:
        """The path to list and watch it in all namespaces."""
        root = f"/apis/{self.group}/v1" if self.group else "/api/v1"
        return f"{root}/{self.name}"


WATCHED = (
    Resource("", "nodes"),
    Resource("", "services"),
    Resource("discovery.k8s.io", "endpointslices"),
    Resource("batch", "jobs"),
    Resource("", "pods"),
)
"""What the enricher lists and watches, and so needs permission for."""


def why_not_ready(pod: Any) -> str:
    """Why a pod is not ready, according to the kubelet or the scheduler; empty if it is ready.

    `pod` is a V1Pod from the official client.
    """
    for each in pod.status.container_statuses or ():
        state = each.state and (each.state.waiting or each.state.terminated)
        if state:
            return f"{state.reason}: {state.message or ''}".rstrip(": ")
    conditions = {each.type: each for each in pod.status.conditions or ()}
    scheduled, ready = conditions.get("PodScheduled"), conditions.get("Ready")
    if scheduled and scheduled.status != "True":
        return f"not scheduled: {scheduled.message}"
    if ready and ready.status == "True":
        return ""
    return "running, but not ready: /readyz says why" if ready else str(pod.status.phase)
