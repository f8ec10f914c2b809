"""Connection requests that never complete, on the real kernel and through the whole pipeline."""

import asyncio
import sys

import pytest

from conftest import eventually
from flowverdict_contracts import enriched, verdicts
from flowverdict_contracts.interval_header import IntervalHeader
from flowverdict_contracts.kernel_reports import KernelReport
from flowverdict_contracts.subjects import FLOWS_ENRICHED, RCA_VERDICTS
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import Network
from flowverdict_lab.phases import until_judged
from flowverdict_lab.pipeline import Pipeline
from flowverdict_runtime.stored_messages import stored_messages
from tests.kernel_counts import jetstream_of

REASON = why_not_live()
pytestmark = pytest.mark.skipif(REASON is not None, reason=f"no live run: {REASON}")

# 600 SYNs in six seconds, more than a server lets wait, from addresses that never answer.
FLOOD = """
import random, socket, struct, sys, time

def checksum(data):
    total = sum(struct.unpack(f"!{len(data) // 2}H", data))
    total = (total >> 16) + (total & 0xFFFF)
    return ~(total + (total >> 16)) & 0xFFFF

target = socket.inet_aton(sys.argv[1])
raw = socket.socket(socket.AF_INET, socket.SOCK_RAW, socket.IPPROTO_RAW)
for number in range(600):
    source = bytes([45, *random.sample(range(1, 255), 3)])
    def segment(check):
        return struct.pack("!HHLLBBHHH", 1024 + number, 8080, 1, 0, 5 << 4, 2, 65535, check, 0)
    pseudo = source + target + struct.pack("!BBH", 0, socket.IPPROTO_TCP, 20)
    packet = struct.pack("!BBHHHBBH4s4s", 0x45, 0, 40, number, 0, 64, 6, 0, source, target)
    raw.sendto(packet + segment(checksum(pseudo + segment(0))), (sys.argv[1], 0))
    time.sleep(0.01)
"""


async def test_a_syn_flood_blames_nobody_and_is_counted_where_it_is_answered(
    lab: tuple[Network, Pipeline],  # the fixture
) -> None:
    network, pipeline = lab
    flooder, victim = network.cluster.pods[0], network.cluster.pods[1]
    # What the victim answers is dropped on its way; without this the node would reject it.
    hook = "type filter hook prerouting priority 0;"
    drop = f"table inet flood {{\nchain answers {{\n{hook}\nip daddr 45.0.0.0/8 drop\n}}\n}}\n"
    network.inside(victim.node.name, ["nft", "-f", "-"], drop)
    network.start_traffic(10)
    flood = [sys.executable, "-c", FLOOD, victim.ipv4]
    await asyncio.to_thread(network.inside, flooder.name, flood)

    async with jetstream_of(pipeline) as jetstream:

        async def is_half_open() -> bool:
            rows = [
                row
                async for message in stored_messages(jetstream, FLOWS_ENRICHED)
                for row in enriched.decode(message.data).to_pylist()
                if row["dst_ip"].startswith("45.") and row["src_pod"] == victim.name
            ]
            assert not any(row["opens"] or row["retransmitted_data_segments"] for row in rows)
            # A SYN-ACK is retransmitted a second after it was sent, then two seconds later.
            return sum(int(row["retransmitted_synacks"]) for row in rows) > 400

        await eventually(is_half_open)

        async def reports() -> list[KernelReport]:
            return [
                report
                async for message in stored_messages(jetstream, FLOWS_ENRICHED)
                for report in IntervalHeader.decode(message.headers, enriched.SCHEMA).kernel_reports
            ]

        await eventually(reports)
        (report,) = await reports()
        assert report.condition == "SYN_FLOODING"
        assert report.line.endswith("Possible SYN flooding on port [::]:8080. Sending cookies.")
        last = [message async for message in stored_messages(jetstream, FLOWS_ENRICHED)][-1]
        end_ns = int((last.headers or {})["Flowverdict-Interval"].split("-")[1])
        await until_judged(pipeline, end_ns)
        published = [
            verdicts.decode(each.data) async for each in stored_messages(jetstream, RCA_VERDICTS)
        ]
        assert published == []
