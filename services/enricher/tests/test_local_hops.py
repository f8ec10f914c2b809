"""Connections that a sidecar answers in the client's own pod."""

from pathlib import Path
from typing import Any

import numpy as np
from nats.aio.client import Client

from conftest import NatsServer, eventually, header, running_enricher, until_ready
from flowverdict_contracts import enriched, raw
from flowverdict_contracts.addresses import to_bytes
from flowverdict_contracts.raw import ROLES
from flowverdict_contracts.raw_records import RECORD
from flowverdict_contracts.subjects import FLOWS_ENRICHED, FLOWS_RAW, raw_subject
from flowverdict_enricher.local_hops import LocalHops
from flowverdict_flows.pairs import EndpointPairs
from flowverdict_runtime.streams import ensure_streams

APP, PEER, SERVICE = "10.0.0.1", "10.0.0.5", "10.96.0.5"
POD, OTHER = 4026532001, 4026532002


def flow(role: str, src: str, src_port: int, dst: str, dst_port: int, netns: int = POD) -> Any:
    record = np.zeros(1, RECORD)
    record["src"], record["dst"] = np.void(to_bytes(src)), np.void(to_bytes(dst))
    record["src_port"], record["dst_port"] = src_port, dst_port
    record["role"], record["netns"] = ROLES.index(role), netns
    record["segments_received"] = 5
    return record


def to_sidecar(target: str, loopback: str = "127.0.0.1") -> Any:
    """Both ends of the program's connection, and what the sidecar opens."""
    records = np.zeros(3, RECORD)
    records[0:1] = flow("client", APP, 40_000, target, 80)
    records[1:2] = flow("server", loopback, 15_001, APP, 40_000)
    records[2:3] = flow("client", APP, 50_000, PEER, 8080)
    return records


def targets(hops: LocalHops, records: Any, second: float = 1_000_000) -> list[bytes]:
    marked = hops.marked(header(second), records)
    return [each["dst"].tobytes() for each in marked if each["role"] == ROLES.index("client")]


def test_what_ends_in_its_own_pod_goes_to_loopback_and_what_the_sidecar_opens_does_not() -> None:
    for target in (SERVICE, PEER):
        for loopback in ("127.0.0.1", "127.0.0.6"):
            hops, records = LocalHops(), to_sidecar(target, loopback)
            hops.learn(header(), records)
            assert targets(hops, records) == [to_bytes("127.0.0.1"), to_bytes(PEER)]


def test_the_same_port_of_another_pod_or_of_a_later_connection_is_another_connection() -> None:
    hops = LocalHops()
    hops.learn(header(), to_sidecar(SERVICE))
    elsewhere = flow("client", APP, 40_000, SERVICE, 80, OTHER)
    assert targets(hops, elsewhere) == [to_bytes(SERVICE)]
    again = flow("client", APP, 40_000, PEER, 8080)
    assert targets(hops, again, 1_000_030) == [to_bytes(PEER)]
    assert targets(hops, again, 1_000_001) == [to_bytes("127.0.0.1")]


async def test_a_mesh_does_not_halve_a_pods_failing_share(
    nats_server: NatsServer, nats_client: Client, tmp_path: Path
) -> None:
    """Only the sidecar's own connection is a pair of the pod, though both are in the message."""
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream, [FLOWS_RAW])
    pods = [
        {"namespace": "shop", "name": name, "addresses": [address]}
        for name, address in (("app", APP), ("peer", PEER))
    ]
    services = [{"namespace": "shop", "name": "peer", "addresses": [SERVICE], "pods": ["peer"]}]
    log = tmp_path / "enricher.log"
    with running_enricher(nats_server.url, {"pods": pods, "services": services}, log):
        await until_ready(log)
        body = to_sidecar(SERVICE).tobytes()
        head = header().encode(raw.SCHEMA)
        await jetstream.publish(raw_subject("n1"), body, headers=head)

        async def stored() -> bool:
            return bool((await jetstream.stream_info(FLOWS_ENRICHED)).state.messages)

        await eventually(stored)
    message = await jetstream.get_msg(FLOWS_ENRICHED, 1)
    pairs = EndpointPairs()
    pairs.group(enriched.decode(message.data or b""))
    (pair,) = [pairs.pair(number) for number in pairs.numbers().tolist()]
    assert [str(each) for each in pair] == ["shop/app", "shop/peer"]
