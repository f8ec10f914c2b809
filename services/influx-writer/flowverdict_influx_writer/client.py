"""Write requests to InfluxDB, and what its refusals mean."""

from collections.abc import Mapping

from influxdb_client import InfluxDBClient, WriteService
from influxdb_client.rest import ApiException
from urllib3 import Retry

from flowverdict_influx_writer.settings import InfluxWriterSettings
from flowverdict_runtime.retry import Unavailable
from flowverdict_runtime.settings import redact

__all__ = ["Unwritten", "client_of", "write"]

_HINTS = {
    401: "it does not accept the token; check FLOWVERDICT_INFLUX_TOKEN",
    403: "the token does not allow writing to the bucket; check FLOWVERDICT_INFLUX_TOKEN",
    404: "no such organisation or bucket; "
    "check FLOWVERDICT_INFLUX_ORG and FLOWVERDICT_INFLUX_BUCKET, or create the bucket",
    429: "it is overloaded",
}


class Unwritten(Unavailable):
    """InfluxDB did not accept the lines; the message says why.

    Attributes:
        status: of its response; 0 if there was none.
        body: of its response.
    """

    def __init__(
        self, why: str, status: int = 0, body: str = "", after_seconds: float = 0.0
    ) -> None:
        super().__init__(why, after_seconds)
        self.status, self.body = status, body


def client_of(settings: InfluxWriterSettings, timeout_ms: int) -> InfluxDBClient:
    """A client that does not retry by itself."""
    return InfluxDBClient(
        settings.influx_url,
        settings.influx_token,
        org=settings.influx_org,
        timeout=timeout_ms,
        retries=Retry(0, redirect=2),
    )


def write(client: InfluxDBClient, settings: InfluxWriterSettings, lines: str) -> None:
    """Write lines of the line protocol.

    Without any lines, it only finds out whether the token allows writing: InfluxDB looks at
    organisation, bucket and token first (influxdb/http/write_handler.go).

    Raises:
        Unwritten: unless InfluxDB has stored them all.
    """
    url = redact(settings.influx_url)
    try:
        _, status, _ = WriteService(client.api_client).post_write_with_http_info(
            settings.influx_org,
            settings.influx_bucket,
            lines.encode(),
            precision="ns",
            content_type="text/plain; charset=utf-8",
        )
    except ApiException as error:
        body = str(error.body)
        why = f"InfluxDB at {url} returned {error.status}: {_HINTS.get(error.status, body[-200:])}"
        raise Unwritten(why, int(error.status or 0), body, _after_seconds(error)) from None
    except Exception as error:  # noqa: BLE001 # the client cannot decode the response
        # Without the text that urllib3 wraps around the reason.
        reason = str(getattr(error, "reason", None) or error or type(error).__name__)
        why = f"InfluxDB at {url} cannot be reached: {reason.rpartition(': ')[2]}"
        raise Unwritten(f"{why}; check FLOWVERDICT_INFLUX_URL") from None
    if status != 204:
        raise Unwritten(f"{url} returned {status} to a write: not InfluxDB 2", int(status))


def _after_seconds(error: ApiException) -> float:
    """How many seconds InfluxDB asks clients to wait."""
    headers: Mapping[str, str] = error.headers or {}
    after = headers.get("Retry-After", "")
    return min(float(after), 60.0) if after.isascii() and after.isdigit() else 0.0
