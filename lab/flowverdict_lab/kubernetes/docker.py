"""Builds this project's images with a Docker engine, and takes them from it."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path

from flowverdict_lab.kubernetes.build import cache
from flowverdict_lab.kubernetes.processes import (
    ProcessError,
    alive,
    end,
    remember,
    spawn,
    wait_until,
)

__all__ = ["build_images", "engine", "images_of_this_version", "save"]

_ROOT = Path(__file__).parents[3]
_BASE = "debian:bookworm-slim"
_KEPT_BUILD_CACHE = "4GB"


@contextlib.contextmanager
def engine() -> Iterator[None]:
    """A Docker engine: the one that answers, else one of our own, which touches no firewall.

    Raises:
        ProcessError: if none answers and none can be started.
    """
    if _responds():
        yield
        return
    folder = cache() / "docker"
    if os.geteuid() != 0 or shutil.which("dockerd") is None:
        raise ProcessError(
            "no Docker engine responds, and dockerd (docker.io) is missing or needs root"
        )
    folder.mkdir(parents=True, exist_ok=True)
    if not alive(folder / "process"):
        # dockerd does not start while the id in this file belongs to anything, be it a thread.
        (folder / "pid").unlink(missing_ok=True)
    address = f"unix://{folder}/docker.sock"
    os.environ["DOCKER_HOST"] = address
    pid = spawn(
        [
            "dockerd", f"--host={address}", f"--data-root={folder}/data",
            f"--exec-root={folder}/run", f"--pidfile={folder}/pid", "--bridge=none",
            "--iptables=false", "--ip6tables=false", "--ip-forward=false", "--ip-masq=false",
        ],
        folder / "log",
    )  # fmt: skip
    remember(pid, folder / "process")
    try:
        wait_until(_responds, 60, f"dockerd to answer; its log is {folder}/log")
        yield
        # What earlier builds left would grow without end.
        _docker("image", "prune", "--force")
        _docker("builder", "prune", "--force", "--keep-storage", _KEPT_BUILD_CACHE)
    finally:
        os.environ.pop("DOCKER_HOST")
        with contextlib.suppress(ProcessError):
            end(folder / "process", seconds=30)


def build_images(services: Sequence[str]) -> None:
    """Run script/images for these services.

    Raises:
        ProcessError: if it fails.
    """
    _have_base_image()
    done = subprocess.run(
        [f"{_ROOT}/script/images", *services, "--", "--network", "host"],
        stdout=sys.stderr,
        check=False,
    )
    if done.returncode != 0:
        raise ProcessError("script/images failed")


def _have_base_image() -> None:
    """The base image: there, or pulled, or, without a registry, made of Debian's packages."""
    for argv in (["image", "inspect", _BASE], ["pull", "--quiet", _BASE]):
        with contextlib.suppress(ProcessError):
            _docker(*argv)
            return
    if shutil.which("debootstrap") is None:
        raise ProcessError(f"{_BASE} cannot be pulled, and debootstrap is missing")
    system = cache() / "docker" / "bookworm"
    shutil.rmtree(system, ignore_errors=True)
    made = subprocess.run(
        ["debootstrap", "--variant=minbase", "bookworm", str(system)],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if made.returncode != 0:
        raise ProcessError(f"debootstrap: {made.stdout[-500:]}")
    with subprocess.Popen(["tar", "-C", str(system), "-c", "."], stdout=subprocess.PIPE) as tar:
        subprocess.run(
            ["docker", "import", "-", _BASE], stdin=tar.stdout, capture_output=True, check=True
        )
    shutil.rmtree(system)


def images_of_this_version(services: Sequence[str] = ()) -> list[str]:
    """The images that script/images has built of this version, all or those of some services.

    Raises:
        ProcessError: if there are none, or no Docker engine responds.
    """
    tag = version("flowverdict-lab")
    listed = _docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}").split()
    found = [each for each in listed if "flowverdict/" in each and each.endswith(f":{tag}")]
    if services:
        found = [each for each in found if each.rpartition("/")[2].split(":")[0] in services]
    if not found:
        raise ProcessError(f"the Docker engine has no Flowverdict images {tag}: run script/images")
    return found


def save(images: Sequence[str], to: Path) -> None:
    """Write images to an archive.

    Raises:
        ProcessError: if the engine does not have one of them.
    """
    _docker("save", "-o", str(to), *images)


def _responds() -> bool:
    with contextlib.suppress(ProcessError):
        _docker("info", "--format", "{{.ServerVersion}}")
        return True
    return False


def _docker(*argv: str) -> str:
    try:
        done = subprocess.run(["docker", *argv], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ProcessError("docker is missing: it builds the images") from None
    if done.returncode != 0:
        raise ProcessError(f"docker {argv[0]}: {done.stderr.strip()}")
    return done.stdout
