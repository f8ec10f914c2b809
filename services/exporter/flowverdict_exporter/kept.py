"""What the exporter keeps in NATS: its sums, and up to which message they go."""

import logging
import zlib
from dataclasses import dataclass, field

import msgspec
from nats.errors import MaxPayloadError
from nats.js import JetStreamContext
from nats.js.errors import KeyNotFoundError, KeyWrongLastSequenceError, NoStreamResponseError
from nats.js.kv import KeyValue

from flowverdict_contracts.subjects import EXPORTER_STATE_BUCKET
from flowverdict_exporter.incidents import KeptIncident
from flowverdict_exporter.lookups import Asked, NameSums
from flowverdict_exporter.nodes import KeptNodes
from flowverdict_exporter.past_incidents import PastIncident
from flowverdict_exporter.sums import KeptSums
from flowverdict_runtime.context import CannotRun
from flowverdict_runtime.kept_state import state_bucket

__all__ = ["Kept", "KeptStore", "Position"]

log = logging.getLogger(__name__)

_INDEX = "index"
_LARGEST_PIECE, _SMALLEST_PIECE = 1 << 18, 1 << 12
_FASTEST = 1
_MOST_BYTES = 1 << 30


@dataclass(frozen=True, slots=True)
class Position:
    """How far a stream has been added up.

    Attributes:
        next_sequence: of the first message that is not.
        stream_created: which FLOWS_ENRICHED that is.
    """

    next_sequence: int
    stream_created: str


@dataclass(frozen=True, slots=True)
class Kept:
    """What has been added up until a position."""

    sums: KeptSums
    nodes: KeptNodes
    incidents: list[KeptIncident]
    next_verdict: int = 1
    lookups: list[tuple[Asked, NameSums]] = field(default_factory=list)
    past_incidents: list[PastIncident] = field(default_factory=list)

    def encode(self) -> bytes:
        """As bytes, compressed."""
        return zlib.compress(msgspec.msgpack.encode(self), _FASTEST)

    @classmethod
    def decode(cls, body: bytes) -> "Kept":
        """Read what `encode` wrote.

        Raises:
            ValueError: if it is not that.
        """
        try:
            unpacked = zlib.decompressobj().decompress(body, _MOST_BYTES)
            return msgspec.msgpack.decode(unpacked, type=cls)
        except (zlib.error, msgspec.MsgspecError) as error:
            raise ValueError(str(error)) from None


class _Index(msgspec.Struct, frozen=True):
    """Where the pieces are that belong together: under the keys `<slot>.0`, `<slot>.1` …"""

    position: Position
    slot: int
    pieces: int
    checksum: int
    owner: str


class KeptStore:
    """What one exporter keeps in the bucket `exporter_state`.

    It is cut into pieces that fit in messages, which go beside those kept before. Only then the
    index changes, so that whoever is killed meanwhile leaves what was kept before.

    Attributes:
        bucket: what it is kept in.
    """

    def __init__(
        self, jetstream: JetStreamContext, replicas: int, bucket: KeyValue, owner: str
    ) -> None:
        self.bucket = bucket
        self._jetstream = jetstream
        self._replicas = replicas
        self._owner = owner
        self._index: _Index | None = None
        self._revision = 0
        self._piece_bytes = _LARGEST_PIECE

    @classmethod
    async def open(cls, jetstream: JetStreamContext, replicas: int, owner: str) -> "KeptStore":
        """The store; created with `replicas` replicas if it does not exist.

        Args:
            jetstream: where it is.
            replicas: of a bucket that does not exist.
            owner: who will keep something, different for each exporter.

        Raises:
            NatsError: if NATS does not answer or refuses.
        """
        bucket = await state_bucket(jetstream, EXPORTER_STATE_BUCKET, replicas)
        store = cls(jetstream, replicas, bucket, owner)
        try:
            store._take(await bucket.get(_INDEX))
        except KeyNotFoundError as missing:
            store._revision = (missing.entry.revision if missing.entry else 0) or 0
        return store

    def _take(self, entry: KeyValue.Entry) -> None:
        self._revision = entry.revision or 0
        try:
            self._index = msgspec.json.decode(entry.value or b"", type=_Index)
        except msgspec.MsgspecError:
            self._index = None

    @property
    def is_anothers(self) -> bool:
        """Whether the last to keep something, or to claim this, was another exporter."""
        return self._index is not None and self._index.owner != self._owner

    async def load(self) -> tuple[Position, Kept | None] | None:
        """Where to go on, and from which totals, if not from zero; None if that is not known.

        Raises:
            NatsError: if NATS does not answer.
        """
        if self._index is None:
            return None
        if not self._index.pieces:
            return self._index.position, None
        names = [f"{self._index.slot}.{at}" for at in range(self._index.pieces)]
        try:
            pieces = [(await self.bucket.get(name)).value or b"" for name in names]
            body = b"".join(pieces)
            if zlib.crc32(body) != self._index.checksum:
                raise ValueError("they do not belong together")
            return self._index.position, Kept.decode(body)
        except (KeyNotFoundError, ValueError) as error:
            log.warning("cannot go on from the totals that were kept: %s", error)
            return None

    async def claim(self, position: Position | None) -> None:
        """Make any other exporter stop when it next keeps its totals.

        Args:
            position: where adding up begins, from zero; None if what is kept stays valid.

        Raises:
            CannotRun: if another exporter starts at the same time.
            NatsError: if NATS does not answer.
        """
        if position is not None:
            await self._set_index(_Index(position, 0, 0, 0, self._owner))
        elif self._index is not None:
            await self._set_index(msgspec.structs.replace(self._index, owner=self._owner))

    async def save(self, position: Position, body: bytes) -> None:
        """Keep what `Kept.encode` returned.

        Raises:
            CannotRun: if another exporter has kept something since; each would have half of it.
            NatsError: if NATS does not answer or refuses.
        """
        slot = 1 - self._index.slot if self._index else 0
        while True:
            pieces = [
                body[at : at + self._piece_bytes] for at in range(0, len(body), self._piece_bytes)
            ]
            try:
                for at, piece in enumerate(pieces):
                    await self.bucket.put(f"{slot}.{at}", piece)
                break
            except MaxPayloadError:
                if self._piece_bytes <= _SMALLEST_PIECE:
                    raise
                self._piece_bytes //= 2
            except NoStreamResponseError:
                # Somebody removed the bucket, or NATS restarted without its data.
                self.bucket = await state_bucket(
                    self._jetstream, EXPORTER_STATE_BUCKET, self._replicas
                )
                self._index, self._revision = None, 0
                raise
        index = _Index(position, slot, len(pieces), zlib.crc32(body), self._owner)
        await self._set_index(index)

    async def _set_index(self, index: _Index) -> None:
        encoded = msgspec.json.encode(index)
        try:
            self._revision = await self.bucket.update(_INDEX, encoded, last=self._revision)
        except KeyWrongLastSequenceError:
            self._take(await self.bucket.get(_INDEX))
            if self._index is None or self.is_anothers:
                raise CannotRun("another exporter is already running; stopping") from None
            # An earlier change was stored; only the response was lost.
            self._revision = await self.bucket.update(_INDEX, encoded, last=self._revision)
        self._index = index
