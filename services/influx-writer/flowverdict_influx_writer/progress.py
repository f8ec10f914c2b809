"""How far the flows are written, kept in NATS, so that a restart writes nothing twice."""

import uuid
import zlib

import msgspec
from nats.js import JetStreamContext
from nats.js.kv import KeyValue

from flowverdict_contracts.subjects import INFLUX_WRITER_STATE_BUCKET
from flowverdict_runtime.context import CannotRun
from flowverdict_runtime.kept_state import KeptEntry

__all__ = ["Planned", "Progress", "ProgressStore"]

_KEY = "flows"
_MOST_COLLECTORS = 5_000
_MOST_BYTES = 1 << 24


class Planned(msgspec.Struct, frozen=True):
    """What holds once a write has succeeded.

    Attributes:
        resume_from, seen_until: as in `Progress`.
        closing: by collector, the start of the last slot that is written then, in Unix seconds.
    """

    resume_from: int
    seen_until: int
    closing: dict[str, int]


class Progress(msgspec.Struct, frozen=True):
    """How far FLOWS_ENRICHED is written.

    A message up to `seen_until` whose slot is written is in that slot's points. One that comes
    after its slot is written has points of its own.

    Attributes:
        stream_created: which FLOWS_ENRICHED this is about.
        resume_from: number of the first message that is not written.
        seen_until: number of the last message that was read.
        written: by collector, the start of the last slot that is written, in Unix seconds.
            Those written last come last.
        next: the write that is under way; None if none is. Whoever goes on from here writes exactly
            that first: the same points once more.
        lost: how many messages before `resume_from` NATS deleted before they were written, ever.
    """

    stream_created: str
    resume_from: int = 1
    seen_until: int = 0
    written: dict[str, int] = {}
    next: Planned | None = None
    lost: int = 0

    def after(self, planned: Planned) -> "Progress":
        """What holds once that is written, without collectors that were written before the last
        5,000.
        """
        others = [each for each in self.written.items() if each[0] not in planned.closing]
        written = dict([*others, *planned.closing.items()][-_MOST_COLLECTORS:])
        return msgspec.structs.replace(
            self,
            resume_from=planned.resume_from,
            seen_until=planned.seen_until,
            written=written,
            next=None,
        )


class _Kept(msgspec.Struct, frozen=True):
    """What is kept: the progress, and which influx-writer made it."""

    progress: Progress
    owner: str


class ProgressStore:
    """One progress in the bucket `influx_writer_state`, kept by one influx-writer."""

    def __init__(self, jetstream: JetStreamContext, replicas: int) -> None:
        self._entry = KeptEntry(
            jetstream, INFLUX_WRITER_STATE_BUCKET, _KEY, replicas, "influx-writer"
        )
        self._owner = uuid.uuid4().hex
        self._has_claimed = False

    @property
    def bucket(self) -> KeyValue:
        """Where it is kept, once it has been loaded."""
        return self._entry.bucket

    async def load(self) -> Progress | None:
        """What was kept last; None if nothing was, or by another version.

        Raises:
            CannotRun: if another influx-writer has taken over from this one.
            NatsError: if NATS does not answer or refuses.
        """
        value = await self._entry.read()
        if value is None:
            return None
        try:
            unpacked = zlib.decompressobj().decompress(value, _MOST_BYTES)
            kept = msgspec.json.decode(unpacked, type=_Kept)
        except (zlib.error, msgspec.MsgspecError):
            return None
        if self._has_claimed and kept.owner != self._owner:
            raise CannotRun("another influx-writer is already running; stopping")
        return kept.progress

    async def save(self, progress: Progress) -> None:
        """Keep it; any other influx-writer stops when it next keeps its own.

        Raises:
            CannotRun: if another influx-writer has kept its own since.
            NatsError: if NATS does not answer or refuses.
        """
        await self._entry.keep(zlib.compress(msgspec.json.encode(_Kept(progress, self._owner))))
        self._has_claimed = True
