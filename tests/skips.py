"""What tests need that may be missing."""

import pytest

from tests.real_influxdb import INFLUXD

__all__ = ["needs_influxdb"]

needs_influxdb = pytest.mark.skipif(
    not INFLUXD.exists(), reason="InfluxDB has not been built, which needs Go and Rust"
)
