"""The `flowverdict-cluster` command, which script/cluster runs."""

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console

from flowverdict_lab.arguments import whole_number
from flowverdict_lab.interruption import interrupt_once
from flowverdict_lab.kubernetes import docker
from flowverdict_lab.kubernetes.build import KUBERNETES, BuildError, build, cache, programs
from flowverdict_lab.kubernetes.cluster import Cluster, clusters
from flowverdict_lab.kubernetes.machine import what_is_missing
from flowverdict_lab.kubernetes.processes import ProcessError
from flowverdict_lab.servers import build_servers, server_images

__all__ = ["main"]

_TESTS = Path(__file__).parents[3] / "tests" / "cluster"
_TESTED = (
    "collector",
    "enricher",
    "exporter",
    "influx-writer",
    "rca",
    "doctor",
    "tail",
    "experiment",
)
OK, FAILED, INTERRUPTED = 0, 3, 130


def main() -> int:
    """Run the command; returns its exit status."""
    options = _parser().parse_args()
    console = Console(stderr=True, highlight=False)
    interrupt_once()
    try:
        return int(options.run(options, console))
    except (BuildError, ProcessError) as error:
        console.print(f"script/cluster: {error}", style="red", markup=False, soft_wrap=True)
        return FAILED
    except KeyboardInterrupt:
        return INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="script/cluster",
        description="A whole Kubernetes on this machine, without containers around it: each node "
        "is a set of namespaces. Built from Go modules the first time (a quarter of an hour), and "
        "started in seconds after that. Needs root.",
        epilog="Exit status: 0 done, 1 a test failed, 2 usage error, 3 cannot run.",
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, text: str, run: object) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(run=run)
        added.add_argument("--name", type=_name, default="flowverdict",
                           help="tells clusters apart (default: flowverdict)")  # fmt: skip
        return added

    up = command("up", "Build what is missing, start a cluster and wait until it is ready.", _up)
    up.add_argument("--kubernetes", type=_version, default=KUBERNETES, metavar="VERSION",
                    help=f"its version (default: {KUBERNETES})")  # fmt: skip
    up.add_argument("--nodes", type=whole_number(1, 9), default=2, help="default: 2")
    command("build", "Build what `up` needs, and start nothing.", _build).add_argument(
        "--kubernetes", type=_version, default=KUBERNETES, metavar="VERSION"
    )
    command("down", "End a cluster and remove everything it left on this machine.", _down)
    command("status", "Show the clusters of this machine.", _status)
    load = command("load", "Load images into every node: those of script/images from the Docker "
                   "engine, and the servers that deploy/k8s names in its versions, such as NATS "
                   "and Prometheus, which it builds first.", _load)  # fmt: skip
    load.add_argument("images", nargs="*", metavar="IMAGE",
                      help="only these images of the Docker engine")  # fmt: skip
    test = command("test", "Start a cluster of its own, install Flowverdict on it and run "
                   "tests/cluster.", _test)  # fmt: skip
    test.set_defaults(name="test")
    test.add_argument("--use-current", action="store_true",
                      help="use the cluster that kubectl is configured for, which has the images "
                      "already (kind, k3d, your own); cuts off no node")  # fmt: skip
    test.add_argument("--day", action="store_true", help="also run the long tests")
    test.add_argument("--keep", action="store_true", help="leave the cluster running")
    test.add_argument("pytest", nargs="*", metavar="PYTEST ARGUMENT")
    return parser


def _name(text: str) -> str:
    if not re.fullmatch(r"[a-z0-9][a-z0-9-]{0,20}", text):
        raise argparse.ArgumentTypeError("use up to 21 lower-case letters, digits and hyphens")
    return text


def _version(text: str) -> str:
    if not re.fullmatch(r"1\.\d+\.\d+", text):
        raise argparse.ArgumentTypeError("a version is like 1.37.2")
    return text


def _built(options: argparse.Namespace, console: Console) -> None:
    folder = cache() / "kubernetes" / options.kubernetes
    missing = [each for each in programs(options.kubernetes) if not (folder / each.path).exists()]
    lacking = what_is_missing(bool(missing))
    if lacking:
        raise ProcessError(lacking)
    started = time.monotonic()

    def tell(name: str) -> None:
        console.print(f"{time.monotonic() - started:6.0f} s  building {name}", style="dim")

    build(options.kubernetes, tell)


def _build(options: argparse.Namespace, console: Console) -> int:
    _built(options, console)
    return OK


def _up(options: argparse.Namespace, console: Console) -> int:
    cluster = Cluster(options.name)
    if cluster.running:
        console.print(f"cluster {cluster.name} already runs")
        return _show(cluster)
    _built(options, console)
    started = time.monotonic()

    def tell(step: str) -> None:
        console.print(f"{time.monotonic() - started:6.1f} s  {step}", style="dim")

    cluster.up(cache() / "kubernetes" / options.kubernetes, options.nodes, tell)
    tell("ready")
    return _show(cluster)


def _show(cluster: Cluster) -> int:
    print(f"export KUBECONFIG={cluster.kubeconfig}")
    return OK


def _down(options: argparse.Namespace, console: Console) -> int:
    cluster = Cluster(options.name)
    if not cluster.folder.exists():
        console.print(f"there is no cluster {cluster.name}")
        return OK
    cluster.down()
    return OK


def _status(_: argparse.Namespace, console: Console) -> int:
    found = list(clusters())
    for cluster in found:
        if not cluster.running:
            print(f"{cluster.name}: not running; its logs are in {cluster.folder}/log")
            continue
        print(f"{cluster.name}: KUBECONFIG={cluster.kubeconfig}")
        print(cluster.kubectl("get", "nodes", "-o", "wide").rstrip())
        for host in (cluster.control_plane, *cluster.nodes()):
            ended = [part for part in host.parts() if not host.runs(part)]
            for part in ended:
                print(f"{part} on {host.name} has ended: {host.log(part)}")
    if not found:
        console.print("no cluster; script/cluster up starts one")
    return OK


def _test(options: argparse.Namespace, console: Console) -> int:
    cluster = Cluster(options.name)
    environ = {
        **os.environ,
        "FLOWVERDICT_CLUSTER": "current" if options.use_current else cluster.name,
    }
    argv = [sys.executable, "-m", "pytest", "-q", "-rs", str(_TESTS)]
    argv += [] if options.day else ["-m", "not day"]
    try:
        if not options.use_current:
            if not cluster.running:
                options.kubernetes, options.nodes = KUBERNETES, 2
                _up(options, console)
            _load_for_test(cluster, console)
        return int(
            subprocess.run([*argv, *options.pytest], env=environ, check=False).returncode != 0
        )
    finally:
        if not options.use_current and not options.keep:
            cluster.down()


def _load_for_test(cluster: Cluster, console: Console) -> None:
    with docker.engine():
        console.print("building the images", style="dim")
        docker.build_images(_TESTED)
        _load_own(cluster, docker.images_of_this_version(_TESTED), console)
    _load_servers(cluster, console)


def _load(options: argparse.Namespace, console: Console) -> int:
    cluster = Cluster(options.name)
    if not cluster.running:
        raise ProcessError(f"cluster {cluster.name} does not run; script/cluster up starts it")
    _load_own(cluster, options.images or docker.images_of_this_version(), console)
    if not options.images:
        _load_servers(cluster, console)
    return OK


def _load_own(cluster: Cluster, images: Sequence[str], console: Console) -> None:
    archive = cluster.folder / "images.tar"
    try:
        docker.save(images, archive)
        cluster.load(archive, lambda step: console.print(step, style="dim"))
    finally:
        archive.unlink(missing_ok=True)


def _load_servers(cluster: Cluster, console: Console) -> None:
    build_servers(lambda name: console.print(f"building {name}", style="dim"))
    cluster.load(server_images(), lambda step: console.print(step, style="dim"))


if __name__ == "__main__":
    sys.exit(main())
