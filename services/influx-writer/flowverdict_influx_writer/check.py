"""The part of `--check` that tests InfluxDB."""

from influxdb_client.rest import ApiException

from flowverdict_influx_writer.database import client_of, post, reason_of, unreachable
from flowverdict_influx_writer.settings import InfluxWriterSettings

__all__ = ["check_database"]


def check_database(settings: InfluxWriterSettings) -> int:
    """Print whether InfluxDB would accept points; 0 if it would, else 1."""
    url, bucket = settings.influx_url, settings.influx_bucket
    with client_of(settings, settings.influx_token, 5000) as client:
        try:
            status = post(client, settings, "")
        except ApiException as error:
            print(f"broken   {reason_of(settings, error)}")
            return 1
        except Exception as error:  # noqa: BLE001 # the client cannot decode the response
            print(f"broken   {unreachable(settings, error)}; check FLOWVERDICT_INFLUX_URL")
            return 1
    if status != 204:
        print(f"broken   {url} returned {status} to a write: not InfluxDB 2")
        return 1
    print(f"ok       InfluxDB at {url}: the token allows writing to the bucket {bucket}")
    return 0
