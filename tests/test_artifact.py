"""The manifests as an OCI artifact: what Flux and Argo CD unpack renders as the manifests do."""

import hashlib
import json
import os
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[1]
OVERLAYS = sorted(path.name for path in (ROOT / "deploy/k8s/overlays").iterdir())


def written(folder: Path, root: Path = ROOT) -> str:
    """What it says: the tag and digest."""
    argv = [str(root / "script/artifact"), str(folder), "--tag", "0.1.0"]
    return subprocess.run(argv, capture_output=True, text=True, check=True).stdout


def blob(folder: Path, descriptor: dict[str, Any]) -> bytes:
    data: bytes = (folder / "blobs/sha256" / descriptor["digest"][len("sha256:") :]).read_bytes()
    assert len(data) == descriptor["size"]
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" == descriptor["digest"]
    return data


def manifest_of(folder: Path) -> dict[str, Any]:
    assert json.loads((folder / "oci-layout").read_text()) == {"imageLayoutVersion": "1.0.0"}
    (described,) = json.loads((folder / "index.json").read_text())["manifests"]
    assert described["annotations"] == {"org.opencontainers.image.ref.name": "0.1.0"}
    found: dict[str, Any] = json.loads(blob(folder, described))
    return found


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What is in the only layer."""
    folder = tmp_path_factory.mktemp("artifact")
    written(folder / "layout")
    (layer,) = manifest_of(folder / "layout")["layers"]
    assert layer["mediaType"] == "application/vnd.oci.image.layer.v1.tar+gzip"
    (folder / "layer.tar.gz").write_bytes(blob(folder / "layout", layer))
    with tarfile.open(folder / "layer.tar.gz", "r:gz") as archive:
        archive.extractall(folder / "unpacked", filter="data")
    return folder / "unpacked"


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is missing, and it renders")
@pytest.mark.parametrize("path", ["", *(f"overlays/{name}" for name in OVERLAYS)])
def test_it_renders_as_the_manifests_do(unpacked: Path, path: str) -> None:
    def rendered(root: Path) -> str:
        argv = ["kubectl", "kustomize", str(root / "deploy/k8s" / path)]
        return subprocess.run(argv, capture_output=True, text=True, check=True).stdout

    assert rendered(unpacked) == rendered(ROOT)


def copied(to: Path) -> Path:
    for name in ("deploy", "script"):
        shutil.copytree(ROOT / name, to / name, ignore=shutil.ignore_patterns("__pycache__"))
    return to


def test_the_same_manifests_have_the_same_digest_wherever_and_whenever(tmp_path: Path) -> None:
    copy = copied(tmp_path / "copy")
    for file in (copy / "deploy").rglob("*.yaml"):
        os.utime(file, (1, 1))
        file.chmod(0o600)
    first, second = written(tmp_path / "first"), written(tmp_path / "second", copy)
    assert first.split()[-1] == second.split()[-1]
    assert first.split()[-1].startswith("sha256:")


def test_only_what_is_committed_is_packed(tmp_path: Path) -> None:
    copy = copied(tmp_path / "copy")
    for argv in (["init", "-q"], ["add", "."]):
        subprocess.run(["git", "-C", str(copy), *argv], check=True)
    before = written(tmp_path / "before", copy)
    (copy / "deploy/k8s/base/password.env").write_text("secret")
    (copy / "deploy/k8s/base/hostname").symlink_to("/etc/hostname")
    assert written(tmp_path / "after", copy).split()[-1] == before.split()[-1]


def test_a_second_run_over_the_first_gives_the_same(tmp_path: Path) -> None:
    first = written(tmp_path / "layout")
    assert written(tmp_path / "layout") == first
    assert manifest_of(tmp_path / "layout")["layers"]


def test_what_is_no_artifact_is_left_alone(tmp_path: Path) -> None:
    argv = [str(ROOT / "script/artifact"), str(tmp_path)]
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "is not an artifact" in done.stderr
    assert list(tmp_path.iterdir()) == []
