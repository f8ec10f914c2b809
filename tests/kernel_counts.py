"""Compares what the pipeline counted in the lab with the kernel's own counters."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import nats
import numpy as np
import numpy.typing as npt
from nats.js import JetStreamContext

from flowverdict_contracts import enriched, raw, raw_records
from flowverdict_contracts.subjects import FLOWS_ENRICHED, FLOWS_RAW
from flowverdict_lab.network import Network
from flowverdict_lab.pipeline import Pipeline
from flowverdict_runtime.stored_messages import stored_messages

__all__ = ["SKIPPED", "enriched_retransmissions", "equals_kernel", "exported_retransmissions",
           "jetstream_of", "of_the_lab", "opens_equal_kernel", "read_all",
           "records_of"]  # fmt: skip


SKIPPED = 2
"""Events of a run that may be missing, or SYN-ACKs counted twice, because the kernel ran none of
the programs for a whole softirq (docs/architecture.md, "Skipped events"): a connection's last FIN
cannot be recovered if its destruction is skipped as well. A lost interval misses dozens.
"""


@contextlib.asynccontextmanager
async def jetstream_of(pipeline: Pipeline) -> AsyncIterator[JetStreamContext]:
    client = await nats.connect(pipeline.nats_url, max_reconnect_attempts=-1)
    try:
        yield client.jetstream(timeout=10)
    finally:
        await client.close()


async def read_all(jetstream: JetStreamContext, stream: str) -> list[Any]:
    return [message async for message in stored_messages(jetstream, stream)]


async def records_of(jetstream: JetStreamContext) -> npt.NDArray[np.void]:
    """All raw records that the stream holds."""
    return np.concatenate(
        [
            raw_records.read(each.headers, each.data).records
            for each in await read_all(jetstream, FLOWS_RAW)
        ]
    )


def of_the_lab(records: npt.NDArray[np.void], network: Network) -> npt.NDArray[np.void]:
    """Those counted in this lab's own namespaces; an earlier lab's last FINs may still be seen."""
    namespaces = [
        Path(f"/proc/{network.pid(pod.name)}/ns/net").stat().st_ino for pod in network.cluster.pods
    ]
    return records[np.isin(records["netns"], namespaces)]


async def enriched_retransmissions(jetstream: JetStreamContext) -> int:
    """Those of the lab's pods, in all enriched messages."""
    return sum(
        row["retransmitted_segments"]
        for message in await read_all(jetstream, FLOWS_ENRICHED)
        for row in enriched.decode(message.data).to_pylist()
        if row["src_kind"] == "pod"
    )


def exported_retransmissions(pipeline: Pipeline) -> float:
    """Those of the lab's pods, on the exporter's page."""
    return sum(
        float(line.rsplit(" ", 1)[1])
        for line in pipeline.page("exporter", "/metrics").splitlines()
        if line.startswith("tcp_retransmissions_total{") and 'src_pod="pod-' in line
    )


async def equals_kernel(jetstream: JetStreamContext, network: Network) -> bool:
    """Whether the raw records have the kernel's retransmissions, but for `SKIPPED`, and the kernel
    has stopped counting: a last FIN may still be sent.
    """
    before = network.tcp_total("RetransSegs")
    records = of_the_lab(await records_of(jetstream), network)
    counted = int(records["retransmitted_segments"].sum())
    print(f"retransmissions: {counted} counted, {before} by the kernel")  # for a failure
    return abs(counted - before) <= SKIPPED and before == network.tcp_total("RetransSegs")


async def opens_equal_kernel(jetstream: JetStreamContext, network: Network) -> bool:
    """Whether the raw records have as many connections as the kernel, asked for and accepted."""
    records = of_the_lab(await records_of(jetstream), network)
    clients = records[records["role"] == raw.ROLES.index("client")]
    servers = records[records["role"] == raw.ROLES.index("server")]
    attempts = int(clients["opens"].sum() + clients["failed_opens"].sum())
    accepted = int(servers["opens"].sum())
    difference = (
        attempts - network.tcp_total("ActiveOpens"),
        accepted - network.tcp_total("PassiveOpens"),
    )
    print(f"opens: {difference} more than the kernel, asked for and accepted")  # for a failure
    return all(abs(each) <= SKIPPED for each in difference)
