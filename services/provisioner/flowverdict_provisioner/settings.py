"""The provisioner's settings."""

from dataclasses import dataclass

from flowverdict_runtime.settings import (
    Parser,
    http_url,
    number,
    optional_http_url,
    optional_text,
    setting,
    text,
)

__all__ = ["PodLink", "ProvisionerSettings"]


@dataclass(frozen=True, slots=True)
class PodLink:
    """A link on the dashboard of a pod, such as to its logs; `url` may have its variables."""

    title: str
    url: str


def _parse_pod_links(value: str) -> tuple[PodLink, ...]:
    links = []
    for each in value.split():
        title, _, url = each.partition("=")
        http_url.parse(url)
        if not title:
            raise ValueError
        links.append(PodLink(title, url))
    return tuple(links)


_pod_links = Parser("TITLE=URL, several separated by spaces", _parse_pod_links)


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
    pod_links: tuple[PodLink, ...] = setting(
        _pod_links,
        "",
        "links on the pod's dashboard, to its logs or traces; ${namespace} and ${pod} stand for it",
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
