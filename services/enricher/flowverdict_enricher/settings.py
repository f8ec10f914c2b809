"""The enricher's settings."""

from dataclasses import dataclass

from flowverdict_enricher.labels import label_keys
from flowverdict_runtime.service_settings import CommonSettings, listen_setting
from flowverdict_runtime.settings import Address, choice, docker_url, optional_text, setting

__all__ = ["EnricherSettings"]


@dataclass(frozen=True, slots=True)
class EnricherSettings(CommonSettings):
    """What the enricher reads from its environment."""

    names: str = setting(
        choice("kubernetes", "docker", "inventory"),
        "kubernetes",
        "where names come from: a cluster's API, a Docker engine, or FLOWVERDICT_INVENTORY",
    )
    inventory: str = setting(optional_text, "", "inventory file (JSON)")
    kubeconfig: str = setting(
        optional_text, "", "kubeconfig file; if not set, the pod's own service account"
    )
    docker_url: str = setting(docker_url, "unix:///var/run/docker.sock", "the Docker engine's API")
    labels: tuple[str, ...] = setting(
        label_keys,
        "",
        "pod labels by which flows are told apart, such as team,app.kubernetes.io/version",
    )
    listen: Address = listen_setting("enricher")
