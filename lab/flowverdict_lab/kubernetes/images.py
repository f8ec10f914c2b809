"""Images of single programs, written without a Docker engine."""

import hashlib
import io
import json
import tarfile
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Image", "write_archive"]


@dataclass(frozen=True, slots=True)
class Image:
    """An image that holds statically linked programs in /usr/bin and nothing else.

    Attributes:
        name: with its tag.
        files: the programs; the first is the entry point.
        user: the user that it runs as.
    """

    name: str
    files: tuple[Path, ...]
    user: int


def write_archive(images: list[Image], to: Path) -> None:
    """Write the images as `docker save` does (Docker image specification 1.2)."""
    manifest = []
    partial = to.with_name(f".{to.name}.partial")
    with tarfile.open(partial, "w") as archive:
        for image in images:
            layer = _layer(image)
            config = _config(image, layer)
            digest = hashlib.sha256(config).hexdigest()
            _add(archive, f"{digest}.json", config, 0o644)
            _add(archive, f"{digest}/layer.tar", layer, 0o644)
            manifest.append({
                "Config": f"{digest}.json",
                "RepoTags": [image.name],
                "Layers": [f"{digest}/layer.tar"],
            })  # fmt: skip
        _add(archive, "manifest.json", json.dumps(manifest).encode(), 0o644)
    partial.rename(to)


def _layer(image: Image) -> bytes:
    to = io.BytesIO()
    with tarfile.open(fileobj=to, mode="w") as layer:
        for folder in ("usr", "usr/bin", "tmp"):
            info = tarfile.TarInfo(folder)
            info.type, info.mode = tarfile.DIRTYPE, 0o1777 if folder == "tmp" else 0o755
            layer.addfile(info)
        for file in image.files:
            _add(layer, f"usr/bin/{file.name}", file.read_bytes(), 0o755)
    return to.getvalue()


def _config(image: Image, layer: bytes) -> bytes:
    return json.dumps({
        "architecture": "amd64",
        "os": "linux",
        "config": {
            "User": str(image.user),
            "Entrypoint": [f"/usr/bin/{image.files[0].name}"],
            "Env": ["PATH=/usr/bin"],
        },
        "rootfs": {"type": "layers", "diff_ids": [f"sha256:{hashlib.sha256(layer).hexdigest()}"]},
    }).encode()  # fmt: skip


def _add(archive: tarfile.TarFile, name: str, data: bytes, mode: int) -> None:
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(data), mode
    archive.addfile(info, io.BytesIO(data))
