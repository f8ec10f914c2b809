"""What a guest boots: a kernel, and its whole file system as archives that the kernel unpacks.

Linux unpacks cpio archives one after the other (Documentation/driver-api/early-userspace/
buffer-format.rst), so each part is an archive of its own: the system, made once for each
architecture; the kernel's modules; and this checkout.
"""

import contextlib
import hashlib
import re
import shutil
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from flowverdict_lab.kernels.debian import Debian
from flowverdict_lab.kernels.kernels import Kernel

__all__ = ["Bootable", "GuestError", "archive_checkout", "make_bootable"]

_ROOT = Path(__file__).parents[3]
_INIT = Path(__file__).with_name("init.sh")
_OURS = "opt/flowverdict"
_RELEASE, _PYTHON = "bookworm", "3.11"
_SYSTEM = (
    "?essential",
    "mount",
    "python3",
    "python3-bpfcc",
    "nftables",
    "iproute2",
    "kmod",
    "procps",
)
_TESTED_WITH = ("hypothesis", "iniconfig", "pluggy", "pytest", "pytest-asyncio", "pytest-timeout",
                "sortedcontainers")  # fmt: skip
_WHEELS_FOR = {"amd64": "x86_64", "arm64": "aarch64"}
_MODULES = ("crypto", "drivers/net", "lib", "net")


class GuestError(RuntimeError):
    """A part of a guest could not be made; the message has what the command said."""


@dataclass(frozen=True, slots=True)
class Bootable:
    """A kernel's image, and the archives of its file system in their order."""

    architecture: str
    image: Path
    archives: tuple[Path, ...]


def make_bootable(kernel: Kernel, cache: Path, tell: Callable[[str], None]) -> Bootable:
    """A kernel with its modules and a system, from the cache or made.

    Args:
        kernel: which.
        cache: a folder to keep them in.
        tell: called with what is about to be made.

    Raises:
        DebianError: if a package cannot be had.
        GuestError: if anything else fails.
    """
    made_of = _requirements() + Path(__file__).read_text()
    known = hashlib.sha256(made_of.encode()).hexdigest()[:12]
    system = cache / f"system-{kernel.architecture}-{known}.cpio"
    if not system.exists():
        tell(f"a system for {kernel.architecture}: Debian {_RELEASE} and the Python packages")
        for outdated in cache.glob(f"system-{kernel.architecture}-*"):
            outdated.unlink()
        with _folder(cache) as root:
            _fill_system(kernel.architecture, root, cache)
            _archive(root, system)
    folder = cache / kernel.name
    image, modules = folder / "vmlinuz", folder / "modules.cpio"
    if not image.exists():
        tell(f"kernel {kernel.name}: {kernel.package} of Debian {kernel.release}")
        with _folder(cache) as unpacked, _folder(cache) as root:
            apt = cache / f"apt-{kernel.release}-{kernel.architecture}"
            debian = Debian(kernel.release, kernel.architecture, apt)
            debian.unpack([kernel.package], unpacked, "linux-")
            taken = _take_modules(unpacked, root)
            _archive(root, modules)
            taken.rename(image)
    return Bootable(kernel.architecture, image, (system, modules))


def archive_checkout(to: Path, command: str) -> None:
    """Archive this checkout as it stands, with the programs of its packages.

    Args:
        to: the archive.
        command: a shell script, which a guest runs in the checkout.

    Raises:
        GuestError: if it cannot be made.
    """
    with _folder(to.parent) as root:
        listed = _run(["git", "-C", str(_ROOT), "ls-files", "-z", "--cached", "--others",
                       "--exclude-standard"])  # fmt: skip
        for name in filter(None, listed.split("\0")):
            if (_ROOT / name).is_file():
                target = root / _OURS / "checkout" / name
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(_ROOT / name, target)
        _add_our_packages(root / _OURS)
        (root / _OURS / "command").write_text(command)
        shutil.copy(_INIT, root / "init")
        (root / "init").chmod(0o755)
        _archive(root, to)


def _fill_system(architecture: str, root: Path, cache: Path) -> None:
    # Debian's packages still have files in /bin and /lib, which are links since bookworm.
    for name in ("bin", "lib", "sbin", *(("lib64",) if architecture == "amd64" else ())):
        (root / "usr" / name).mkdir(parents=True, exist_ok=True)
        (root / name).symlink_to(f"usr/{name}")
    apt = cache / f"apt-{_RELEASE}-{architecture}"
    Debian(_RELEASE, architecture, apt).unpack(_SYSTEM, root)
    for unread in ("doc", "locale", "man"):
        shutil.rmtree(root / "usr" / "share" / unread, ignore_errors=True)
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/root:/bin/sh\n")
    (root / "etc" / "group").write_text("root:x:0:\n")
    ours = root / _OURS
    (ours / "bin").mkdir(parents=True)
    (ours / "bin" / "python").symlink_to("/usr/bin/python3")
    requirements = root / "requirements.txt"
    requirements.write_text(_requirements())
    platforms = [f"--platform=manylinux{version}_{_WHEELS_FOR[architecture]}"
                 for version in ("_2_28", "_2_27", "_2_17", "2014")]  # fmt: skip
    _run([sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check",
          "--no-deps", "--require-hashes", "--only-binary=:all:", f"--python-version={_PYTHON}",
          *platforms, "--target", str(ours / "site"), "-r", str(requirements)])  # fmt: skip
    requirements.unlink()
    (ours / "site" / "bin" / "nats-server").rename(ours / "bin" / "nats-server")


def _requirements() -> str:
    """The part of the locked requirements that the tests of services need."""
    lock = (_ROOT / "requirements" / "dev.lock").read_text()
    runtime = (_ROOT / "requirements" / "run.lock").read_text()
    wanted = {*re.findall(r"^([\w.-]+)==", runtime, re.MULTILINE), *_TESTED_WITH}
    entries = re.findall(r"^([\w.-]+)(==.*\n(?: .*\n)*)", lock, re.MULTILINE)
    return "".join(name + rest for name, rest in entries if name in wanted)


def _take_modules(unpacked: Path, root: Path) -> Path:
    """Put the modules of an unpacked kernel that networks need into `root`; returns its image."""
    (modules,) = (*unpacked.glob("lib/modules/*"), *unpacked.glob("usr/lib/modules/*"))
    (image,) = (*unpacked.glob("boot/vmlinuz-*"), *modules.glob("vmlinuz"))
    target = root / "usr" / "lib" / "modules" / modules.name
    for name in _MODULES:
        shutil.copytree(modules / "kernel" / name, target / "kernel" / name)
    for listed in modules.glob("modules.*"):
        shutil.copy(listed, target)
    _run(["depmod", "-b", str(root / "usr"), modules.name])
    return image


def _add_our_packages(ours: Path) -> None:
    """The programs of our packages, and what `importlib.metadata` knows about them."""
    (ours / "bin").mkdir(exist_ok=True)
    for site in map(Path, sys.path):
        for known in site.glob("flowverdict_*.dist-info"):
            shutil.copytree(known, ours / "site" / known.name)
    for project in _ROOT.glob("*/*/pyproject.toml"):
        declared = tomllib.loads(project.read_text())["project"]
        for name, place in declared.get("scripts", {}).items():
            module, _, function = place.partition(":")
            program = ours / "bin" / name
            program.write_text(
                f"#!/{_OURS}/bin/python\nimport sys\nfrom {module} import {function}\n"
                f"sys.exit({function}())\n"
            )
            program.chmod(0o755)


def _archive(root: Path, to: Path) -> None:
    """Archive a folder as the root of a file system, whole or not at all."""
    to.parent.mkdir(parents=True, exist_ok=True)
    begun = to.with_suffix(".begun")
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    with begun.open("wb") as out:
        written = subprocess.run(
            ["cpio", "--null", "--create", "--format=newc", "--owner=0:0", "--quiet"],
            cwd=root, input="\0".join(names).encode(), stdout=out, stderr=subprocess.PIPE,
            check=False,
        )  # fmt: skip
    if written.returncode != 0:
        raise GuestError(f"cpio: {written.stderr.decode().strip()}")
    begun.rename(to)


@contextlib.contextmanager
def _folder(beside: Path) -> Iterator[Path]:
    beside.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=beside) as name:
        yield Path(name)


def _run(argv: list[str]) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise GuestError(f"{argv[0]}: {(done.stderr or done.stdout).strip()[-500:]}")
    return done.stdout
