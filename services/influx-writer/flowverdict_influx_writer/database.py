"""InfluxDB: writing with retries."""

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from influxdb_client import InfluxDBClient, WriteService
from influxdb_client.rest import ApiException
from prometheus_client import Counter, Histogram
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from flowverdict_influx_writer.settings import InfluxWriterSettings
from flowverdict_runtime.context import Context
from flowverdict_runtime.logs import Throttle
from flowverdict_runtime.retry import Unavailable, retry

__all__ = ["Database", "TokenRefused", "Unwritten", "client_of", "post", "reason_of", "unreachable"]

log = logging.getLogger(__name__)

_MAX_BYTES = 4_000_000
_WRITTEN_STATUS = 204
_TIMEOUT_MS = 20_000
_HINTS = {
    401: "it does not accept the token; check FLOWVERDICT_INFLUX_TOKEN",
    403: "the token does not allow writing to the bucket; check FLOWVERDICT_INFLUX_TOKEN",
    404: "no such organisation or bucket; "
    "check FLOWVERDICT_INFLUX_ORG and FLOWVERDICT_INFLUX_BUCKET, or create the bucket",
    429: "it is overloaded",
}
_TOKEN_PATIENCE_SECONDS = 60

_WRITTEN = Counter("flowverdict_influx_points_total", "Points written.")
_REFUSED = Counter(
    "flowverdict_influx_points_refused_total", "Points permanently rejected by InfluxDB, by status."
    , ["status"],
)  # fmt: skip
_WRITING = Histogram("flowverdict_influx_write_seconds", "Time taken by a write.")
_throttle = Throttle()


class Unwritten(Unavailable):
    """InfluxDB did not accept the points now, but may later."""


class TokenRefused(Unwritten):
    """InfluxDB does not accept the token."""


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
        self._client = client_of(settings, settings.influx_token, _TIMEOUT_MS)
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

        async def write() -> int:
            try:
                status = await asyncio.to_thread(self._request, lines, points)
            except TokenRefused as error:
                self._stop_if_still_refused(error)
                raise
            self._token_refused_at = None
            return status

        status = await retry(self._context, "influxdb", write, give_up_seconds=5)
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

    def _stop_if_still_refused(self, error: TokenRefused) -> None:
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
        settings = self._settings
        try:
            with _WRITING.time():
                status = post(self._client, settings, lines)
        except ApiException as error:
            if error.status in (400, 413):
                return int(error.status)
            if error.status == 422:
                # The other points of the request are written (docs.influxdata.com, API, 422).
                dropped = re.search(r"dropped=(\d+)", str(error.body))
                refused = int(dropped[1]) if dropped else points
                self._refused(422, refused, str(error.body))
                _WRITTEN.inc(points - refused)
                return 0
            if error.status in (401, 403):
                raise TokenRefused(reason_of(settings, error)) from None
            raise Unwritten(*_why(settings, error)) from None
        except Exception as error:  # noqa: BLE001 # the client cannot decode the response
            raise Unwritten(unreachable(settings, error)) from None
        if status != _WRITTEN_STATUS:
            raise Unwritten(f"{settings.influx_url} returned {status} to a write: not InfluxDB 2")
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


def client_of(settings: InfluxWriterSettings, token: str, timeout_ms: int) -> InfluxDBClient:
    """A client that does not retry by itself."""
    return InfluxDBClient(
        settings.influx_url,
        token,
        org=settings.influx_org,
        timeout=timeout_ms,
        retries=Retry(0, redirect=2),
    )


def post(client: InfluxDBClient, settings: InfluxWriterSettings, lines: str) -> int:
    """Write lines of the line protocol; returns the HTTP status.

    Without any lines, it only finds out whether the token allows writing: InfluxDB looks at
    organisation, bucket and token first (influxdb/http/write_handler.go).

    Raises:
        ApiException: if InfluxDB refuses.
    """
    _, status, _ = WriteService(client.api_client).post_write_with_http_info(
        settings.influx_org,
        settings.influx_bucket,
        lines.encode(),
        precision="ns",
        content_type="text/plain; charset=utf-8",
    )
    return int(status)


def unreachable(settings: InfluxWriterSettings, error: Exception) -> str:
    """Why InfluxDB cannot be reached, without the text urllib3 wraps around it."""
    reason = str(getattr(error, "reason", None) or error or type(error).__name__)
    return f"InfluxDB at {settings.influx_url} cannot be reached: {reason.rpartition(': ')[2]}"


def reason_of(settings: InfluxWriterSettings, error: ApiException) -> str:
    """What InfluxDB's refusal means, and what to do about it."""
    hint = _HINTS.get(error.status) or str(error.body)[-200:]
    return f"InfluxDB at {settings.influx_url} returned {error.status}: {hint}"


def _why(settings: InfluxWriterSettings, error: ApiException) -> tuple[str, float]:
    """The reason, and how many seconds InfluxDB asks clients to wait."""
    headers: Mapping[str, str] = error.headers or {}
    after = headers.get("Retry-After", "")
    seconds = min(float(after), 60.0) if after.isascii() and after.isdigit() else 0.0
    return reason_of(settings, error), seconds
