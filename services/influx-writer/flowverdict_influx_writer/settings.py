"""The influx-writer's settings."""

from dataclasses import dataclass

from flowverdict_runtime.service_settings import CommonSettings, listen_setting
from flowverdict_runtime.settings import Address, http_url, number, setting, text

__all__ = ["InfluxWriterSettings"]


@dataclass(frozen=True, slots=True)
class InfluxWriterSettings(CommonSettings):
    """What the influx-writer reads from its environment."""

    influx_url: str = setting(http_url, "http://127.0.0.1:8086", "where InfluxDB 2 is")
    influx_token: str = setting(
        text, None, "a token that may write to the bucket, and make it if it is not there"
    )
    influx_org: str = setting(text, "flowverdict", "the organisation that the bucket is in")
    influx_bucket: str = setting(text, "flowverdict", "the bucket; made if it is not there")
    influx_retention_days: float = setting(
        number(0, 36500), "30", "how long a bucket made here keeps its points; 0 for ever"
    )
    listen: Address = listen_setting("influx-writer")
