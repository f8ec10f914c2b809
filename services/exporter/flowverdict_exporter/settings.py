"""The exporter's settings."""

from dataclasses import dataclass

from flowverdict_runtime.service_settings import CommonSettings, listen_setting
from flowverdict_runtime.settings import Address, choice, integer, number, setting

__all__ = ["ExporterSettings"]


@dataclass(frozen=True, slots=True)
class ExporterSettings(CommonSettings):
    """What the exporter reads from its environment."""

    series_budget: int = setting(
        integer(1, 10_000_000), "6000", "series per metric; pairs beyond it are summed as other"
    )
    expire_seconds: float = setting(
        number(60, 1e7), "3600", "a pair without a flow for this long is dropped"
    )
    pair_histograms: str = setting(
        choice("off", "on"),
        "off",
        "on: how RTT and jitter are distributed, for each pair (22 series more) beside each sender",
    )
    listen: Address = listen_setting("exporter")
