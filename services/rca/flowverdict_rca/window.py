"""A window as a table: the counts of every pair in each of its panes."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowverdict_contracts.verdicts import Coverage
from flowverdict_flows.endpoint import Endpoint
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.facts import Facts

__all__ = ["COUNTS", "Pair", "Window", "lost_segments", "total"]

COUNTS = (
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
    "path_mtu_reductions",
    "drops_netfilter",
    "drops_queue",
    "drops_socket",
    "drops_listen_queue",
    "drops_other",
)
"""What is counted for a pair: fields of an enriched row, the columns of a window's tables."""


@dataclass(frozen=True, slots=True)
class Window:
    """Several consecutive panes.

    Attributes:
        start_ns, end_ns: its time, UTC nanoseconds.
        endpoints: every endpoint that sent or received in it.
        src, dst: the sender and the receiver of each pair, as positions in `endpoints`.
        panes: counts, shape (panes, pairs, `COUNTS`), the newest pane first.
        rtt_us: for each pair its smoothed RTT, the mean over the intervals with a sample; 0 if
            there is none.
        rtt_samples: for each pair, how many intervals had one.
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
    rtt_samples: Numbers
    addresses: dict[Endpoint, frozenset[str]]
    coverage: Coverage
    facts: Facts = Facts()  # immutable


@dataclass(frozen=True, slots=True)
class Pair:
    """One directed pair of a window.

    Attributes:
        counts: by `COUNTS`, over the panes that decided its status.
        rtt_us: smoothed RTT, 0 if unknown.
    """

    src: Endpoint
    dst: Endpoint
    counts: dict[str, int]
    rtt_us: int

    @property
    def drops(self) -> int:
        """How many of its packets a node's kernel dropped."""
        return sum(count for name, count in self.counts.items() if name.startswith("drops_"))


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
