"""Which verdicts have been written, kept in NATS."""

import msgspec
from nats.js import JetStreamContext
from nats.js.errors import KeyNotFoundError, NoStreamResponseError, NotFoundError
from nats.js.kv import KeyValue

from flowverdict_contracts.subjects import INFLUX_WRITER_STATE_BUCKET, RCA_VERDICTS
from flowverdict_runtime.kept_state import state_bucket

__all__ = ["WrittenVerdicts"]

_KEY = "verdicts"


class _Position(msgspec.Struct, frozen=True):
    """What is kept.

    Attributes:
        next_sequence: number of the first message of RCA_VERDICTS that is not written.
        stream_created: which RCA_VERDICTS that is.
    """

    next_sequence: int
    stream_created: str


class WrittenVerdicts:
    """How far RCA_VERDICTS has been written. A verdict that is written twice is one point."""

    def __init__(self, jetstream: JetStreamContext, replicas: int) -> None:
        self._jetstream = jetstream
        self._replicas = replicas
        self._bucket: KeyValue | None = None
        self._created = ""

    async def next_sequence(self) -> int:
        """Number of the first message that has not been written.

        Raises:
            NatsError: if JetStream does not answer.
        """
        self._bucket = await state_bucket(
            self._jetstream, INFLUX_WRITER_STATE_BUCKET, self._replicas
        )
        try:
            self._created = str((await self._jetstream.stream_info(RCA_VERDICTS)).created)
            kept = (await self._bucket.get(_KEY)).value or b""
            position = msgspec.json.decode(kept, type=_Position)
        except (NotFoundError, KeyNotFoundError, msgspec.MsgspecError):
            return 1
        return position.next_sequence if position.stream_created == self._created else 1

    async def written(self, sequence: int) -> None:
        """The message with this number has been written.

        Raises:
            NatsError: if JetStream does not answer.
        """
        assert self._bucket is not None, "next_sequence comes first"
        if not self._created:  # there was no such stream when reading began
            self._created = str((await self._jetstream.stream_info(RCA_VERDICTS)).created)
        position = msgspec.json.encode(_Position(sequence + 1, self._created))
        try:
            await self._bucket.put(_KEY, position)
        except NoStreamResponseError:
            # NATS restarted without its data.
            self._bucket = await state_bucket(
                self._jetstream, INFLUX_WRITER_STATE_BUCKET, self._replicas
            )
            raise
