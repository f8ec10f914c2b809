"""Builds the programs of a cluster from Go modules, once, into the cache.

Kubernetes, CoreDNS, etcd, the CNI plugins and the engine that enforces network policies come from
`modules`, whose go.mod and go.sum lock everything that goes into them. The others are built in a
copy of their own module, with the go.sum that their authors published.
"""

import functools
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

__all__ = [
    "KUBERNETES",
    "BuildError",
    "Program",
    "build",
    "build_programs",
    "cache",
    "go_install",
    "programs",
]

_MODULES = Path(__file__).parent / "modules"
_GO_MOD = (_MODULES / "go.mod").read_text()


def _locked(module: str) -> str:
    found = re.search(rf"^\s*(?:require )?{re.escape(module)} v(\S+)", _GO_MOD, re.MULTILINE)
    assert found is not None, module
    return found[1]


KUBERNETES = _locked("k8s.io/kubernetes")
"""The version that go.mod locks, such as 1.37.2; others can be built, too."""

_CONTAINERD, _RUNC = "2.4.2", "1.5.2"
_NO_DEBUG = ("-trimpath", "-gcflags=all=-dwarf=false")


class BuildError(RuntimeError):
    """A program could not be built; the message has what the compiler said."""


@dataclass(frozen=True, slots=True)
class Program:
    """One program: where it goes, and how it is built.

    Attributes:
        path: relative to the folder of programs.
        module: `module@version` to build in a copy of; empty for our own `modules`.
        package: the main package, as `go build` takes it.
        linker: more linker flags.
        tags: build tags.
        cgo: whether it contains C.
        environ: more of the compiler's environment.
    """

    path: str
    module: str
    package: str
    linker: str = ""
    tags: str = ""
    cgo: bool = False
    environ: tuple[tuple[str, str], ...] = ()


def cache() -> Path:
    """The folder that programs, images and clusters are kept in: $XDG_CACHE_HOME/flowverdict."""
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "flowverdict"


def programs(kubernetes: str) -> Iterator[Program]:
    """What a cluster of this version needs, in the order in which it is built."""
    major, minor, _ = kubernetes.split(".")
    version = "k8s.io/component-base/version"
    stamp = (
        f"-X {version}.gitVersion=v{kubernetes} -X {version}.gitMajor={major} "
        f"-X {version}.gitMinor={minor} -X {version}.gitTreeState=clean "
        f"-X {version}.gitCommit=unknown"
    )
    for name in ("apiserver", "controller-manager", "scheduler", "proxy"):
        yield Program(f"kube-{name}", "", f"k8s.io/kubernetes/cmd/kube-{name}", stamp)
    yield Program("kubelet", "", "k8s.io/kubernetes/cmd/kubelet", stamp)
    yield Program("coredns", "", "./coredns")
    yield Program("etcd", "", "./etcd")
    yield Program("kube-network-policies", "", "sigs.k8s.io/kube-network-policies/cmd")
    for name in ("main/bridge", "main/loopback", "ipam/host-local", "meta/portmap"):
        package = f"github.com/containernetworking/plugins/plugins/{name}"
        yield Program(f"cni/{name.split('/')[1]}", "", package)
    containerd = "github.com/containerd/containerd/v2"
    for name in ("containerd", "containerd-shim-runc-v2", "ctr"):
        yield Program(
            name,
            f"{containerd}@v{_CONTAINERD}",
            f"./cmd/{name}",
            f"-X {containerd}/version.Version=v{_CONTAINERD}",
            tags="no_btrfs,no_devmapper,no_zfs",
        )
    runc = f"github.com/opencontainers/runc@v{_RUNC}"
    yield Program("runc", runc, ".", f"-X main.version={_RUNC}", tags="seccomp", cgo=True)


def build(kubernetes: str, tell: Callable[[str], None]) -> Path:
    """Build what is missing and return the folder of programs.

    Args:
        kubernetes: the version, such as 1.37.2.
        tell: called with the name of each program before it is built.

    Raises:
        BuildError: if one cannot be built.
    """
    folder = cache() / "kubernetes" / kubernetes
    folder.mkdir(parents=True, exist_ok=True)
    for program in programs(kubernetes):
        if not (folder / program.path).exists():
            tell(program.path)
            _compile(program, _source_of(program, kubernetes), folder / program.path)
    pause = folder / "pause"
    if not pause.exists():
        source = _kubernetes(kubernetes)
        found = _go(["list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes"], source)
        _run(["gcc", "-Os", "-static", "-DVERSION=3.10", "-o", str(pause),
              f"{found.strip()}/build/pause/linux/pause.c"], folder, {})  # fmt: skip
    return folder


def build_programs(wanted: Iterable[Program], folder: Path, tell: Callable[[str], None]) -> None:
    """Build those programs of other modules that are not in `folder` yet.

    Raises:
        BuildError: if one cannot be built.
    """
    for program in wanted:
        if not (folder / program.path).exists():
            tell(program.path)
            _compile(program, _source_of(program, KUBERNETES), folder / program.path)


def go_install(package: str, to: Path) -> None:
    """Install the program `package@version` into the folder `to`.

    Raises:
        BuildError: if it cannot be built.
    """
    _go(["install", package], to, {"GOBIN": str(to), "GOFLAGS": "-buildvcs=false"})


def _source_of(program: Program, kubernetes: str) -> Path:
    """The module that a program is built in."""
    if program.module:
        return _copy_of(program.module)
    if program.package.startswith("k8s.io/kubernetes/"):
        return _kubernetes(kubernetes)
    return _kubernetes(KUBERNETES)


@functools.cache
def _kubernetes(version: str) -> Path:
    """The module for Kubernetes: ours, which locks everything, or one for another version."""
    folder = cache() / "source" / f"kubernetes-{version}"
    shutil.rmtree(folder, ignore_errors=True)
    if version == KUBERNETES:
        shutil.copytree(_MODULES, folder)
        return folder
    folder.mkdir(parents=True)
    found = json.loads(_go(["mod", "download", "-json", f"k8s.io/kubernetes@v{version}"], _MODULES))
    published = Path(found["GoMod"]).read_text()
    language = re.findall(r"^(?:go|godebug) .*$", published, re.MULTILINE)
    # It names the modules that it is made of by path.
    parts = re.findall(r"^\s*(\S+) => \./staging/", published, re.MULTILINE)
    replaced = [f"replace {part} => {part} v0.{version.partition('.')[2]}" for part in parts]
    needed = f"require k8s.io/kubernetes v{version}"
    lines = ["module kubernetes", *language, needed, *replaced]
    (folder / "go.mod").write_text("\n".join(lines) + "\n")
    imports = "".join(
        f'import _ "{each.package}"\n'
        for each in programs(version)
        if each.package.startswith("k8s.io/kubernetes/")
    )
    (folder / "tools.go").write_text(f"//go:build tools\n\npackage tools\n\n{imports}")
    _go(["mod", "tidy"], folder)
    return folder


def _copy_of(module: str) -> Path:
    """A copy of a module that it can be built in, with its own go.mod and go.sum."""
    copy = cache() / "source" / module.replace("/", "-")
    if not (copy / "go.mod").exists():
        found = json.loads(_go(["mod", "download", "-json", module], _MODULES))
        shutil.rmtree(copy, ignore_errors=True)
        shutil.copytree(found["Dir"], copy)
        _run(["chmod", "-R", "u+w", str(copy)], copy, {})
    return copy


def _compile(program: Program, source: Path, to: Path) -> None:
    to.parent.mkdir(parents=True, exist_ok=True)
    partial = to.with_name(f".{to.name}.partial")  # an interrupted build leaves no broken program
    flags = [*_NO_DEBUG, "-ldflags", f"-s -w {program.linker}", "-tags", program.tags]
    _go(
        ["build", *flags, "-o", str(partial), program.package],
        source,
        {"CGO_ENABLED": "1" if program.cgo else "0", **dict(program.environ)},
    )
    partial.rename(to)


def _go(argv: list[str], folder: Path, more: dict[str, str] | None = None) -> str:
    return _run(["go", *argv], folder, {"GOFLAGS": "-mod=mod -buildvcs=false", **(more or {})})


def _run(argv: list[str], folder: Path, more: dict[str, str]) -> str:
    done = subprocess.run(
        argv, cwd=folder, env={**os.environ, **more}, capture_output=True, text=True, check=False
    )
    if done.returncode != 0:
        raise BuildError(f"{' '.join(argv[:3])} failed:\n{done.stderr.strip()[-2000:]}")
    return done.stdout
