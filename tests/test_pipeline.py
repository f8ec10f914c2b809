"""Real kernel counts through the whole pipeline, exact, whatever happens on the way."""

import asyncio
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from nats.js import JetStreamContext

from conftest import Flow, eventually, header
from flowverdict_contracts import raw
from flowverdict_contracts.addresses import to_text
from flowverdict_contracts.subjects import FLOWS_RAW, raw_subject
from flowverdict_lab.cluster import make_cluster
from flowverdict_lab.faults import parse_fault
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import Network
from flowverdict_lab.pipeline import Pipeline
from tests.kernel_counts import (
    enriched_retransmissions,
    equals_kernel,
    exported_retransmissions,
    jetstream_of,
    of_the_lab,
    opens_equal_kernel,
    read_all,
    records_of,
)

REASON = why_not_live()
live = pytest.mark.skipif(REASON is not None, reason=f"no live run: {REASON}")


async def pipeline_agrees(jetstream: JetStreamContext, pipeline: Pipeline) -> bool:
    """Whether enricher and exporter have as many retransmissions as the raw records."""
    own = {address for pod in make_cluster(4, 2).pods for address in (pod.ipv4, pod.ipv6)}
    raw_sum = sum(
        int(each["retransmitted_segments"])
        for each in await records_of(jetstream)
        if to_text(each["src"].tobytes()) in own
    )
    enriched_sum = await enriched_retransmissions(jetstream)
    exported_sum = exported_retransmissions(pipeline)
    return bool(raw_sum == enriched_sum == exported_sum)


async def run_with_loss(
    network: Network, seconds: float, meanwhile: Callable[[], None] = lambda: None
) -> None:
    """Traffic under 20% loss, then none, until every connection is closed."""
    fault = parse_fault("pod-loss", "pod-b", 20, network.cluster)
    network.start_traffic(10)
    fault.inject(network)
    await asyncio.sleep(seconds / 2)
    await asyncio.to_thread(meanwhile)
    await asyncio.sleep(seconds / 2)
    fault.remove(network)
    network.stop_traffic()
    await eventually(lambda: network.tcp_total("CurrEstab") == 0, 60)


@live
async def test_counts_equal_the_kernels_own(lab: tuple[Network, Pipeline]) -> None:
    network, pipeline = lab
    await run_with_loss(network, 8)
    assert network.tcp_total("RetransSegs") > 50
    async with jetstream_of(pipeline) as jetstream:
        await eventually(lambda: equals_kernel(jetstream, network), 60)
        await eventually(lambda: pipeline_agrees(jetstream, pipeline))
        await eventually(lambda: opens_equal_kernel(jetstream, network))
        records = of_the_lab(await records_of(jetstream), network)
    data = int(records["retransmitted_data_segments"].sum())
    handshake = int(records["retransmitted_syns"].sum() + records["retransmitted_synacks"].sum())
    assert data + handshake == int(records["retransmitted_segments"].sum())
    causes = ("after_timeout", "in_fast_recovery", "by_tail_loss_probe")
    by_cause = [int(records[f"retransmitted_{cause}"].sum()) for cause in causes]
    assert all(by_cause), "with a fifth lost there is every cause"
    assert 0.9 * data < sum(by_cause) <= data
    # The kernel also counts what no socket sent: resets, and ACKs in TIME_WAIT.
    sent = int(records["segments_sent"].sum())
    of_kernel = network.tcp_total("OutSegs") + network.tcp_total("RetransSegs")
    assert 0.98 * of_kernel < sent <= of_kernel
    assert int(records["bytes_received"].sum()) > 1_000_000
    timed = records[records["rtt_us"] > 0]
    assert len(timed) > 10
    assert timed["rtt_variation_us"].max() > 0


@live
async def test_no_count_is_lost_while_nats_is_away(lab: tuple[Network, Pipeline]) -> None:
    network, pipeline = lab

    def nats_goes_away() -> None:
        pipeline.stop("nats")
        time.sleep(4)  # the length of the outage, not a wait for anything
        pipeline.start_nats()

    await run_with_loss(network, 6, nats_goes_away)
    async with jetstream_of(pipeline) as jetstream:
        await eventually(lambda: equals_kernel(jetstream, network), 60)
        await eventually(lambda: pipeline_agrees(jetstream, pipeline), 60)
        longest = max(
            int(end) - int(start)
            for message in await read_all(jetstream, FLOWS_RAW)
            for start, end in [message.headers["Flowverdict-Interval"].split("-")]
        )
    assert longest > 3e9, "the collector did not merge the intervals of the outage"


@live
async def test_no_count_is_lost_when_services_are_killed(lab: tuple[Network, Pipeline]) -> None:
    network, pipeline = lab

    def kill_some() -> None:
        for service in ("enricher", "rca"):
            pipeline.kill(service)
            pipeline.start(service)

    await run_with_loss(network, 6, kill_some)
    pipeline.wait_ready()
    async with jetstream_of(pipeline) as jetstream:
        await eventually(lambda: equals_kernel(jetstream, network), 60)
        # What the killed enricher had fetched comes again after the acknowledgement's time is up.
        await eventually(lambda: pipeline_agrees(jetstream, pipeline), 90)


@live
async def test_an_ipv6_flow_is_counted_and_named(lab: tuple[Network, Pipeline]) -> None:
    network, pipeline = lab
    network.start_traffic(10, ipv6=True)
    pod_a, pod_d = network.cluster.pods[0], network.cluster.pods[3]
    labels = (f'src_ip="{pod_a.ipv6}"', f'dst_ip="{pod_d.ipv6}"', 'dst_pod="pod-d"')

    def sent() -> float:
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in pipeline.page("exporter", "/metrics").splitlines()
            if line.startswith("tcp_sent_bytes_total{") and all(each in line for each in labels)
        )

    await eventually(lambda: sent() > 100_000)


@pytest.fixture
def no_collector(tmp_path: Path) -> Iterator[Pipeline]:
    cluster = make_cluster(4, 2)
    with Pipeline(tmp_path, cluster.inventory(), collector=False) as pipeline:
        yield pipeline


async def test_malformed_messages_are_skipped_and_an_unknown_address_is_kept(
    no_collector: Pipeline, raw_body: Callable[..., bytes]
) -> None:
    pipeline, subject = no_collector, raw_subject("n1")
    good = raw_body(
        Flow("203.0.113.9", "10.244.0.2", retransmitted_segments=7),
        Flow("10.99.99.99", "10.244.0.2", retransmitted_segments=5),
    )
    async with jetstream_of(pipeline) as jetstream:
        headers = header(sequence=1).encode(raw.SCHEMA)
        await jetstream.publish(subject, b"nonsense")
        await jetstream.publish(subject, good[:-1], headers=headers | {"Nats-Msg-Id": "n1/boot/7"})
        newer = headers | {"Flowverdict-Schema": "flows.raw/9", "Nats-Msg-Id": "n1/boot/8"}
        await jetstream.publish(subject, good, headers=newer)
        await jetstream.publish("flows.enriched", b"nonsense")
        await jetstream.publish(subject, good, headers=headers)
        again = await jetstream.publish(subject, good, headers=headers)
        assert again.duplicate

        def exported() -> list[str]:
            lines = pipeline.page("exporter", "/metrics").splitlines()
            return [line for line in lines if line.startswith("tcp_retransmissions_total{")]

        await eventually(lambda: len(exported()) == 2)
        found = {line.split('src_ip="')[1].split('"')[0]: line.split()[-1] for line in exported()}
        assert found == {"203.0.113.9": "7", "10.99.99.99": "5"}
        assert all('dst_pod="pod-a"' in line for line in exported())
        assert pipeline.metric("enricher", "flowverdict_messages_malformed_total") == 3
        assert pipeline.metric("exporter", "flowverdict_messages_malformed_total") == 1
        await eventually(
            lambda: pipeline.metric("rca", "flowverdict_messages_malformed_total") == 1
        )
        kinds = pipeline.page("enricher", "/metrics")
        # 203.0.113.0/24 is set aside for documentation (RFC 5737), so nobody's public address.
        assert 'flowverdict_enricher_ends_total{kind="unknown"} 2.0' in kinds
        info = await jetstream.consumer_info(FLOWS_RAW, "enricher")
        assert info.num_ack_pending == 0
    log = [json.loads(line) for line in (pipeline.logs / "enricher.log").read_text().splitlines()]
    warnings = [line for line in log if line["message"].startswith("malformed")]
    assert len(warnings) == 1, "once a minute, not once a message"
    assert warnings[0]["subject"] == subject


def test_every_service_drains_and_ends_well_on_sigterm(no_collector: Pipeline) -> None:
    for service in ("enricher", "exporter", "rca"):
        assert no_collector.stop(service) == 0
        assert json.loads(no_collector.log_tail(service).splitlines()[-1])["message"] == "stopped"
