"""What must hold on every kernel that Flowverdict runs on; script/kernels boots others for it."""

import contextlib
from collections.abc import Iterator

import pytest

from conftest import eventually, kernel
from flowverdict_contracts.subjects import RCA_VERDICTS
from flowverdict_contracts.verdicts import decode as decode_verdict
from flowverdict_lab.cluster import Pod
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import LabError, Network
from flowverdict_lab.pipeline import Pipeline
from tests.kernel_counts import (
    equals_kernel,
    jetstream_of,
    opens_equal_kernel,
    read_all,
)

REASON = why_not_live()
live = pytest.mark.skipif(REASON is not None, reason=f"no live run: {REASON}")


@contextlib.contextmanager
def netem(network: Network, pod: Pod, *what: str) -> Iterator[None]:
    """Impair the pod's wire each way, as tc-netem(8) says."""
    ends = ((pod.node.name, network.port_of(pod)), (pod.name, "eth0"))
    try:
        for where, interface in ends:
            network.inside(where, ["tc", "qdisc", "add", "dev", interface, "root", "netem", *what])
    except LabError as error:
        if "qdisc kind is unknown" in str(error):
            pytest.skip("this kernel has no netem: script/kernels boots some that have it")
        raise
    yield
    for where, interface in ends:
        network.inside(where, ["tc", "qdisc", "delete", "dev", interface, "root"])


@live
async def test_under_loss_every_count_is_the_kernels_and_the_lossy_pod_is_named(
    lab: tuple[Network, Pipeline],
) -> None:
    network, pipeline = lab
    network.start_traffic(4)
    async with jetstream_of(pipeline) as jetstream:

        async def named() -> bool:
            verdicts = [
                decode_verdict(each.data) for each in await read_all(jetstream, RCA_VERDICTS)
            ]
            return any("default/pod-b" in str(cause) for each in verdicts for cause in each.causes)

        with netem(network, network.cluster.pods[1], "loss", "20%"):
            await eventually(named, 120)
        network.stop_traffic()
        await eventually(lambda: kernel(network, "CurrEstab") == 0, 60)
        assert kernel(network, "RetransSegs") > 50
        await eventually(lambda: equals_kernel(jetstream, network), 60)
        await eventually(lambda: opens_equal_kernel(jetstream, network))
