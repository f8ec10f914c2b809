"""Connection requests that never completed, by the endpoint that answers them."""

import numpy as np

from flowverdict_flows.pairs import Numbers

__all__ = ["half_open"]


def half_open(
    sources: Numbers, retransmitted_synacks: Numbers, opens: Numbers, at_least: int
) -> list[tuple[int, int, int]]:
    """Senders that retransmit SYN-ACKs in pairs without a single connection, worst first.

    The arrays have one entry per pair; `sources` identifies the sender by number. Returns that
    number, how many peers never completed a connection, and the SYN-ACK segments retransmitted to
    them, for senders with `at_least` that many.
    """
    never = (retransmitted_synacks > 0) & (opens == 0)
    peers = np.bincount(sources[never])
    sums = np.bincount(sources[never], retransmitted_synacks[never]).astype(np.int64)
    worst_first = np.argsort(-sums, kind="stable").tolist()
    return [(at, int(peers[at]), int(sums[at])) for at in worst_first if sums[at] >= at_least]
