"""Counts what a service's pods answered as attempts to connect to the service, too.

A connection to a service's address is one to the pod that answers it. What nobody answers is left
with the service, and would look as if all attempts to connect to it failed.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from flowverdict_flows.endpoint import Endpoint
from flowverdict_flows.pairs import Numbers
from flowverdict_rca.pair_positions import PairPositions
from flowverdict_rca.window import COUNTS, total

__all__ = ["add_answered_attempts"]

_OPENS = COUNTS.index("opens")


def add_answered_attempts(
    panes: Numbers,
    endpoints: Sequence[Endpoint],
    src: Numbers,
    dst: Numbers,
    backends: Mapping[Endpoint, frozenset[Endpoint]],
) -> None:
    """Add to the opens of each pair with a service, some attempts of which failed, those of the
    same caller with the service's pods.

    Args:
        panes: counts, shape (panes, pairs, `COUNTS` and possibly more); changed in place.
        endpoints, src, dst: as in a window.
        backends: each service's pods.
    """
    fails = total(panes, "failed_opens", "retransmitted_syns").any(axis=0)
    called = [at for at in np.unique(dst[fails]).tolist() if endpoints[at] in backends]
    if not called:
        return
    position = {endpoint: at for at, endpoint in enumerate(endpoints)}
    positions = PairPositions(src, dst)
    for service in called:
        pairs = np.flatnonzero(fails & (dst == service))
        for pod in backends[endpoints[service]] & position.keys():
            at, found = positions.find(src[pairs], position[pod])
            panes[:, pairs[found], _OPENS] += panes[:, at[found], _OPENS]
