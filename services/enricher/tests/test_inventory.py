"""Names from a file."""

import asyncio
import json
import os
from pathlib import Path

import pytest

from conftest import eventually
from flowverdict_contracts.addresses import to_bytes
from flowverdict_enricher import inventory
from flowverdict_enricher.directory import Directory
from flowverdict_runtime.context import CannotRun, Context


def write(path: Path, pods: dict[str, str]) -> None:
    """Names to addresses, put in place at once as a config map is."""
    content = {
        "pods": [{"namespace": "default", "name": n, "addresses": [a]} for n, a in pods.items()]
    }
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps(content))
    os.utime(fresh, ns=(0, path.stat().st_mtime_ns + 1 if path.exists() else 1))
    fresh.replace(path)


@pytest.mark.parametrize(
    "text",
    ["", "[]", '{"pods": [{"name": "x"}]}', '{"podz": []}',
     '{"pods": [{"namespace": "d", "name": "x", "addresses": ["10.0.0.256"]}]}'],
)  # fmt: skip
def test_a_wrong_file_is_refused_with_its_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "inventory.json"
    path.write_text(text)
    with pytest.raises(CannotRun, match=r"inventory\.json"):
        inventory.read(path)


def test_a_missing_file_is_refused_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(CannotRun, match=r"none\.json: No such file"):
        inventory.read(tmp_path / "none.json")


async def test_a_changed_file_is_read_again_and_a_wrong_one_leaves_the_last_good_names(
    tmp_path: Path,
) -> None:
    path, directory, context = tmp_path / "inventory.json", Directory(), Context()
    write(path, {"pod-a": "10.0.0.1"})
    task = asyncio.create_task(inventory.follow(path, directory, context))

    def name_of(address: str) -> str:
        late = 1 << 62
        return directory.at(to_bytes(address), late, late + 1).pod

    await eventually(lambda: name_of("10.0.0.1") == "pod-a")
    write(path, {"pod-a": "10.0.0.1", "pod-b": "10.0.0.2"})
    await eventually(lambda: name_of("10.0.0.2") == "pod-b")
    path.write_text("{")
    await eventually(lambda: "names" in context.health.reasons())
    assert name_of("10.0.0.2") == "pod-b"
    write(path, {"pod-c": "10.0.0.2"})
    await eventually(lambda: name_of("10.0.0.2") == "pod-c")
    await eventually(lambda: "names" not in context.health.reasons())
    context.stopping.set()
    await task
