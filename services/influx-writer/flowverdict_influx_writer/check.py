"""The part of `--check` that tests InfluxDB."""

from influxdb_client import InfluxDBClient
from influxdb_client.rest import ApiException
from urllib3 import Retry
from urllib3.exceptions import HTTPError

from flowverdict_influx_writer.database import unreachable
from flowverdict_influx_writer.settings import InfluxWriterSettings

__all__ = ["check_database"]


def check_database(settings: InfluxWriterSettings) -> int:
    """Print whether InfluxDB answers and has the bucket; 0 if it answers, else 1."""
    url, bucket = settings.influx_url, settings.influx_bucket
    client = InfluxDBClient(
        url, settings.influx_token, org=settings.influx_org, timeout=5000, retries=Retry(0)
    )
    with client:
        try:
            found = client.buckets_api().find_bucket_by_name(bucket)
        except ApiException as error:
            print(f"broken   InfluxDB at {url} returned {error.status} to a bucket query")
            return 1
        except (HTTPError, OSError, ValueError, TypeError) as error:
            print(f"broken   {unreachable(settings, error)}; check FLOWVERDICT_INFLUX_URL")
            return 1
    print(f"ok       InfluxDB at {url}: bucket {bucket} {'exists' if found else 'will be created'}")
    return 0
