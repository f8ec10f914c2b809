"""The part of `--check` that tests InfluxDB."""

from flowverdict_influx_writer.client import Unwritten, client_of, write
from flowverdict_influx_writer.settings import InfluxWriterSettings
from flowverdict_runtime.settings import redact
from flowverdict_runtime.terminal import printable

__all__ = ["check_database"]


def check_database(settings: InfluxWriterSettings) -> int:
    """Print whether InfluxDB would accept points; 0 if it would, else 1."""
    url, bucket = redact(settings.influx_url), settings.influx_bucket
    with client_of(settings, 5000) as client:
        try:
            write(client, settings, "")
        except Unwritten as error:
            print(printable(f"broken   {error}"))
            return 1
    print(f"ok       InfluxDB at {url}: the token allows writing to the bucket {bucket}")
    return 0
