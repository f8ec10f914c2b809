"""The `flowverdict-experiment` command: the experiment on a Kubernetes cluster.

Four pods call each other before, during and after a fault. During the fault, a pod on the target's
node impairs the target's network; another pod listens for verdicts. Then everything is removed.
"""

import argparse
import contextlib
import json
import re
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib.metadata import version
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from flowverdict_lab.arguments import LONG_SECONDS, percentage, phase_seconds, whole_number
from flowverdict_lab.interruption import ignore_signals, interrupt_once
from flowverdict_lab.kubernetes_objects import (
    EXPERIMENT,
    FLOWVERDICT,
    ClusterError,
    Objects,
    manifests,
)
from flowverdict_runtime.terminal import printable

__all__ = ["main"]

PODS = ("pod-a", "pod-b", "pod-c", "pod-d")
PHASES = ("before", "during", "after")
CHAOS, LISTENER = "flowverdict-chaos", "experiment-listener"
RIGHT, WRONG, USAGE, FAILED, INTERRUPTED = 0, 1, 2, 3, 130
_READY_SECONDS, _GONE_SECONDS = 180.0, 120.0
_USUAL_SECONDS = 40
_GONE = "the experiment's objects to be deleted"

Tell = Callable[[str, float], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """The target, the fault, how long each phase lasts, and how long to wait for the verdict."""

    target: str
    loss_percent: float
    delay_ms: int
    seconds: float
    wait_seconds: float


class Images:
    """The names of Flowverdict's images: same registry, path and version as the doctor's.

    Args:
        given: registry and path from the command line; empty to use the doctor's.

    Raises:
        ClusterError: if Flowverdict is not installed, or the doctor's image does not locate others.
    """

    def __init__(self, objects: Objects, given: str) -> None:
        doctor = _doctor(objects.template(FLOWVERDICT, "doctor"))
        found = re.fullmatch(r"(.*/)?doctor:([\w.-]+)", doctor["image"])
        if found is None and not given:
            raise ClusterError(
                f"the doctor's image is {doctor['image']}, which does not say where the "
                "others are: use --images REGISTRY/PATH"
            )
        self._prefix = f"{given.rstrip('/')}/" if given else (found and found[1]) or ""
        self._version = found[2] if found else version("flowverdict-lab")

    def __getitem__(self, name: str) -> str:
        return f"{self._prefix}{name}:{self._version}"


def _doctor(template: dict[str, Any]) -> dict[str, Any]:
    """The doctor's own container; a cluster may inject sidecars."""
    containers = template["spec"]["containers"]
    found: dict[str, Any] = next((c for c in containers if c["name"] == "doctor"), containers[0])
    return found


def init(objects: Objects, images: Images, tell: Tell) -> None:
    """Create the four pods and wait until all of them are ready."""
    for thing in manifests():
        if thing["kind"] == "Pod":
            for container in thing["spec"]["containers"]:
                container["image"] = images["experiment"]
        objects.create(thing)
    for pod in PODS:
        tell(f"waiting for {pod}", 0)
        objects.wait_ready(EXPERIMENT, pod, _READY_SECONDS)


def cleanup(objects: Objects, tell: Tell) -> None:
    """Remove everything the experiment creates, and wait until it is gone."""
    tell("removing", 0)
    # First, so that the pod's network is restored while it still exists.
    _remove_helpers(objects)
    objects.delete_namespace(EXPERIMENT)
    objects.wait(_GONE, lambda: not objects.namespace_exists(EXPERIMENT), _GONE_SECONDS)


def _remove_helpers(objects: Objects) -> None:
    """Remove the chaos and listener pods, and wait until they are gone."""
    pods = ((EXPERIMENT, CHAOS), (FLOWVERDICT, LISTENER))
    for namespace, name in pods:
        objects.delete_pod(namespace, name)
    objects.wait(
        _GONE,
        lambda: all(objects.pod(namespace, name) is None for namespace, name in pods),
        _GONE_SECONDS,
    )


def _listener(objects: Objects, images: Images) -> dict[str, Any]:
    """A pod that prints verdicts: the doctor's pod, which may read NATS, with another image."""
    template = objects.template(FLOWVERDICT, "doctor")
    spec = template["spec"]
    spec["restartPolicy"] = "OnFailure"
    spec["automountServiceAccountToken"] = False
    spec.pop("serviceAccountName", None)
    spec.pop("serviceAccount", None)
    container = _doctor(template)
    spec["containers"] = [container]
    container["image"] = images["tail"]
    container["args"] = ["verdicts", "--json"]
    # The doctor has other credentials too; this pod needs only those for NATS.
    container["env"] = [
        each for each in container.get("env", []) if each["name"].startswith("FLOWVERDICT_NATS_")
    ]
    labels = {**template["metadata"]["labels"], "app.kubernetes.io/name": LISTENER}
    metadata = {"name": LISTENER, "namespace": FLOWVERDICT, "labels": labels}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _chaos(objects: Objects, images: Images, plan: Plan) -> dict[str, Any]:
    """A pod on the target's node that impairs the target's network for one phase."""
    target = objects.pod(EXPERIMENT, plan.target)
    if target is None:
        raise ClusterError(f"pod {plan.target} is gone")
    seconds = str(int(plan.seconds) + 30)  # removed earlier; if we die, it ends by itself
    arguments = [f"{plan.loss_percent:g}", str(plan.delay_ms), seconds, target.metadata.uid]
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": CHAOS, "namespace": EXPERIMENT},
        "spec": {
            "nodeName": target.spec.node_name,
            "hostPID": True,
            "restartPolicy": "Never",
            "automountServiceAccountToken": False,
            "activeDeadlineSeconds": int(plan.seconds) + 120,
            "terminationGracePeriodSeconds": 10,
            "tolerations": [{"operator": "Exists"}],
            "containers": [
                {
                    "name": "chaos",
                    "image": images["experiment"],
                    "command": ["/opt/experiment/chaos.sh", *arguments],
                    # To enter the other pod's network namespace and change its interface.
                    "securityContext": {"privileged": True, "runAsUser": 0, "runAsNonRoot": False},
                }
            ],
        },
    }


def _is_verdict(document: Any) -> bool:
    causes = document.get("causes") if isinstance(document, dict) else None
    return isinstance(causes, list) and all(
        isinstance(each, dict) and {"kind", "name"} <= each.keys() for each in causes
    )


def verdicts_in(log: str) -> list[dict[str, Any]]:
    """The verdicts in a listener's log; other lines are skipped."""
    verdicts = []
    for line in log.splitlines():
        with contextlib.suppress(ValueError, RecursionError):
            document = json.loads(line)
            if _is_verdict(document):
                verdicts.append(document)
    return verdicts


def blamed(verdicts: list[dict[str, Any]]) -> list[str]:
    """The first causes of verdicts on open incidents, in order, without duplicates."""
    names = [
        f"{each['causes'][0]['kind']} {each['causes'][0]['name']}"
        for each in verdicts
        if each["causes"] and each.get("status") != "resolved"
    ]
    return list(dict.fromkeys(names))


def run(objects: Objects, images: Images, plan: Plan, tell: Tell) -> list[dict[str, Any]]:
    """Run the three phases; returns the verdicts published meanwhile."""
    expected = f"pod {EXPERIMENT}/{plan.target}"
    # Left over from a killed run: these belong to another fault.
    _remove_helpers(objects)
    init(objects, images, tell)
    tell("waiting for the listener", 0)
    objects.create(_listener(objects, images))
    objects.wait_ready(FLOWVERDICT, LISTENER, _READY_SECONDS)

    def received() -> list[dict[str, Any]]:
        return verdicts_in(objects.log(FLOWVERDICT, LISTENER))

    began = time.monotonic()
    for number, phase in enumerate(PHASES):
        if phase == "during":
            objects.create(_chaos(objects, images, plan))
            objects.wait_ready(EXPERIMENT, CHAOS, _READY_SECONDS)
        elif phase == "after":
            objects.delete_pod(EXPERIMENT, CHAOS)
        words = f"{phase}: {_words(plan)}" if phase == "during" else phase
        started = time.monotonic()
        while (spent := time.monotonic() - started) < plan.seconds:
            names = blamed(received())
            tell(
                words + (f"; verdict: {printable(names[-1])}" if names else ""),
                number * plan.seconds + spent,
            )
            time.sleep(min(1.0, plan.seconds - spent))
    tell("waiting for the verdict", time.monotonic() - began)
    with contextlib.suppress(ClusterError):  # no verdict: _compare reports that
        objects.wait("a verdict", lambda: expected in blamed(received()), plan.wait_seconds)
    return received()


def _words(plan: Plan) -> str:
    return f"{plan.loss_percent:g}% loss and {plan.delay_ms} ms delay on {plan.target}"


def _compare(plan: Plan, verdicts: list[dict[str, Any]], console: Console) -> int:
    expected = f"pod {EXPERIMENT}/{plan.target}"
    names = blamed(verdicts)
    for verdict in verdicts:
        if verdict.get("status") == "opened":
            console.print(f"[bold]Verdict[/] {_text(verdict.get('summary', ''))}")
    others = [name for name in names if name != expected]
    if expected in names:
        console.print(f"[bold green]Right[/]: it names {expected}; the fault was {_words(plan)}.")
        if others:
            console.print(f"It also names {_text(', '.join(others))}.")
        return RIGHT
    result = f"it names {_text(', '.join(others))}" if others else "there is no verdict"
    console.print(f"[bold red]Wrong[/]: {result}, but it should have named {expected}.")
    return WRONG


def _text(untrusted: Any) -> str:
    """Text from outside, safe to print."""
    return escape(printable(str(untrusted)))


@contextlib.contextmanager
def _progress(console: Console, total: float) -> Iterator[Tell]:
    columns = (TextColumn("{task.description}", markup=False), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as progress:
        task = progress.add_task("", total=total)
        last = ""

        def tell(what: str, done: float) -> None:
            nonlocal last
            progress.update(task, description=what, completed=done)
            phase = what.partition(";")[0]
            if phase != last and not console.is_terminal:
                console.print(phase, markup=False)
            last = phase

        yield tell


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="script/experiment",
        description="Runs four pods on a Kubernetes cluster with Flowverdict, impairs the network"
        " of one, and checks the verdict. Exits with status 0 if it names that pod, 1 if not.",
    )
    parser.add_argument("--version", action="version", version=version("flowverdict-lab"))
    parser.add_argument("--kubeconfig", default="", help="default: KUBECONFIG or ~/.kube/config")
    parser.add_argument("--context", default="", help="default: the kubeconfig's current context")
    parser.add_argument(
        "--images",
        default="",
        metavar="REGISTRY/PATH",
        help="where the tail and experiment images are; default: next to the doctor's",
    )
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("init", help="create the four pods and their traffic")
    running = commands.add_parser("run", help="do everything: create, break, compare, remove")
    running.add_argument("--target", choices=PODS, default="pod-a", help="default: pod-a")
    running.add_argument(
        "--loss",
        type=percentage(0.1, 99),
        default=20,
        metavar="PERCENT",
        help="of the packets, from 0.1 to 99; default: 20",
    )
    running.add_argument(
        "--delay",
        type=whole_number(0, 1000),
        default=20,
        metavar="MS",
        help="from 0 to 1000; default: 20",
    )
    running.add_argument(
        "--seconds",
        type=whole_number(1, 3600),
        help=f"phase length, from 1 to 3600; default: {_USUAL_SECONDS}, or {LONG_SECONDS} for"
        " losses below 5%%",
    )
    running.add_argument(
        "--wait",
        type=whole_number(0, 3600),
        default=60,
        metavar="SECONDS",
        help="how long to wait for the verdict after the last phase, at most 3600; default: 60",
    )
    running.add_argument(
        "--keep", action="store_true", help="keep the four pods and their traffic running"
    )
    commands.add_parser("cleanup", help="remove everything the experiment created")
    return parser


def _remove(objects: Objects, keep_pods: bool, tell: Tell) -> None:
    ignore_signals()
    try:
        if keep_pods:
            _remove_helpers(objects)
        else:
            cleanup(objects, tell)
    except ClusterError as error:
        raise ClusterError(f"{error}; objects remain, run script/experiment cleanup") from None


def _plan(arguments: argparse.Namespace) -> Plan:
    return Plan(
        arguments.target,
        arguments.loss,
        arguments.delay,
        phase_seconds(arguments.seconds, _USUAL_SECONDS, arguments.loss),
        arguments.wait,
    )


def _run_command(arguments: argparse.Namespace, console: Console) -> int:
    objects = Objects(arguments.kubeconfig, arguments.context)
    plan = _plan(arguments) if arguments.command == "run" else None
    with _progress(console, len(PHASES) * plan.seconds if plan else 0) as tell:
        if arguments.command == "init":
            init(objects, Images(objects, arguments.images), tell)
            console.print(f"{', '.join(PODS)} call each other in namespace {EXPERIMENT}.")
            return RIGHT
        if plan is None:
            cleanup(objects, tell)
            console.print("Everything the experiment created has been removed.")
            return RIGHT
        try:
            verdicts = run(objects, Images(objects, arguments.images), plan, tell)
        finally:
            _remove(objects, arguments.keep, tell)
    return _compare(plan, verdicts, console)


def main() -> None:
    """Run the command line and exit with its status."""
    arguments = _parser().parse_args()
    console = Console(highlight=False)
    interrupt_once()
    try:
        sys.exit(_run_command(arguments, console))
    except ClusterError as error:
        print(f"script/experiment: {error}", file=sys.stderr)
        sys.exit(FAILED)
    except Exception as error:  # noqa: BLE001 # 1 would mean that the verdict was wrong
        why = f"{type(error).__name__}: {printable(str(error))}"
        print(f"script/experiment: unexpected error: {why}", file=sys.stderr)
        sys.exit(FAILED)
    except KeyboardInterrupt:
        left = "everything it created has been removed"
        if arguments.command != "run" or arguments.keep:
            left = "to remove what is left, run script/experiment cleanup"
        print(f"script/experiment: interrupted; {left}", file=sys.stderr)
        sys.exit(INTERRUPTED)


if __name__ == "__main__":
    main()
