"""InfluxDB: creating its bucket, and writing with retries."""

import asyncio
import contextlib
import logging
import re
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass

from influxdb_client import BucketRetentionRules, InfluxDBClient, WriteService
from influxdb_client.rest import ApiException
from prometheus_client import Counter, Histogram
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from flowverdict_influx_writer.settings import InfluxWriterSettings
from flowverdict_runtime.context import Context
from flowverdict_runtime.logs import Throttle
from flowverdict_runtime.retry import Unavailable, retry

__all__ = ["Database", "Unwritten", "unreachable"]

log = logging.getLogger(__name__)

_MAX_BYTES = 4_000_000
_WRITTEN_STATUS = 204
_TIMEOUT_MS = 20_000
_HINTS = {
    401: "it does not accept the token; check FLOWVERDICT_INFLUX_TOKEN",
    403: "the token may not write to this bucket; check FLOWVERDICT_INFLUX_TOKEN",
    404: "no such organisation or bucket",
    429: "it is overloaded",
}

_WRITTEN = Counter("flowverdict_influx_points_total", "Points written.")
_REFUSED = Counter(
    "flowverdict_influx_points_refused_total", "Points permanently rejected by InfluxDB, by status."
    , ["status"],
)  # fmt: skip
_WRITING = Histogram("flowverdict_influx_write_seconds", "Time taken by a write.")
_throttle = Throttle()


class Unwritten(Unavailable):
    """InfluxDB did not accept the points now, but may later."""


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
        self._client = InfluxDBClient(
            settings.influx_url,
            settings.influx_token,
            org=settings.influx_org,
            timeout=_TIMEOUT_MS,
            retries=Retry(0, redirect=2),
        )
        self._api = WriteService(self._client.api_client)
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
            return await asyncio.to_thread(self._request, lines, points)

        status = await retry(self._context, "influxdb", write, give_up_seconds=5)
        if status is None:
            return False
        if not status:
            _WRITTEN.inc(points)
            return True
        if points == 1:
            self._refused(status, 1, lines)
            return True
        half = points // 2
        parts = lines.split("\n")
        first, second = "\n".join(parts[:half]), "\n".join(parts[half:])
        return await self._write(first, half) and await self._write(second, points - half)

    def _request(self, lines: str, points: int) -> int:
        """One write. Returns 0, or the HTTP status if the lines themselves are the problem.

        Raises:
            Unwritten: if the problem is elsewhere.
        """
        settings = self._settings
        try:
            with _WRITING.time():
                _, status, _ = self._api.post_write_with_http_info(
                    settings.influx_org,
                    settings.influx_bucket,
                    lines.encode(),
                    precision="ns",
                    content_type="text/plain; charset=utf-8",
                )
        except ApiException as error:
            if error.status in (400, 413):
                return int(error.status)
            if error.status == 422:
                # The other points of the request are written (docs.influxdata.com, API, 422).
                dropped = re.search(r"dropped=(\d+)", str(error.body))
                self._refused(422, int(dropped[1]) if dropped else points, str(error.body))
                return 0
            if error.status == 404:
                self._create_bucket()
            raise Unwritten(*_why(settings, error)) from None
        except Exception as error:  # noqa: BLE001 # the client cannot decode the response
            raise Unwritten(unreachable(settings, error)) from None
        if status != _WRITTEN_STATUS:
            raise Unwritten(f"{settings.influx_url} returned {status} to a write: not InfluxDB 2")
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

    async def ensure_bucket(self) -> bool:
        """Create the bucket if it does not exist; if that is forbidden, try to write anyway."""

        async def ensure() -> bool:
            await asyncio.to_thread(self._create_bucket)
            return True

        return bool(await retry(self._context, "influxdb", ensure))

    def _create_bucket(self) -> None:
        settings = self._settings
        buckets = self._client.buckets_api()
        try:
            if buckets.find_bucket_by_name(settings.influx_bucket) is not None:
                return
            seconds = int(settings.influx_retention_days * 86400)
            rules = BucketRetentionRules(type="expire", every_seconds=seconds)
            buckets.create_bucket(
                bucket_name=settings.influx_bucket, org=settings.influx_org, retention_rules=rules
            )
            log.info(
                "created bucket %s", settings.influx_bucket, extra={"retention_seconds": seconds}
            )
        except ApiException as error:
            if error.status in (429, *range(500, 600)):
                raise Unwritten(*_why(settings, error)) from None
            why, _ = _why(settings, error)
            _throttle.warn(log, "bucket", "cannot find or create the bucket: %s", why)
        except (HTTPError, OSError) as error:
            raise Unwritten(unreachable(settings, error)) from None
        except Exception as error:  # noqa: BLE001 # a response not from InfluxDB
            _throttle.warn(log, "bucket", "cannot find or create the bucket: %r", error)

    def close(self) -> None:
        """Close the connections."""
        with contextlib.suppress(HTTPError, OSError):
            self._client.close()


def unreachable(settings: InfluxWriterSettings, error: Exception) -> str:
    """Why InfluxDB cannot be reached, without the text urllib3 wraps around it."""
    reason = str(getattr(error, "reason", None) or error or type(error).__name__)
    return f"InfluxDB at {settings.influx_url} cannot be reached: {reason.rpartition(': ')[2]}"


def _why(settings: InfluxWriterSettings, error: ApiException) -> tuple[str, float]:
    """The reason in words, and how many seconds InfluxDB asks clients to wait."""
    headers: Mapping[str, str] = error.headers or {}
    after = headers.get("Retry-After", "")
    hint = _HINTS.get(error.status) or str(error.body)[:200]
    return (
        f"InfluxDB at {settings.influx_url} returned {error.status}: {hint}",
        min(float(after), 60.0) if after.isascii() and after.isdigit() else 0.0,
    )
