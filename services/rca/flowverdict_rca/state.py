"""What the RCA worker saves in NATS, so that a restart loses nothing."""

import msgspec
from nats.js import JetStreamContext
from nats.js.errors import KeyNotFoundError

from flowverdict_contracts.subjects import FAIL_RATIO_KEY, RCA_STATE_BUCKET
from flowverdict_flows.continuity import KnownRun
from flowverdict_rca.incident import Incident
from flowverdict_rca.normal import Normal
from flowverdict_runtime.kept_state import KeptEntry
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
        incidents: those open, about to be, or just over.
        stream_created: which FLOWS_ENRICHED the sequences belong to.
        heard: for each node, the end of its last interval.
        gaps: for each node, start and end of its last interval that was longer than a pane.
        runs: what has come of each collector's run.
    """

    resume_from: int
    seen_until: int
    too_late: tuple[int, ...]
    watermark_ns: int
    incidents: tuple[Incident, ...]
    stream_created: str
    heard: dict[str, int] = {}
    gaps: dict[str, tuple[int, int]] = {}
    runs: tuple[KnownRun, ...] = ()


class StateStore:
    """One state in the bucket `rca_state`, written by one worker."""

    def __init__(self, entry: KeptEntry) -> None:
        self._entry = entry

    @property
    def revision(self) -> int:
        """Changes whenever a state is saved."""
        return self._entry.revision

    @classmethod
    async def open(
        cls, jetstream: JetStreamContext, replicas: int = 1
    ) -> tuple["StateStore", State | None]:
        """The store and its state; created with `replicas` replicas if it does not exist."""
        entry = KeptEntry(jetstream, RCA_STATE_BUCKET, _KEY, replicas, "RCA worker")
        value = await entry.read()
        if value is None:
            return cls(entry), None
        try:
            return cls(entry), msgspec.json.decode(value, type=State)
        except msgspec.MsgspecError:
            # Written by another version: start over rather than not at all.
            return cls(entry), None

    async def unfinished(self, position: int) -> Unfinished:
        """Which message this worker died of before, reading from `position`."""
        return await Unfinished.open(self._entry.bucket, position)

    async def announce(self, fail_ratio: float) -> None:
        """Publish the threshold in force, for tools that show ratios."""
        await self._entry.bucket.put(FAIL_RATIO_KEY, f"{fail_ratio:g}".encode())

    async def normal(self) -> Normal:
        """What was saved as normal."""
        try:
            return Normal.decode((await self._entry.bucket.get(_NORMAL_KEY)).value or b"")
        except KeyNotFoundError:
            return Normal()

    async def save_normal(self, normal: Normal) -> None:
        """Save what is normal, as much of it as fits in a message."""
        await self._entry.bucket.put(_NORMAL_KEY, normal.encode(_MOST_NORMAL_BYTES))

    async def save(self, state: State) -> None:
        """Save `state`.

        Raises:
            CannotRun: if another worker has written since; two would judge everything twice.
        """
        await self._entry.keep(msgspec.json.encode(state))
