"""A window as a table: the counts of every pair in each of its panes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import numpy.typing as npt

from flowverdict_contracts.verdicts import Coverage
from flowverdict_flows.components import component_of
from flowverdict_flows.endpoint import Endpoint
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.facts import Facts
from flowverdict_rca.pair_positions import PairPositions
from flowverdict_rca.passage import Passage

__all__ = ["COUNTS", "DROPS", "DROPS_BEFORE_RECEIPT", "Pair", "Window", "lost_segments", "total"]

COUNTS = (
    "segments_sent",
    "segments_received",
    "data_segments_sent",
    "bytes_acked",
    "retransmitted_data_segments",
    "spurious_retransmissions",
    "retransmitted_syns",
    "retransmitted_synacks",
    "opens",
    "failed_opens",
    "refused_opens",
    "timed_out_opens",
    "unreachable_opens",
    "zero_windows_received",
    "resets_received",
    "path_mtu_reductions",
    "drops_netfilter",
    "drops_queue",
    "drops_socket",
    "drops_listen_queue",
    "drops_other",
    "dns_answers",
    "dns_failures",
    "dns_unanswered",
    "answers",
    "answers_us",
)
"""What is counted for a pair: fields of an enriched row, the columns of a window's tables."""

DROPS = tuple(name for name in COUNTS if name.startswith("drops_"))
"""Those of packets that a node's kernel dropped, by its reason."""

DROPS_BEFORE_RECEIPT = tuple(name for name in DROPS if name != "drops_socket")
"""A segment for which a socket has no room was counted as received before (tcp_v4_rcv)."""


@dataclass(frozen=True)
class Window:
    """Several consecutive panes.

    Attributes:
        start_ns, end_ns: its time, UTC nanoseconds.
        endpoints: every endpoint that sent or received in it.
        src, dst: the sender and the receiver of each pair, as positions in `endpoints`.
        panes: counts, shape (panes, pairs, `COUNTS`), the newest pane first.
        rtt_us: for each pair its smoothed RTT, the mean over the intervals with a sample; 0 if
            there is none.
        rtt_variation_us: likewise, how much it varies.
        rtt_samples: for each pair, how many intervals had one.
        answering_us: for each pair, the length of the intervals in which a connection had an
            answer, added up over its connections.
        calls: for each pair, how many rows were about connections that its sender has opened, less
            those about connections that it has accepted.
        dropped: for some pairs, by position, the packets that nodes' kernels dropped, by node.
        drop_reasons: likewise, by the kernels' reasons.
        failed_names: for some pairs, by position, the names that could not be looked up, and how
            often.
        addresses: those seen for each endpoint.
        coverage: how complete it is.
        facts: what the cluster itself knows about it.
    """

    start_ns: int
    end_ns: int
    endpoints: Sequence[Endpoint]
    src: Numbers
    dst: Numbers
    panes: Numbers
    rtt_us: Numbers
    rtt_variation_us: Numbers
    rtt_samples: Numbers
    answering_us: Numbers
    calls: Numbers
    addresses: dict[Endpoint, frozenset[str]]
    coverage: Coverage
    facts: Facts = Facts()  # immutable
    dropped: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    drop_reasons: Mapping[int, Mapping[str, int]] = field(default_factory=dict)
    failed_names: Mapping[int, Mapping[str, int]] = field(default_factory=dict)

    @cached_property
    def counts(self) -> Numbers:
        """The counts of all panes together, shape (pairs, `COUNTS`)."""
        summed: Numbers = self.panes.sum(axis=0)
        return summed

    @cached_property
    def names_of_pairs(self) -> npt.NDArray[np.object_]:
        """The two ends of each pair, in words."""
        ends = np.array([str(component_of(each)) for each in self.endpoints], object)
        names: npt.NDArray[np.object_] = ends[self.src] + " " + ends[self.dst]
        return names

    @cached_property
    def places_of_pairs(self) -> npt.NDArray[np.object_]:
        """The workloads and nodes of each pair, in words; empty if an end is no workload's pod."""
        ends = np.array([_place_of(each) for each in self.endpoints], object)
        src, dst = ends[self.src], ends[self.dst]
        places: npt.NDArray[np.object_] = np.where((src != "") & (dst != ""), src + " " + dst, "")
        return places

    def pairs_with(
        self, is_so: Sequence[bool] | npt.NDArray[np.bool_], *, both: bool = False
    ) -> npt.NDArray[np.bool_]:
        """The pairs of which it is so of either endpoint, or of both; given for all `endpoints`."""
        of_end = np.array(is_so, np.bool_)
        if not len(of_end):
            return np.zeros(0, np.bool_)
        src, dst = of_end[self.src], of_end[self.dst]
        found: npt.NDArray[np.bool_] = src & dst if both else src | dst
        return found

    @cached_property
    def other_ways(self) -> tuple[Numbers, npt.NDArray[np.bool_]]:
        """For each pair the position of the one the other way, and whether there is one."""
        return PairPositions(self.src, self.dst).find(self.dst, self.src)

    def passages(self, positions: Numbers) -> list[Passage]:
        """What became of the segments of some pairs.

        A receiver of which there are no rows got nothing, if its node reports.
        """
        at, is_seen = (each[positions] for each in self.other_ways)
        counts = self.counts
        sent, received = total(counts, "segments_sent"), total(counts, "segments_received")
        resent = lost_segments(counts) + total(counts, "retransmitted_syns")
        reporting = set(self.coverage.nodes_reporting)
        found = []
        for pair, other, seen in zip(positions.tolist(), at.tolist(), is_seen, strict=True):
            arrived = int(received[other]) if seen else None
            if arrived is None and self.endpoints[self.dst[pair]].node in reporting:
                arrived = 0
            found.append(
                Passage(
                    sent=int(sent[pair]),
                    arrived=arrived,
                    dropped=self.dropped.get(pair, {}),
                    reasons=self.drop_reasons.get(pair, {}),
                    resent=int(resent[pair]),
                )
            )
        return found


@dataclass(frozen=True, slots=True)
class Pair:
    """One directed pair of a window.

    Attributes:
        counts: by `COUNTS`, over the panes that decided its status.
        rtt_us, rtt_variation_us: smoothed RTT and how much it varies, 0 if unknown.
        failed_names: names that could not be looked up, and how often.
    """

    src: Endpoint
    dst: Endpoint
    counts: dict[str, int]
    rtt_us: int
    rtt_variation_us: int
    failed_names: Mapping[str, int]

    @property
    def answer_us(self) -> int:
        """How long `dst` took to answer on average, 0 if unknown."""
        return self.counts["answers_us"] // max(self.counts["answers"], 1)

    @property
    def drops(self) -> int:
        """How many of its packets a node's kernel dropped."""
        return sum(self.counts[name] for name in DROPS)


def _place_of(end: Endpoint) -> str:
    return f"{end.namespace}/{end.workload} on {end.node}" if end.workload else ""


def total(table: Numbers, *names: str) -> Numbers:
    """The sum of some of the `COUNTS` for each row of a table of them."""
    added: Numbers = table[..., [COUNTS.index(name) for name in names]].sum(axis=-1)
    return added.astype(np.int64)


def lost_segments(table: Numbers) -> Numbers:
    """Data segments that were retransmitted because they were lost, for each row of a table.

    Those that the peer then had twice were not lost: they were late, or what acknowledged them was
    lost or late.
    """
    lost: Numbers = np.maximum(
        total(table, "retransmitted_data_segments") - total(table, "spurious_retransmissions"), 0
    )
    return lost
