"""The data sources, in the form that Grafana's API expects."""

import hashlib
from typing import Any

from flowverdict_provisioner.settings import ProvisionerSettings

__all__ = ["data_sources", "given_uids"]


def given_uids(settings: ProvisionerSettings) -> dict[str, str]:
    """The uid of each data source that exists and is left alone, by its type."""
    given = {
        "prometheus": settings.prometheus_uid,
        "alertmanager": settings.alertmanager_uid,
        "influxdb": settings.influx_uid,
    }
    return {kind: uid for kind, uid in given.items() if uid}


def data_sources(settings: ProvisionerSettings) -> list[dict[str, Any]]:
    """The configured data sources: Prometheus, plus Alertmanager and InfluxDB if they are set, but
    for those that exist already.

    Grafana never returns a secret, so a digest is stored next to it to detect whether the secret
    has changed.
    """
    sources = [
        _source(
            "prometheus",
            "Prometheus",
            settings.prometheus_url,
            {"httpMethod": "POST", "timeInterval": "15s", "prometheusType": "Prometheus"},
        )
    ]
    if settings.alertmanager_url:
        json_data = {"implementation": "prometheus", "handleGrafanaManagedAlerts": False}
        url = settings.alertmanager_url
        sources.append(_source("alertmanager", "Alertmanager", url, json_data))
    if settings.influx_token:
        digest = hashlib.sha256(settings.influx_token.encode()).hexdigest()[:16]
        json_data = {
            "version": "Flux",
            "organization": settings.influx_org,
            "defaultBucket": settings.influx_bucket,
            "flowverdictSecretDigest": digest,
        }
        influx = _source("influxdb", "InfluxDB", settings.influx_url, json_data)
        sources.append(influx | {"secureJsonData": {"token": settings.influx_token}})
    given = given_uids(settings)
    return [each for each in sources if each["type"] not in given]


def _source(kind: str, name: str, url: str, json_data: dict[str, Any]) -> dict[str, Any]:
    return {
        "uid": f"flowverdict-{kind}",
        "name": f"Flowverdict {name}",
        "type": kind,
        "access": "proxy",
        "url": url,
        "jsonData": json_data,
    }
