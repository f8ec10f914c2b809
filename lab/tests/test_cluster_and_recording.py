"""The lab's cluster and recordings."""

import gzip
import json
from ipaddress import ip_address
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nats.aio.client import Client

from flowverdict_contracts.subjects import FLOWS_RAW
from flowverdict_enricher import inventory
from flowverdict_lab import recording
from flowverdict_lab.cluster import make_cluster
from flowverdict_lab.demo import SHIPPED_RECORDING
from flowverdict_lab.recording import About, Expected
from flowverdict_runtime.streams import ensure_streams


@given(st.integers(1, 50), st.integers(1, 20))
def test_every_pod_and_node_has_a_name_and_addresses_of_its_own(pods: int, nodes: int) -> None:
    cluster = make_cluster(pods, nodes)
    names = [pod.name for pod in cluster.pods] + [node.name for node in cluster.nodes]
    texts = [text for pod in cluster.pods for text in (pod.ipv4, pod.ipv6)]
    texts += [text for node in cluster.nodes for text in (node.ipv4, node.ipv6)]
    addresses = [ip_address(text) for text in texts]
    assert len(set(names)) == len(names) == pods + nodes
    assert len(set(addresses)) == len(addresses)
    counts = [sum(pod.node is node for pod in cluster.pods) for node in cluster.nodes]
    assert max(counts) - min(counts) <= 1


@given(st.integers(1, 50), st.integers(1, 20))
def test_the_enricher_reads_every_inventory_of_the_lab(pods: int, nodes: int) -> None:
    text = make_cluster(pods, nodes).inventory()
    read = msgspec.json.decode(text, type=inventory.Inventory)
    assert (len(read.pods), len(read.nodes)) == (pods, nodes)


async def test_a_stream_is_recorded_and_replayed_as_it_was(
    nats_client: Client, tmp_path: Path
) -> None:
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    for number in range(300):
        headers = {"Nats-Msg-Id": f"n/b/{number}", "Flowverdict-Interval": f"{number}-{number + 1}"}
        await jetstream.publish("flows.raw.n", bytes([number % 256]), headers=headers)
    expected = (Expected("pod", "default/pod-a"),)
    about = About(fault="f", expected=expected, inventory="{}", phases={"before": (0, 1)})
    path = tmp_path / "deep" / "recording.jsonl.gz"
    await recording.save(jetstream, about, path)
    read, messages = recording.read(path)
    assert read == about
    await jetstream.purge_stream(FLOWS_RAW)
    replayed = list(messages)
    assert [message.body for message in replayed] == [bytes([n % 256]) for n in range(300)]
    assert replayed[7].headers["Nats-Msg-Id"] == "n/b/7"
    assert replayed[7].subject == "flows.raw.n"


def test_the_recording_in_the_repository_is_of_a_real_run_and_small() -> None:
    about, messages = recording.read(SHIPPED_RECORDING)
    assert about.fault == "20% packet loss on pod-a"
    assert len(json.loads(about.inventory)["pods"]) == 4
    assert sum(1 for _ in messages) > 30
    assert SHIPPED_RECORDING.stat().st_size < 200_000


def test_a_line_that_is_no_message_is_refused_while_reading(tmp_path: Path) -> None:
    path = tmp_path / "r.gz"
    with gzip.open(SHIPPED_RECORDING, "rt") as good, gzip.open(path, "wt") as bad:
        bad.write(good.readline() + "{}\n")
    _, messages = recording.read(path)
    with pytest.raises(recording.RecordingError, match="not a message"):
        list(messages)
