"""What controls each pod: a workload, or a Job that a workload controls in turn."""

from flowverdict_enricher.known import KnownPod
from flowverdict_enricher.objects import Job

__all__ = ["Workloads"]


class Workloads:
    """The owners of Jobs, kept as long as a Job or a pod of it is there."""

    def __init__(self) -> None:
        self._jobs: set[str] = set()
        self._owners: dict[str, tuple[str, str]] = {}  # name and kind, by uid of the Job
        self._pods: dict[str, set[str]] = {}  # uids, by uid of the Job

    def of(self, pod: KnownPod) -> tuple[str, str]:
        """Name and kind of a pod's workload; empty if it has none."""
        return self._owners.get(pod.job, (pod.workload, pod.workload_kind))

    def add(self, pod: KnownPod) -> None:
        """A pod is there."""
        if pod.job:
            self._pods.setdefault(pod.job, set()).add(pod.uid)

    def discard(self, pod: KnownPod) -> None:
        """A pod is gone."""
        if pod.job in self._pods:
            self._pods[pod.job].discard(pod.uid)
            if not self._pods[pod.job]:
                del self._pods[pod.job]
                if pod.job not in self._jobs:
                    self._owners.pop(pod.job, None)

    def put_job(self, job: Job) -> frozenset[str]:
        """A Job is there; returns the uids of the pods whose workload may be another now."""
        uid, owner = job.metadata.uid, job.metadata.controller()
        self._jobs.add(uid)
        if owner is None or uid in self._owners:
            return frozenset()
        self._owners[uid] = owner.name, owner.kind
        return frozenset(self._pods.get(uid, ()))

    def remove_job(self, uid: str) -> None:
        """A Job is gone."""
        self._jobs.discard(uid)
        if uid not in self._pods:
            self._owners.pop(uid, None)

    def jobs(self) -> frozenset[str]:
        """The uids of the Jobs that are there."""
        return frozenset(self._jobs)
