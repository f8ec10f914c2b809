"""Which RCA worker judges: the one that holds the lease, a key of the bucket `rca_state`.

Others stand by. The holder renews it every two seconds, and gives it up when it stops. One that
was killed has its lease taken over after ten seconds, or at once if that can be seen from here.
"""

import asyncio
import contextlib
import logging
import os
import platform
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
from nats.js import JetStreamContext
from nats.js.errors import (
    KeyNotFoundError,
    KeyWrongLastSequenceError,
    NoStreamResponseError,
)
from nats.js.kv import KeyValue
from prometheus_client import Gauge

from flowverdict_contracts.subjects import RCA_STATE_BUCKET
from flowverdict_runtime.context import Context
from flowverdict_runtime.kept_state import state_bucket
from flowverdict_runtime.retry import TRANSIENT_ERRORS

__all__ = ["lease"]

log = logging.getLogger(__name__)

_KEY = "worker"
_PART = "lease"
_RENEW_SECONDS = 2.0
_EXPIRES_SECONDS = 10.0
_ASK_SECONDS = 1.0

_JUDGING = Gauge("flowverdict_rca_judging", "1 if this worker judges, 0 if it stands by.")


class _Worker(msgspec.Struct, frozen=True):
    """A process.

    Attributes:
        host: its host's name, which is the pod's in a pod.
        boot_id: of the kernel it runs on.
        pid: its number there.
    """

    host: str
    boot_id: str
    pid: int

    @classmethod
    def this(cls) -> "_Worker":
        """This process."""
        boot_id = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        return cls(platform.node(), boot_id, os.getpid())

    @property
    def has_ended(self) -> bool:
        """Whether it is known to have ended: it ran here, and another process has its number now,
        or none. False if it may run.
        """
        this = _Worker.this()
        if (self.host, self.boot_id) != (this.host, this.boot_id):
            return False
        return self.pid == this.pid or not Path(f"/proc/{self.pid}").exists()


@contextlib.asynccontextmanager
async def lease(jetstream: JetStreamContext, context: Context) -> AsyncIterator[bool]:
    """Hold the lease inside, after standing by for as long as another worker has it.

    False if the service is to stop before. It is also to stop if the lease is lost, as it is after
    ten seconds in which this process does not run.
    """
    _JUDGING.set(0)
    taken = await _take(jetstream, context)
    if taken is None:
        yield False
        return
    _JUDGING.set(1)
    held = _Held(jetstream, context, *taken)
    renewing = asyncio.create_task(held.renew())
    try:
        yield True
    finally:
        renewing.cancel()
        await held.give_up()


async def _take(jetstream: JetStreamContext, context: Context) -> tuple[KeyValue, int] | None:
    """The bucket, and the revision of the lease in it; None if the service is to stop."""
    loop = asyncio.get_running_loop()
    seen, since, known = -1, loop.time(), None
    us = msgspec.json.encode(_Worker.this())
    while not context.stopping.is_set():
        try:
            bucket = await state_bucket(
                jetstream, RCA_STATE_BUCKET, context.streams.stream_replicas
            )
            revision, holder = await _held_by(bucket)
            if revision != seen:
                seen, since = revision, loop.time()
            expired = loop.time() - since >= _EXPIRES_SECONDS
            if expired or holder is None or holder.has_ended:
                take = (
                    bucket.update(_KEY, us, last=revision) if revision else bucket.create(_KEY, us)
                )
                taken = await take
                context.health.ready(_PART)
                return bucket, taken
            if holder != known:
                log.info("standing by: the RCA worker on %s judges", holder.host)
                known = holder
            context.health.ready(_PART)
        except KeyWrongLastSequenceError:
            seen = -1  # another worker was faster
        except TRANSIENT_ERRORS as error:
            seen = -1  # the holder cannot renew it, either
            context.health.waiting(_PART, f"NATS: {error or type(error).__name__}")
        await context.pause(_ASK_SECONDS)
    return None


async def _held_by(bucket: KeyValue) -> tuple[int, _Worker | None]:
    """The lease's revision, 0 if there is none, and who has it, None if nobody can be told."""
    try:
        entry = await bucket.get(_KEY)
    except KeyNotFoundError:
        return 0, None
    try:
        return entry.revision or 0, msgspec.json.decode(entry.value or b"", type=_Worker)
    except msgspec.MsgspecError:
        return entry.revision or 0, None


class _Held:
    """A lease that this process has."""

    def __init__(
        self, jetstream: JetStreamContext, context: Context, bucket: KeyValue, revision: int
    ) -> None:
        self._jetstream = jetstream
        self._context = context
        self._bucket = bucket
        self._revision = revision
        self._us = msgspec.json.encode(_Worker.this())

    async def renew(self) -> None:
        """Renew it until it is lost."""
        while True:
            await asyncio.sleep(_RENEW_SECONDS)
            try:
                self._revision = await self._bucket.update(_KEY, self._us, last=self._revision)
            except KeyWrongLastSequenceError:
                await self._look()
            except NoStreamResponseError:
                await self._begin_anew()
            except TRANSIENT_ERRORS:
                pass  # without NATS, nobody else can take it, either

    async def _look(self) -> None:
        """Whose it is now: ours, if only the response to a renewal was lost."""
        with contextlib.suppress(*TRANSIENT_ERRORS):
            entry = await self._bucket.get(_KEY)
            if entry.value == self._us:
                self._revision = entry.revision or 0
            else:
                self._context.fail("another RCA worker has taken over")

    async def _begin_anew(self) -> None:
        """NATS restarted without its data."""
        with contextlib.suppress(*TRANSIENT_ERRORS):
            replicas = self._context.streams.stream_replicas
            self._bucket = await state_bucket(self._jetstream, RCA_STATE_BUCKET, replicas)
            self._revision = await self._bucket.create(_KEY, self._us)

    async def give_up(self) -> None:
        """Let another have it, unless one has it already."""
        with contextlib.suppress(*TRANSIENT_ERRORS):
            await self._bucket.delete(_KEY, last=self._revision)
