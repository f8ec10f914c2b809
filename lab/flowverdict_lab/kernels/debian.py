"""Takes packages of any Debian release and architecture, without installing them."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

__all__ = ["Debian", "DebianError"]

_KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"


class DebianError(RuntimeError):
    """A package could not be had; the message has what apt said."""


@dataclass(frozen=True, slots=True)
class Debian:
    """A release of Debian for an architecture.

    Attributes:
        release: its code name.
        architecture: as Debian names it.
        folder: where apt keeps its lists and the packages; this machine's own are not touched.
    """

    release: str
    architecture: str
    folder: Path

    def unpack(self, names: Sequence[str], to: Path, only: str = "") -> None:
        """Unpack packages and all that they depend on into a folder; nothing is configured.

        Args:
            names: packages, or patterns of apt such as `?essential`.
            to: the folder, which becomes the root of a file system.
            only: if given, only packages whose names begin with it are unpacked.

        Raises:
            DebianError: if one of them cannot be had.
        """
        archives = self.folder / "archives"
        shutil.rmtree(archives, ignore_errors=True)
        for each in (self.folder / "lists" / "partial", archives / "partial"):
            each.mkdir(parents=True, exist_ok=True)
        (self.folder / "status").touch()
        mirror = os.environ.get("DEBIAN_MIRROR") or self._own_mirror()
        (self.folder / "sources.list").write_text(
            f"deb [signed-by={_KEYRING}] {mirror} {self.release} main\n"
        )
        self._apt("update")
        self._apt("install", "--yes", "--download-only", "--no-install-recommends", *names)
        for archive in sorted(archives.glob(f"{only}*.deb")):
            self._extract(archive, to)
        shutil.rmtree(archives)

    def _own_mirror(self) -> str:
        """Where this machine has its own packages from."""
        shown = ["indextargets", "--no-release-info", "--format", "$(RELEASE) $(REPO_URI)"]
        for line in self._run(["apt-get", *shown, "Created-By: Packages"]).splitlines():
            release, _, mirror = line.partition(" ")
            if "-" not in release:  # as those of updates have
                return mirror
        raise DebianError("apt has no mirror here: name one of Debian in DEBIAN_MIRROR")

    def _extract(self, archive: Path, to: Path) -> None:
        """As dpkg-deb --extract does, which replaces /bin and /lib if they are links."""
        files = ["dpkg-deb", "--fsys-tarfile", str(archive)]
        with subprocess.Popen(files, stdout=subprocess.PIPE) as reading:
            self._run(
                ["tar", "--extract", "--keep-directory-symlink", "-C", str(to)], reading.stdout
            )

    def _apt(self, *arguments: str) -> None:
        options = {
            "APT::Architecture": self.architecture,
            "APT::Architectures": self.architecture,
            "APT::Sandbox::User": "",
            "Acquire::Languages": "none",
            "Debug::NoLocking": "true",
            "Dir::Cache": str(self.folder),
            "Dir::Cache::archives": str(self.folder / "archives"),
            "Dir::Etc::sourcelist": str(self.folder / "sources.list"),
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": str(self.folder),
            "Dir::State::lists": str(self.folder / "lists"),
            "Dir::State::status": str(self.folder / "status"),
        }
        given = [part for name, value in options.items() for part in ("-o", f"{name}={value}")]
        self._run(["apt-get", "--quiet=2", *given, *arguments])

    def _run(self, argv: list[str], stdin: IO[bytes] | None = None) -> str:
        done = subprocess.run(argv, stdin=stdin, capture_output=True, text=True, check=False)
        if done.returncode != 0:
            what = (done.stderr or done.stdout).strip()[-500:]
            raise DebianError(f"packages of Debian {self.release}: {what}")
        return done.stdout
