"""An enriched batch as pairs of endpoints, with what each of them sent."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from flowverdict_contracts.addresses import ENDS, is_loopback
from flowverdict_rca.pairs import FIELDS, Endpoint, Sums

__all__ = ["PairOfBatch", "pairs_of"]


@dataclass(frozen=True, slots=True)
class PairOfBatch:
    """A pair of addresses of a batch: who they are, sums of `FIELDS`, the largest RTT."""

    src: Endpoint
    dst: Endpoint
    src_ip: str
    dst_ip: str
    sums: Sums
    rtt_us: int


class _Endpoints:
    """The endpoints at one end of a batch's rows; its dictionaries are read once."""

    def __init__(self, batch: pa.RecordBatch, end: str) -> None:
        self._columns = {
            name: (column.indices.to_numpy(), column.dictionary.to_pylist())
            for name in ("ip", "kind", "namespace", "pod", "workload", "service", "node")
            for column in (batch.column(f"{end}_{name}"),)
        }

    def __getitem__(self, row: int) -> tuple[Endpoint, str]:
        """A row's endpoint, and its address."""
        values = {name: words[codes[row]] for name, (codes, words) in self._columns.items()}
        kind, namespace = values["kind"], values["namespace"]
        if kind in ("pod", "service"):
            name = f"{namespace}/{values[kind]}"
        else:
            name = values["node"] if kind == "node" else values["ip"]
        workload = f"{namespace}/{values['workload']}" if values["workload"] else ""
        return Endpoint(kind, name, values["node"], workload), values["ip"]


def pairs_of(batch: pa.RecordBatch) -> Iterator[PairOfBatch]:
    """The pairs of addresses of a batch, but for loopback, which says nothing of a network."""
    if not batch.num_rows:
        return
    src, dst = (batch.column(f"{end}_ip").indices.to_numpy() for end in ENDS)
    codes = src.astype(np.int64) * (int(dst.max()) + 1) + dst
    _, first, inverse = np.unique(codes, return_index=True, return_inverse=True)
    sums = np.zeros((len(first), len(FIELDS)), np.int64)
    for position, name in enumerate(FIELDS):
        np.add.at(sums[:, position], inverse, batch.column(name).to_numpy().astype(np.int64))
    rtt = np.zeros(len(first), np.int64)
    np.maximum.at(rtt, inverse, batch.column("rtt_us").to_numpy().astype(np.int64))
    sources, targets = (_Endpoints(batch, end) for end in ENDS)
    for at, row in enumerate(first.tolist()):
        (source, src_ip), (target, dst_ip) = sources[row], targets[row]
        if not is_loopback(src_ip) and not is_loopback(dst_ip):
            yield PairOfBatch(source, target, src_ip, dst_ip, sums[at], int(rtt[at]))
