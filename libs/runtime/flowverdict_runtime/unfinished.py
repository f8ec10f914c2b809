"""Which message a service died of, for services that count deliveries by themselves.

A service that is killed for its memory says nothing, and reads the same message again when it is
started anew. After a few starts without progress it notes in NATS which message it is about to
handle; the one that it dies of again and again is left out.
"""

import msgspec
from nats.js.errors import KeyNotFoundError
from nats.js.kv import KeyValue

__all__ = ["KILLS", "Unfinished"]

KILLS = "this service was killed each time it handled the message"
"""Why such a message is left out."""
_KEY = "unfinished"
_STARTS_BEFORE_CAUTION = 3
_DEATHS = 3
"""Whoever restarts a service may hit any message once, but hardly the same one three times."""


class _Noted(msgspec.Struct, frozen=True):
    """What is kept.

    Attributes:
        position: where reading began.
        starts: how often, since something was finished.
        handling: number of the message that is being handled; 0 if that is not noted.
        deaths: number of a message to how often the service died while it was being handled.
    """

    position: int
    starts: int = 0
    handling: int = 0
    deaths: dict[int, int] = {}


class Unfinished:
    """Notes in a service's bucket which message is being handled, once it has been dying."""

    def __init__(self, bucket: KeyValue, noted: _Noted) -> None:
        self._bucket = bucket
        self._noted = noted

    @classmethod
    async def open(cls, bucket: KeyValue, position: int) -> "Unfinished":
        """Note that reading begins at `position`, once more or not.

        Raises:
            NatsError: if NATS does not answer.
        """
        noted = await _read(bucket)
        if noted.position != position:
            noted = _Noted(position)
        deaths = dict(noted.deaths)
        if noted.handling:
            deaths[noted.handling] = deaths.get(noted.handling, 0) + 1
        self = cls(bucket, noted)
        await self._note(_Noted(position, noted.starts + 1, 0, deaths))
        return self

    async def may_handle(self, sequence: int) -> bool:
        """Whether to handle the message with this number; False if the service died of it.

        Raises:
            NatsError: if NATS does not answer.
        """
        if self._noted.deaths.get(sequence, 0) >= _DEATHS:
            return False
        if self._noted.starts > _STARTS_BEFORE_CAUTION:
            await self._note(msgspec.structs.replace(self._noted, handling=sequence))
        return True

    async def handled(self) -> None:
        """The message that `may_handle` was asked about is handled, if not finished for good.

        Raises:
            NatsError: if NATS does not answer.
        """
        if self._noted.handling:
            await self._note(msgspec.structs.replace(self._noted, handling=0))

    async def progress(self, position: int) -> None:
        """Everything before `position` is finished for good.

        Raises:
            NatsError: if NATS does not answer.
        """
        if self._noted.starts > 1:
            deaths = {each: n for each, n in self._noted.deaths.items() if each >= position}
            await self._note(_Noted(position, 1, 0, deaths))

    async def _note(self, noted: _Noted) -> None:
        await self._bucket.put(_KEY, msgspec.json.encode(noted))
        self._noted = noted


async def _read(bucket: KeyValue) -> _Noted:
    try:
        return msgspec.json.decode((await bucket.get(_KEY)).value or b"", type=_Noted)
    except (KeyNotFoundError, msgspec.MsgspecError):
        return _Noted(0)
