"""The influx-writer's settings."""

from dataclasses import dataclass

from flowverdict_runtime.service_settings import CommonSettings, listen_setting
from flowverdict_runtime.settings import Address, http_url, number, setting, text

__all__ = ["InfluxWriterSettings"]


@dataclass(frozen=True, slots=True)
class InfluxWriterSettings(CommonSettings):
    """What the influx-writer reads from its environment."""

    influx_url: str = setting(http_url, "http://127.0.0.1:8086", "the InfluxDB 2 server")
    influx_token: str = setting(
        text, None, "a token with write access to the bucket; to create it, also access to buckets"
    )
    influx_org: str = setting(text, "flowverdict", "the organisation that owns the bucket")
    influx_bucket: str = setting(text, "flowverdict", "the bucket; created if it does not exist")
    influx_retention_days: float = setting(
        number(0, 36500), "30", "how many days a bucket created here keeps its points; 0: forever"
    )
    listen: Address = listen_setting("influx-writer")
