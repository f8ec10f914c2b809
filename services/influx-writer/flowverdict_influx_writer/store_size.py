"""How much InfluxDB has stored, so that an alert comes before its volume is full."""

import asyncio
import math

import urllib3
from prometheus_client import Gauge
from prometheus_client.parser import text_string_to_metric_families

from flowverdict_influx_writer.settings import InfluxWriterSettings
from flowverdict_runtime.context import Context

__all__ = ["watch_store"]

_STORED = Gauge(
    "flowverdict_influx_stored_bytes", "What InfluxDB's data takes; NaN if it does not say."
)
_VOLUME = Gauge(
    "flowverdict_influx_volume_bytes",
    "The size of InfluxDB's volume, as FLOWVERDICT_INFLUX_VOLUME_BYTES says; 0 if unknown.",
)
_SHARDS = "storage_shard_disk_size"
"""Of each shard with its write-ahead log, as InfluxDB 2 measures it (storage/engine.go)."""
_EVERY_SECONDS = 60
_TIMEOUT_SECONDS = 10


async def watch_store(settings: InfluxWriterSettings, context: Context) -> None:
    """Ask InfluxDB every minute until the service stops."""
    _VOLUME.set(settings.influx_volume_bytes)
    while not context.stopping.is_set():
        _STORED.set(await asyncio.to_thread(_stored_bytes, settings.influx_url))
        await context.pause(_EVERY_SECONDS)


def _stored_bytes(url: str) -> float:
    """What InfluxDB's page of metrics says, for which it needs no token."""
    try:
        answer = urllib3.request("GET", f"{url}/metrics", timeout=_TIMEOUT_SECONDS, retries=False)
        page = answer.data.decode()
        shards = [
            sample.value
            for family in text_string_to_metric_families(page)
            if family.name == _SHARDS
            for sample in family.samples
        ]
    except (urllib3.exceptions.HTTPError, OSError, ValueError):
        return math.nan
    return sum(shards) if answer.status == 200 and shards else math.nan
