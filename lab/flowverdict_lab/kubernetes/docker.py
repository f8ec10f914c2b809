"""Takes images from a Docker engine."""

import subprocess
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from flowverdict_lab.kubernetes.processes import ProcessError

__all__ = ["images_of_this_version", "save"]


def images_of_this_version() -> list[str]:
    """The images that script/images has built of this version.

    Raises:
        ProcessError: if there are none, or no Docker engine responds.
    """
    listed = _docker("image", "ls", "--format", "{{.Repository}}:{{.Tag}}")
    tag = version("flowverdict-lab")
    found = [each for each in listed.split() if "flowverdict/" in each and each.endswith(f":{tag}")]
    if not found:
        raise ProcessError(f"the Docker engine has no Flowverdict images {tag}: run script/images")
    return found


def save(images: Sequence[str], to: Path) -> None:
    """Write images to an archive.

    Raises:
        ProcessError: if the engine does not have one of them.
    """
    _docker("save", "-o", str(to), *images)


def _docker(*argv: str) -> str:
    try:
        done = subprocess.run(["docker", *argv], capture_output=True, text=True, check=False)
    except FileNotFoundError:
        raise ProcessError("docker is missing: it builds the images") from None
    if done.returncode != 0:
        raise ProcessError(f"docker {argv[0]}: {done.stderr.strip()}")
    return done.stdout
