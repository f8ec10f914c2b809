"""The influx-writer's settings."""

from dataclasses import dataclass

from flowverdict_runtime.service_settings import CommonSettings, listen_setting
from flowverdict_runtime.settings import Address, http_url, integer, setting, text

__all__ = ["InfluxWriterSettings"]


@dataclass(frozen=True, slots=True)
class InfluxWriterSettings(CommonSettings):
    """What the influx-writer reads from its environment."""

    influx_url: str = setting(http_url, "http://127.0.0.1:8086", "the InfluxDB 2 server")
    influx_token: str = setting(text, None, "a token that can write to the bucket")
    influx_org: str = setting(text, "flowverdict", "the organisation that owns the bucket")
    influx_bucket: str = setting(text, "flowverdict", "the bucket")
    influx_volume_bytes: int = setting(
        integer(0, 1 << 60), "0", "size of InfluxDB's volume, to warn before it is full; 0: unknown"
    )
    listen: Address = listen_setting("influx-writer")
