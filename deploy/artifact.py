"""`script/artifact`: the manifests as one OCI artifact, for Flux and Argo CD.

Writes an OCI image layout (github.com/opencontainers/image-spec, image-layout.md) whose only layer
is a tar archive of the manifests, compressed with gzip: Flux's OCIRepository extracts the first
layer, and Argo CD from 3.1 on the only one of this media type. The same files, the same digest.
"""

import argparse
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

_DEPLOY = Path(__file__).parent
_FOLDERS = ("alertmanager", "k8s", "nats", "prometheus")
_LAYER = "application/vnd.oci.image.layer.v1.tar+gzip"
_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
_EMPTY = "application/vnd.oci.empty.v1+json"
_ARTIFACT = "application/vnd.flowverdict.manifests.v1"


def _files() -> list[Path]:
    """The manifests: what Git has of them, or all of them where this is no checkout."""
    argv = ["git", "-C", str(_DEPLOY), "ls-files", "-z", *_FOLDERS]
    listed = subprocess.run(argv, capture_output=True, text=True, check=False)
    if listed.returncode == 0 and listed.stdout:
        found = [_DEPLOY / name for name in listed.stdout.split("\0")[:-1]]
    else:
        found = [each for name in _FOLDERS for each in (_DEPLOY / name).rglob("*")]
    return sorted(
        each
        for each in found
        if each.is_file() and not each.is_symlink() and "__pycache__" not in each.parts
    )


def _archive() -> bytes:
    """The manifests, with no trace of who packed them and when."""
    to = io.BytesIO()
    with tarfile.open(fileobj=to, mode="w", format=tarfile.USTAR_FORMAT) as archive:
        for file in _files():
            data = file.read_bytes()
            info = tarfile.TarInfo(str(file.relative_to(_DEPLOY.parent)))
            info.size, info.mode = len(data), 0o644
            archive.addfile(info, io.BytesIO(data))
    return gzip.compress(to.getvalue(), mtime=0)


class _Layout:
    """A folder in the layout. One that is there already gets what is added beside what it has."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        (folder / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        (folder / "oci-layout").write_text('{"imageLayoutVersion": "1.0.0"}')

    def add(self, media_type: str, data: bytes) -> dict[str, Any]:
        """Its descriptor."""
        digest = hashlib.sha256(data).hexdigest()
        (self._folder / "blobs/sha256" / digest).write_bytes(data)
        return {"mediaType": media_type, "digest": f"sha256:{digest}", "size": len(data)}

    def finish(self, manifest: Mapping[str, Any], tag: str) -> str:
        """Its digest."""
        described = self.add(_MANIFEST, json.dumps(manifest).encode())
        digest = str(described["digest"])
        described["annotations"] = {"org.opencontainers.image.ref.name": tag}
        index = {"schemaVersion": 2, "manifests": [described]}
        (self._folder / "index.json").write_text(json.dumps(index))
        return digest


def main() -> int:
    """Write the artifact that the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="script/artifact",
        description="Write the manifests as an OCI image layout, for Flux and Argo CD.",
        epilog="To push it: crane push DIR REGISTRY/flowverdict/manifests:TAG.",
    )
    parser.add_argument(
        "folder", type=Path, metavar="DIR", help="where to: a new folder, or an earlier artifact"
    )
    parser.add_argument("--tag", default="latest", help="default: latest")
    arguments = parser.parse_args()
    folder: Path = arguments.folder
    if folder.exists() and not (folder / "oci-layout").is_file():
        print(f"script/artifact: {folder} is there and is not an artifact", file=sys.stderr)
        return 1
    layout = _Layout(folder)
    manifest = {
        "schemaVersion": 2,
        "mediaType": _MANIFEST,
        "artifactType": _ARTIFACT,
        "config": layout.add(_EMPTY, b"{}"),
        "layers": [layout.add(_LAYER, _archive())],
    }
    digest = layout.finish(manifest, arguments.tag)
    print(f"{folder}: {arguments.tag}, {digest}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
