"""The doctor's settings: where everything is."""

from dataclasses import dataclass

from flowverdict_runtime.ports import PORTS
from flowverdict_runtime.service_settings import NatsSettings
from flowverdict_runtime.settings import Parser, optional_http_url, optional_text, setting, text

__all__ = ["DoctorSettings"]


def _parse_services(value: str) -> tuple[tuple[str, str], ...]:
    pairs = []
    for each in value.split(","):
        name, equals, url = each.strip().partition("=")
        if not name or not equals:
            raise ValueError
        pairs.append((name, optional_http_url.parse(url)))
    return tuple(pairs)


services = Parser("NAME=http://HOST:PORT, several with commas between", _parse_services)

_LOCAL = ",".join(
    f"{name}=http://127.0.0.1:{PORTS[name]}"
    for name in ("collector", "enricher", "exporter", "rca")
)


@dataclass(frozen=True, slots=True)
class DoctorSettings(NatsSettings):
    """What the doctor reads from its environment; a part without an address is looked for here."""

    services: tuple[tuple[str, str], ...] = setting(
        services, _LOCAL, "services that are asked whether they are ready"
    )
    prometheus_url: str = setting(
        optional_http_url, "", "Prometheus; without it, looked for on this host's port 9090"
    )
    influx_url: str = setting(
        optional_http_url, "", "InfluxDB 2; without it, looked for on this host's port 8086"
    )
    influx_token: str = setting(optional_text, "", "a token that may read the bucket")
    influx_bucket: str = setting(text, "flowverdict", "the bucket of the influx-writer")
    grafana_url: str = setting(
        optional_http_url, "", "Grafana; without it, looked for on this host's port 3000"
    )
    kubeconfig: str = setting(
        optional_text, "", "kubeconfig file; without it the pod's own service account"
    )
