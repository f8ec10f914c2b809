"""What is normal, as kept over a restart."""

import zlib

import msgspec

from flowverdict_rca.engine.baseline import Baseline

__all__ = ["Normal"]


class Normal(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is normal.

    Attributes:
        losses: as `learn` found it; None if that is not known yet.
        rtt_us: for pairs of ends, in words, the longest mean round trip of a window, and
            the most that they varied.
        answers_us: likewise, of how long the second one takes to answer the first; 0 for how much
            that varied.
        zero_windows: likewise, how often the second one had no room, per 1,000 segments.
    """

    losses: Baseline | None = None
    rtt_us: dict[str, tuple[int, int]] = {}
    answers_us: dict[str, tuple[int, int]] = {}
    zero_windows: dict[str, tuple[int, int]] = {}

    def encode(self, most_bytes: int) -> bytes:
        """Compressed, without some of the pairs if it would be too large."""
        normal = self
        while len(packed := zlib.compress(msgspec.json.encode(normal))) > most_bytes:
            known = normal.rtt_us, normal.answers_us, normal.zero_windows
            normal = Normal(normal.losses and normal.losses.smaller(), *map(_half, known))
        return packed

    @classmethod
    def decode(cls, packed: bytes) -> "Normal":
        """What `encode` returned; of another version or broken, nothing is known."""
        try:
            return msgspec.json.decode(zlib.decompress(packed), type=cls)
        except (msgspec.MsgspecError, zlib.error):
            return cls()


def _half(known: dict[str, tuple[int, int]]) -> dict[str, tuple[int, int]]:
    return dict(list(known.items())[: len(known) // 2])
