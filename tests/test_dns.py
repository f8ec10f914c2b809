"""DNS lookups from the kernel to a verdict."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import eventually
from flowverdict_contracts.subjects import RCA_VERDICTS
from flowverdict_contracts.verdicts import Verdict
from flowverdict_contracts.verdicts import decode as decode_verdict
from flowverdict_lab.cluster import make_cluster
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import Network
from flowverdict_lab.pipeline import Pipeline
from tests.kernel_counts import jetstream_of, read_all

REASON = why_not_live()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no live run: {REASON}")

SILENT = """
import socket, sys
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind((sys.argv[1], 53))
print("ready", flush=True)
while True:
    server.recvfrom(512)
"""
# Looks up a new name each fifth of a second, whatever became of the others.
CLIENT = """
import socket, struct, sys, time
print("ready", flush=True)
number = 0
while True:
    number += 1
    client = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    header = struct.pack("!6H", number % 65536, 0x0100, 1, 0, 0, 0)
    client.sendto(header + b"\\x03api\\x00\\x00\\x01\\x00\\x01", (sys.argv[1], 53))
    client.close()
    time.sleep(0.2)
"""


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[tuple[Network, Pipeline]]:
    """The lab without traffic, and a pipeline that also counts lookups."""
    cluster = make_cluster(4, 2)
    (tmp_path / "logs").mkdir()
    with (
        Network(cluster, tmp_path / "logs") as network,
        Pipeline(
            tmp_path,
            cluster.inventory(),
            namespaces=network.namespaces(),
            environ={"FLOWVERDICT_DNS": "on"},
        ) as pipeline,
    ):
        yield network, pipeline


async def test_a_dns_server_that_does_not_answer_is_named(
    watched: tuple[Network, Pipeline],
) -> None:
    network, pipeline = watched
    server, *clients = network.cluster.pods
    network.start_inside(server.name, [sys.executable, "-c", SILENT, server.ipv4])
    network.start_traffic(5)
    for client in clients:
        network.start_inside(client.name, [sys.executable, "-c", CLIENT, server.ipv4])
    async with jetstream_of(pipeline) as jetstream:

        async def opened() -> Verdict | None:
            found = [decode_verdict(each.data) for each in await read_all(jetstream, RCA_VERDICTS)]
            return next((each for each in found if each.causes), None)

        verdict = await eventually(opened, 90)
    assert str(verdict.causes[0]) == f"pod default/{server.name}"
    assert verdict.conditions == ("DNS_FAILURE",)
    assert "DNS lookups are not answered" in verdict.summary
    assert 'dst_pod="pod-a"' in next(
        line
        for line in pipeline.page("exporter", "/metrics").splitlines()
        if line.startswith("dns_unanswered_total{")
    )
