"""The servers that Flowverdict runs beside, in the versions that its manifests name.

NATS, Prometheus, Alertmanager, InfluxDB and oauth2-proxy are built from their Go modules, for the
tests and for a cluster on this machine. The versions are those of the images in deploy/k8s. `python
-m flowverdict_lab.servers` builds those that are missing.
"""

import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from flowverdict_lab.kubernetes.build import (
    BuildError,
    Program,
    build_programs,
    cache,
    go_install,
)
from flowverdict_lab.kubernetes.images import Image, write_archive
from flowverdict_lab.kubernetes.machine import missing_for_flux, missing_to_build

__all__ = ["Server", "build_servers", "server_images", "server_program", "servers"]

_KUBERNETES = Path(__file__).parents[2] / "deploy/k8s"
_WITH_IMAGES = (
    "base", "components/influxdb", "components/monitoring", "overlays/single-sign-on",
)  # fmt: skip
_FLUX_PKG_CONFIG = "github.com/influxdata/pkg-config@v0.2.14"
_FLUX_TOOLS = cache() / "source" / "flux-tools"
_NATS, _INFLUXDB = "docker.io/library/nats", "docker.io/library/influxdb"
_PROMETHEUS, _ALERTMANAGER = "docker.io/prom/prometheus", "docker.io/prom/alertmanager"
_OAUTH2_PROXY_MODULE = "github.com/oauth2-proxy/oauth2-proxy/v7"
_OAUTH2_PROXY = "quay.io/oauth2-proxy/oauth2-proxy"

_IMAGE = re.compile(r"\{name: ([\w./-]+), newTag: ([\w.-]+)\}")


@dataclass(frozen=True, slots=True)
class Server:
    """A server: its image's name and tag, the user that it runs as, and its programs."""

    image: str
    tag: str
    user: int
    programs: tuple[Program, ...]

    @property
    def folder(self) -> Path:
        """Where its programs are once they have been built."""
        return cache() / "servers" / f"{self.image.rpartition('/')[2]}-{self.tag}"


def servers() -> list[Server]:
    """The servers, from the manifests."""
    texts = [(_KUBERNETES / each / "kustomization.yaml").read_text() for each in _WITH_IMAGES]
    tags = {found[1]: found[2] for text in texts for found in _IMAGE.finditer(text)}
    nats, prometheus = tags[_NATS], tags[_PROMETHEUS]
    alertmanager, influxdb = tags[_ALERTMANAGER], tags[_INFLUXDB]
    nats_server = f"github.com/nats-io/nats-server/v2@v{_number(nats)}"
    # Prometheus 3.5.0 is the module's v0.305.0, for a module's version 3 would be named so.
    major, minor, patch = _number(prometheus).split(".")
    prometheus_module = f"github.com/prometheus/prometheus@v0.{major}{int(minor):02}.{patch}"
    alertmanager_module = f"github.com/prometheus/alertmanager@v{_number(alertmanager)}"
    return [
        Server(_NATS, nats, 1000, (Program("nats-server", nats_server, "."),)),
        Server(_PROMETHEUS, prometheus, 65534, tuple(
            Program(name, prometheus_module, f"./cmd/{name}") for name in ("prometheus", "promtool")
        )),
        Server(_ALERTMANAGER, alertmanager, 65534, tuple(
            Program(name, alertmanager_module, f"./cmd/{name}")
            for name in ("alertmanager", "amtool")
        )),
        Server(_OAUTH2_PROXY, tags[_OAUTH2_PROXY], 65532, (
            Program("oauth2-proxy", f"{_OAUTH2_PROXY_MODULE}@{tags[_OAUTH2_PROXY]}", "."),
        )),
        Server(_INFLUXDB, influxdb, 1000, (_influxd(_number(influxdb)),)),
    ]  # fmt: skip


def build_servers(tell: Callable[[str], None]) -> None:
    """Build those that are missing.

    Raises:
        BuildError: if one cannot be built.
    """
    for server in servers():
        if server.image == _INFLUXDB and not (server.folder / "influxd").exists():
            _make_flux_tools()
        build_programs(server.programs, server.folder, tell)


def server_program(name: str) -> Path:
    """Where the program `name`, such as promtool, is once it has been built."""
    return next(
        server.folder / name
        for server in servers()
        if name in [program.path for program in server.programs]
    )


def server_images() -> Path:
    """An archive with the servers' images, under the names that deploy/k8s has."""
    archive = cache() / "servers" / "images.tar"
    images = [
        Image(
            f"{server.image}:{server.tag}",
            tuple(server.folder / program.path for program in server.programs),
            server.user,
        )
        for server in servers()
    ]
    write_archive(images, archive)
    return archive


def _number(tag: str) -> str:
    """2.11.8-alpine is version 2.11.8, and so is v2.11.8."""
    return tag.removeprefix("v").partition("-")[0]


def _influxd(version: str) -> Program:
    """InfluxDB, whose query language Flux is a library in Rust."""
    return Program(
        "influxd",
        f"github.com/influxdata/influxdb/v2@v{version}",
        "./cmd/influxd",
        f"-X main.version=v{version} -extldflags=-static",
        tags="sqlite_foreign_keys,sqlite_json,osusergo,netgo",
        cgo=True,
        environ=(
            ("RUSTC_WRAPPER", str(_FLUX_TOOLS / "rustc")),
            ("RUSTUP_TOOLCHAIN", "stable"),
            ("PKG_CONFIG", str(_FLUX_TOOLS / "pkg-config")),
        ),
    )


def _make_flux_tools() -> None:
    """What Flux is built with: a pkg-config that builds it, and a lenient Rust compiler.

    Flux pins a toolchain and takes its lints for errors; the toolchain that is installed has more
    of them. RUSTFLAGS would not reach the build's own programs, a wrapper does.
    """
    _FLUX_TOOLS.mkdir(parents=True, exist_ok=True)
    wrapper = _FLUX_TOOLS / "rustc"
    wrapper.write_text('#!/bin/sh\nrustc=$1\nshift\nexec "$rustc" "$@" --cap-lints warn\n')
    wrapper.chmod(0o755)
    go_install(_FLUX_PKG_CONFIG, _FLUX_TOOLS)


def main() -> int:
    """Build what is missing; returns the exit status."""
    built = [
        server
        for server in servers()
        if all((server.folder / each.path).exists() for each in server.programs)
    ]
    if len(built) == len(servers()):
        return 0
    missing = missing_to_build() or missing_for_flux()
    if missing:
        print(f"servers: not built, for {missing}", file=sys.stderr)
        return 1
    try:
        build_servers(lambda name: print(f"servers: building {name}, once", file=sys.stderr))
    except BuildError as error:
        print(f"servers: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
