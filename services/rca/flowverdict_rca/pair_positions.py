"""Where in a window's tables a pair is, by its ends."""

import numpy as np
import numpy.typing as npt

from flowverdict_flows.pairs import Numbers

__all__ = ["PairPositions"]

_HALF = 32


class PairPositions:
    """Finds pairs by sender and receiver.

    Args:
        src, dst: of each pair, as positions in a window's endpoints.
    """

    def __init__(self, src: Numbers, dst: Numbers) -> None:
        codes = src << _HALF | dst
        self._order = np.argsort(codes)
        self._codes = codes[self._order]

    def find(self, src: Numbers, dst: Numbers | int) -> tuple[Numbers, npt.NDArray[np.bool_]]:
        """The positions of these pairs, and which of them there are; there must be any pair."""
        wanted = src << _HALF | dst
        at = np.minimum(np.searchsorted(self._codes, wanted), len(self._codes) - 1)
        return self._order[at], self._codes[at] == wanted
