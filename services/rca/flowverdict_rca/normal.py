"""What is normal, as kept over a restart."""

import zlib

import msgspec

from flowverdict_rca.engine.baseline import Baseline

__all__ = ["Normal"]


class Normal(msgspec.Struct, frozen=True, omit_defaults=True):
    """What is normal.

    Attributes:
        losses: as `learn` found it; None if that is not known yet.
        measured: for pairs of ends, in words, by what was measured: the highest value of a window,
            and the most that it varied.
    """

    losses: Baseline | None = None
    measured: dict[str, dict[str, tuple[int, int]]] = {}

    def encode(self, most_bytes: int) -> bytes:
        """Compressed, without some of the pairs if it would be too large."""
        normal = self
        while len(packed := zlib.compress(msgspec.json.encode(normal))) > most_bytes:
            half = list(normal.measured.items())[: len(normal.measured) // 2]
            normal = Normal(normal.losses and normal.losses.smaller(), dict(half))
        return packed

    @classmethod
    def decode(cls, packed: bytes) -> "Normal":
        """What `encode` returned; of another version or broken, nothing is known."""
        try:
            return msgspec.json.decode(zlib.decompress(packed), type=cls)
        except (msgspec.MsgspecError, zlib.error):
            return cls()
