"""The images' Dockerfile and what is sent to the engine that builds them."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCKERFILE = (ROOT / "deploy/docker/Dockerfile").read_text()
SENT = re.findall(r"^!(\S+)$", (ROOT / ".dockerignore").read_text(), re.MULTILINE)
SERVICES = sorted(each.name for each in (ROOT / "services").iterdir() if each.is_dir())


def sources() -> set[str]:
    """What the Dockerfile takes from the checkout."""
    found = set(re.findall(r"type=bind,source=(\S+?),", DOCKERFILE))
    for line in re.findall(r"^COPY (?!--from)(.*)$", DOCKERFILE, re.MULTILINE):
        found |= {word for word in line.split()[:-1] if not word.startswith("--")}
    return found


@pytest.mark.parametrize("service", SERVICES)
def test_what_is_copied_exists_and_is_sent_to_the_engine(service: str) -> None:
    for source in sources():
        path = source.replace("${SERVICE}", service)
        assert (ROOT / path).exists(), path
        assert any(path == each or path.startswith(f"{each}/") for each in SENT), path


def test_nothing_is_sent_to_the_engine_that_is_not_copied() -> None:
    assert (ROOT / ".dockerignore").read_text().startswith("*\n")
    for each in SENT:
        assert any(source == each or source.startswith(f"{each}/") for source in sources()), each
