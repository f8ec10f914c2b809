"""A bad moment while everything starts: when it is over, all becomes ready by itself."""

import asyncio

import pytest

from tests.cluster.installation import NAMESPACE, Installation


@pytest.mark.day
@pytest.mark.parametrize(
    ("namespace", "workload"),
    [
        ("kube-system", "deployment/coredns"),
        (NAMESPACE, "statefulset/nats"),
        (NAMESPACE, "statefulset/influxdb"),
    ],
)
async def test_what_starts_while_something_else_is_unavailable_is_ready_soon_after_that_is_back(
    installation: Installation, namespace: str, workload: str
) -> None:
    installation.kubectl("-n", namespace, "scale", workload, "--replicas=0")
    try:
        installation.kubectl("-n", NAMESPACE, "delete", "pod", "--all", "--wait=false")
        await asyncio.sleep(60)
    finally:
        installation.kubectl("-n", namespace, "scale", workload, "--replicas=1")
    installation.await_ready(NAMESPACE, 60)
