"""The doctor's settings: the addresses of what it checks."""

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


services = Parser("NAME=http://HOST:PORT, several separated by commas", _parse_services)

_LOCAL = ",".join(
    f"{name}=http://127.0.0.1:{PORTS[name]}"
    for name in ("collector", "enricher", "exporter", "rca")
)


@dataclass(frozen=True, slots=True)
class DoctorSettings(NatsSettings):
    """What the doctor reads from its environment; what has no address is tried locally."""

    services: tuple[tuple[str, str], ...] = setting(
        services, _LOCAL, "services whose readiness is checked"
    )
    prometheus_url: str = setting(
        optional_http_url, "", "Prometheus; if empty, port 9090 on this host is tried"
    )
    influx_url: str = setting(
        optional_http_url, "", "InfluxDB 2; if empty, port 8086 on this host is tried"
    )
    influx_token: str = setting(optional_text, "", "a token that can read the bucket")
    influx_org: str = setting(text, "flowverdict", "the bucket's organisation")
    influx_bucket: str = setting(text, "flowverdict", "the influx-writer's bucket")
    grafana_url: str = setting(
        optional_http_url, "", "Grafana; if empty, port 3000 on this host is tried"
    )
    kubeconfig: str = setting(
        optional_text,
        "",
        "kubeconfig file; if empty, the pod's service account, or KUBECONFIG, or ~/.kube/config",
    )
