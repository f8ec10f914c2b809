"""What the RCA worker saves in NATS, so that a restart loses nothing."""

import msgspec
from nats.js import JetStreamContext
from nats.js.errors import (
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NoStreamResponseError,
)
from nats.js.kv import KeyValue

from flowverdict_contracts.subjects import FAIL_RATIO_KEY, RCA_STATE_BUCKET
from flowverdict_rca.incident import Incident
from flowverdict_rca.normal import Normal
from flowverdict_runtime.context import CannotRun
from flowverdict_runtime.kept_state import state_bucket
from flowverdict_runtime.unfinished import Unfinished

__all__ = ["State", "StateStore"]

_KEY = "state"
_NORMAL_KEY = "normal"
_MOST_NORMAL_BYTES = 1 << 18


class State(msgspec.Struct, frozen=True):
    """How far judging has got.

    Attributes:
        resume_from: first sequence of FLOWS_ENRICHED that must be read again.
        seen_until: last sequence that was read.
        too_late: sequences from `resume_from` on whose rows arrived too late to be judged.
        watermark_ns: end of the last window judged, UTC nanoseconds.
        incidents: those open or about to be.
        stream_created: which FLOWS_ENRICHED the sequences belong to.
        heard: for each node, the end of its last interval.
        gaps: for each node, start and end of its last interval that was longer than a pane.
    """

    resume_from: int
    seen_until: int
    too_late: tuple[int, ...]
    watermark_ns: int
    incidents: tuple[Incident, ...]
    stream_created: str
    heard: dict[str, int] = {}
    gaps: dict[str, tuple[int, int]] = {}


class StateStore:
    """One state in the bucket `rca_state`, written by one worker."""

    def __init__(
        self, jetstream: JetStreamContext, replicas: int, bucket: KeyValue, revision: int
    ) -> None:
        self._jetstream = jetstream
        self._replicas = replicas
        self._bucket = bucket
        self._revision = revision

    @property
    def revision(self) -> int:
        """Changes whenever a state is saved."""
        return self._revision

    @classmethod
    async def open(
        cls, jetstream: JetStreamContext, replicas: int = 1
    ) -> tuple["StateStore", State | None]:
        """The store and its state; created with `replicas` replicas if it does not exist."""
        bucket = await state_bucket(jetstream, RCA_STATE_BUCKET, replicas)
        try:
            entry = await bucket.get(_KEY)
        except KeyNotFoundError as missing:
            revision = missing.entry.revision if missing.entry else 0
            return cls(jetstream, replicas, bucket, revision or 0), None
        try:
            state = msgspec.json.decode(entry.value or b"", type=State)
        except msgspec.MsgspecError:
            # Written by another version: start over rather than not at all.
            state = None
        return cls(jetstream, replicas, bucket, entry.revision or 0), state

    async def unfinished(self, position: int) -> Unfinished:
        """Which message this worker died of before, reading from `position`."""
        return await Unfinished.open(self._bucket, position)

    async def announce(self, fail_ratio: float) -> None:
        """Publish the threshold in force, for tools that show ratios."""
        await self._bucket.put(FAIL_RATIO_KEY, f"{fail_ratio:g}".encode())

    async def normal(self) -> Normal:
        """What was saved as normal."""
        try:
            return Normal.decode((await self._bucket.get(_NORMAL_KEY)).value or b"")
        except KeyNotFoundError:
            return Normal()

    async def save_normal(self, normal: Normal) -> None:
        """Save what is normal, as much of it as fits in a message."""
        await self._bucket.put(_NORMAL_KEY, normal.encode(_MOST_NORMAL_BYTES))

    async def save(self, state: State) -> None:
        """Save `state`.

        Raises:
            CannotRun: if another worker has written since; two would judge everything twice.
        """
        encoded = msgspec.json.encode(state)
        try:
            self._revision = await self._bucket.update(_KEY, encoded, last=self._revision)
        except KeyWrongLastSequenceError:
            entry = await self._bucket.get(_KEY)
            if entry.value != encoded:
                raise CannotRun("another RCA worker is already running; stopping") from None
            # It was stored; only the response was lost.
            self._revision = entry.revision or 0
        except NoStreamResponseError:
            # NATS restarted without its data.
            self._bucket = await state_bucket(self._jetstream, RCA_STATE_BUCKET, self._replicas)
            self._revision = 0
            raise
