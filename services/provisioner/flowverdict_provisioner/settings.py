"""The provisioner's settings."""

from dataclasses import dataclass

from flowverdict_runtime.settings import (
    http_url,
    number,
    optional_http_url,
    optional_text,
    setting,
    text,
)

__all__ = ["ProvisionerSettings"]


@dataclass(frozen=True, slots=True)
class ProvisionerSettings:
    """What the provisioner reads from its environment."""

    grafana_url: str = setting(http_url, "http://127.0.0.1:3000", "Grafana's address")
    grafana_user: str = setting(text, "admin", "the user to log in as, if no token is given")
    grafana_password: str = setting(optional_text, "", "that user's password")
    grafana_token: str = setting(
        optional_text, "", "a service account token, instead of user and password"
    )
    grafana_wait_seconds: float = setting(
        number(0, 86400), "300", "how long to wait for Grafana to answer"
    )
    prometheus_url: str = setting(
        http_url, "http://127.0.0.1:9090", "Prometheus, as Grafana reaches it"
    )
    prometheus_uid: str = setting(
        optional_text, "", "uid of a Prometheus data source that exists: it is used as it is"
    )
    alertmanager_uid: str = setting(
        optional_text, "", "the same for Alertmanager; Grafana's own alert rules start paused"
    )
    influx_uid: str = setting(optional_text, "", "the same for InfluxDB")
    alertmanager_url: str = setting(
        optional_http_url,
        "",
        "Alertmanager, as Grafana reaches it; with one, Grafana's own alert rules start paused",
    )
    influx_url: str = setting(
        http_url, "http://127.0.0.1:8086", "InfluxDB 2, as Grafana reaches it"
    )
    influx_token: str = setting(
        optional_text, "", "a token that can read the bucket; without it, InfluxDB is left out"
    )
    influx_org: str = setting(text, "flowverdict", "the bucket's organisation")
    influx_bucket: str = setting(text, "flowverdict", "the influx-writer's bucket")
