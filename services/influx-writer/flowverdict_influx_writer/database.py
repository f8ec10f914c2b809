"""Lines of many messages in one request, repeated until InfluxDB has stored them."""

import asyncio
import contextlib
import logging
import re
from collections import deque
from dataclasses import dataclass

from prometheus_client import Counter, Histogram
from urllib3.exceptions import HTTPError

from flowverdict_influx_writer.client import Unwritten, client_of, write
from flowverdict_influx_writer.settings import InfluxWriterSettings
from flowverdict_runtime.context import Context
from flowverdict_runtime.logs import Throttle
from flowverdict_runtime.retry import retry

__all__ = ["Database"]

log = logging.getLogger(__name__)

_MAX_BYTES = 4_000_000
_TIMEOUT_MS = 20_000
_TOKEN_PATIENCE_SECONDS = 60

_WRITTEN = Counter("flowverdict_influx_points_total", "Points written.")
_REFUSED = Counter(
    "flowverdict_influx_points_refused_total", "Points permanently rejected by InfluxDB, by status."
    , ["status"],
)  # fmt: skip
_WRITING = Histogram("flowverdict_influx_write_seconds", "Time taken by a write.")
_throttle = Throttle()


@dataclass(slots=True)
class _Pending:
    lines: str
    points: int
    done: asyncio.Future[bool]


class Database:
    """Writes lines, from many messages in one request, one request at a time.

    Args:
        settings: where InfluxDB is, and how to write to it.
        context: signals when to stop, and is notified when InfluxDB is unavailable.
    """

    def __init__(self, settings: InfluxWriterSettings, context: Context) -> None:
        self._settings = settings
        self._context = context
        self._client = client_of(settings, _TIMEOUT_MS)
        self._token_refused_at: float | None = None
        for status in (400, 413, 422):
            _REFUSED.labels(str(status))  # start at 0, so that an increase is visible
        self._pending: deque[_Pending] = deque()
        self._writing: asyncio.Task[None] | None = None

    async def store(self, lines: str, points: int) -> bool:
        """True once InfluxDB has stored the lines, False if the service stops before that."""
        if not points:
            return True
        pending = _Pending(lines, points, asyncio.get_running_loop().create_future())
        self._pending.append(pending)
        if self._writing is None or self._writing.done():
            self._writing = asyncio.create_task(self._write_pending())
        return await pending.done

    async def _write_pending(self) -> None:
        while self._pending:
            taken = [self._pending.popleft()]
            size = len(taken[0].lines)
            while self._pending and size + len(self._pending[0].lines) <= _MAX_BYTES:
                taken.append(self._pending.popleft())
                size += len(taken[-1].lines)
            lines = "".join(each.lines for each in taken)
            try:
                stored = await self._write(lines, sum(each.points for each in taken))
            except Exception as error:  # noqa: BLE001 # raised in each handler
                for each in taken:
                    each.done.set_exception(error)
            else:
                for each in taken:
                    each.done.set_result(stored)

    async def _write(self, lines: str, points: int) -> bool:
        """Write with retries; split what is too large or has a rejected line into halves."""

        async def attempt() -> int:
            try:
                status = await asyncio.to_thread(self._request, lines, points)
            except Unwritten as error:
                if error.status in (401, 403):
                    self._stop_if_still_refused(error)
                raise
            self._token_refused_at = None
            return status

        status = await retry(self._context, "influxdb", attempt, give_up_seconds=5)
        if status is None:
            return False
        if not status:
            return True
        if points == 1:
            self._refused(status, 1, lines)
            return True
        half = points // 2
        parts = lines.split("\n")
        first, second = "\n".join(parts[:half]), "\n".join(parts[half:])
        return await self._write(first, half) and await self._write(second, points - half)

    def _stop_if_still_refused(self, error: Unwritten) -> None:
        """Stop the service if the token stays refused: the next start reads it again."""
        now = asyncio.get_running_loop().time()
        if self._token_refused_at is None:
            self._token_refused_at = now
        elif now - self._token_refused_at > _TOKEN_PATIENCE_SECONDS:
            self._context.fail(str(error))

    def _request(self, lines: str, points: int) -> int:
        """One write. Returns 0, or the HTTP status if the lines themselves are the problem.

        Raises:
            Unwritten: if the problem is elsewhere.
        """
        try:
            with _WRITING.time():
                write(self._client, self._settings, lines)
        except Unwritten as error:
            if error.status in (400, 413):
                return error.status
            if error.status != 422:
                raise
            # The other points of the request are written (docs.influxdata.com, API, 422).
            dropped = re.search(r"dropped=(\d+)", error.body)
            refused = int(dropped[1]) if dropped else points
            self._refused(422, refused, error.body)
            points -= refused
        _WRITTEN.inc(points)
        return 0

    def _refused(self, status: int, points: int, what: str) -> None:
        _REFUSED.labels(str(status)).inc(points)
        _throttle.warn(
            log,
            str(status),
            "InfluxDB permanently rejected points",
            status=status,
            points=points,
            what=what[:300],
        )

    def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(HTTPError, OSError):
            self._client.close()
