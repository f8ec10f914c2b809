"""The command `flowverdict-demo`: the experiment, live or replayed, and its verdict."""

import argparse
import asyncio
import contextlib
import fcntl
import os
import shutil
import sys
from collections.abc import Iterable, Iterator
from importlib.metadata import version
from pathlib import Path

import msgspec
from nats.errors import Error as NatsError
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from flowverdict_contracts import verdicts
from flowverdict_lab import report
from flowverdict_lab.arguments import LONG_SECONDS, percentage, phase_seconds, whole_number
from flowverdict_lab.cluster import SHAPES, make_cluster
from flowverdict_lab.faults import FAULTS, FaultError, LossyHub, parse_fault
from flowverdict_lab.interruption import interrupt_once
from flowverdict_lab.live_support import why_not_live
from flowverdict_lab.network import LabError
from flowverdict_lab.phases import (
    METRICS_FILE,
    PHASES,
    REPORT_FILE,
    Outcome,
    Run,
    Tell,
    run_live,
    run_replay,
)
from flowverdict_lab.pipeline import PipelineError
from flowverdict_lab.recording import RecordingError
from flowverdict_runtime.terminal import complain

__all__ = ["main"]

RECORDING_FILE = "recording.jsonl.gz"
_FILES = ("verdict.json", "verdicts.jsonl", METRICS_FILE, REPORT_FILE, "inventory.json")
_LOCK = Path("/run/lock/flowverdict-demo")
_MARKER = ".flowverdict-demo"
_NEEDED_BYTES = 200_000_000
_USUAL_SECONDS = 20
_DEFAULT_RUN = ("20% packet loss on pod-a", 4, 2)
SHIPPED_RECORDING = Path(__file__).parent / "recordings" / "pod-loss.jsonl.gz"

_RIGHT, _WRONG, _USAGE, _FAILED, _INTERRUPTED = 0, 1, 2, 3, 130


def _faults_in_words() -> str:
    lines = (
        f"  {name:16} {(fault.__doc__ or '').splitlines()[0]}\n" for name, fault in FAULTS.items()
    )
    return "faults:\n" + "".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="script/demo",
        description="Injects a fault into a small cluster and shows what Flowverdict blames.",
        epilog=_faults_in_words()
        + "\nExit status: 0 right verdict, 1 wrong verdict, 2 usage error, 3 cannot run.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    add = parser.add_argument
    add(
        "--fault",
        choices=list(FAULTS),
        default="pod-loss",
        metavar="FAULT",
        help="which fault to inject, of those below (default: pod-loss)",
    )
    add("--target", default="", metavar="NAME", help="a pod or node, or two, such as pod-b,pod-c")
    add(
        "--loss",
        type=percentage(0.1, 100),
        default=20,
        metavar="PERCENT",
        help="of the packets, from 0.1 to 100 (default: 20)",
    )
    add("--pods", type=whole_number(2, 50), default=4, metavar="N", help="2 to 50 (default: 4)")
    add(
        "--calls",
        choices=list(SHAPES),
        default="mesh",
        metavar="SHAPE",
        help="who calls whom: mesh (everyone), or layers (front ends, services and stores, of which"
        " each calls the next layer; default: mesh)",
    )
    add(
        "--hub-loss",
        type=percentage(0.1, 4),
        metavar="PERCENT",
        help="what the pod with the most peers always loses, with or without the fault; 0.1 to 4",
    )
    add("--nodes", type=whole_number(1, 20), default=2, metavar="N", help="1 to 20 (default: 2)")
    add(
        "--seconds",
        type=whole_number(5, 3600),
        metavar="N",
        help=f"length of each phase, from 5 to 3600; default: {_USUAL_SECONDS}, or {LONG_SECONDS}"
        " for losses below 5%% and for what is slow",
    )
    add("--out", type=Path, default=Path("out/demo"), metavar="DIR", help="default: out/demo")
    add("--record", type=Path, metavar="FILE", help="where to save the recording (default: in DIR)")
    add("--replay", type=Path, metavar="FILE", help="replay a recording instead of running live")
    add("--version", action="version", version=version("flowverdict-lab"))
    return parser


@contextlib.contextmanager
def _progress(console: Console, total: float) -> Iterator[Tell]:
    """A progress bar on a terminal; otherwise one line per change."""
    if not console.is_terminal or console.is_dumb_terminal:
        last = ""

        def tell_line(what: str, _: float) -> None:
            nonlocal last
            if what != last:
                console.print(what, highlight=False)
            last = what

        yield tell_line
        return
    columns = (BarColumn(30), TimeRemainingColumn(), TextColumn("{task.description}"))
    with Progress(*columns, console=console) as bar:
        task = bar.add_task("", total=total)

        def tell_bar(what: str, seconds: float) -> None:
            if what.startswith("live: "):
                bar.console.print(what, highlight=False, soft_wrap=True)
            else:
                bar.update(task, description=what, completed=seconds)

        yield tell_bar
        bar.update(task, description="done", completed=total)


@contextlib.contextmanager
def _only_lab(console: Console) -> Iterator[None]:
    """Wait until no other demo runs on this machine: each would load the other's processors."""
    with _LOCK.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            console.print("Another demo is running on this machine: waiting for it to end.")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _prepare(folder: Path) -> None:
    """Prepare the output folder, removing only what an earlier run wrote there.

    Raises:
        LabError: if the folder has anything in it and is not one that a run has made, or if there
            is too little room.
    """
    marker = folder / _MARKER
    if folder.exists() and not folder.is_dir():
        raise LabError(f"{folder} is not a folder: choose another with --out")
    if folder.exists() and any(folder.iterdir()) and not marker.exists():
        raise LabError(
            f"{folder} holds files that are not from a demo, and a run would replace some: "
            "choose another folder with --out"
        )
    folder.mkdir(parents=True, exist_ok=True)
    free = shutil.disk_usage(folder).free
    if free < _NEEDED_BYTES:
        raise LabError(
            f"{folder} has {free / 1e6:.0f} MB of free space, and a run may need "
            f"{_NEEDED_BYTES / 1e6:.0f} MB: choose another folder with --out"
        )
    marker.write_text("A run of script/demo replaces what is in this folder.\n")
    for name in ("logs", "nats"):
        shutil.rmtree(folder / name, ignore_errors=True)
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)


def _save(outcome: Outcome, folder: Path) -> None:
    (folder / "verdict.json").write_bytes(
        msgspec.json.format(msgspec.json.encode(outcome.verdict), indent=2) + b"\n"
    )
    with (folder / "verdicts.jsonl").open("wb") as file:
        for verdict in outcome.verdicts:
            file.write(verdicts.encode(verdict) + b"\n")


def _give_to_sudo_user(paths: Iterable[Path]) -> None:
    """Under sudo, give what root wrote to the invoking user; touch nothing else."""
    user, group = os.environ.get("SUDO_UID"), os.environ.get("SUDO_GID")
    if user and group and os.geteuid() == 0:
        for path in paths:
            with contextlib.suppress(FileNotFoundError):
                os.chown(path, int(user), int(group), follow_symlinks=False)


def _missing_folders(folder: Path) -> list[Path]:
    """`folder` and those of its parents that do not exist yet, which this run will create."""
    return [each for each in (folder, *folder.parents) if not each.exists()]


def _output_paths(arguments: argparse.Namespace) -> list[Path]:
    """The files and folders that a run writes."""
    logs = arguments.out / "logs"
    found = [arguments.out / name for name in (*_FILES, RECORDING_FILE)]
    found.append(arguments.out / _MARKER)
    return [*found, logs, *logs.glob("*.log"), *([arguments.record] if arguments.record else [])]


async def _run(arguments: argparse.Namespace, console: Console) -> Outcome:
    folder: Path = arguments.out
    replay: Path | None = arguments.replay
    cluster = make_cluster(arguments.pods, arguments.nodes, arguments.calls)
    fault = parse_fault(arguments.fault, arguments.target, arguments.loss, cluster)
    usual = LossyHub(arguments.hub_loss, cluster) if arguments.hub_loss else None
    if replay is None and (why := os.environ.get("FLOWVERDICT_NOT_LIVE") or why_not_live()):
        notice = f"Cannot run live: {why}. Replaying the recording of a real run."
        console.print(notice, soft_wrap=True)
        arguments.replay = replay = SHIPPED_RECORDING
        if (fault.words, len(cluster.pods), len(cluster.nodes)) != _DEFAULT_RUN:
            console.print(f"It shows {_DEFAULT_RUN[0]}, not the fault you asked for.")
    _prepare(folder)
    if replay is not None:
        with _progress(console, 1) as tell:
            return await run_replay(replay, folder, tell)
    (folder / RECORDING_FILE).unlink(missing_ok=True)
    record = arguments.record or folder / RECORDING_FILE
    seconds = phase_seconds(
        arguments.seconds, _USUAL_SECONDS, arguments.loss, takes_long=fault.takes_long
    )
    with _only_lab(console), _progress(console, len(PHASES) * seconds) as tell:
        return await run_live(Run(cluster, fault, usual, seconds), folder, record, tell)


def _demo(arguments: argparse.Namespace, console: Console) -> int:
    folder: Path = arguments.out
    outcome = asyncio.run(_run(arguments, console))
    _save(outcome, folder)
    recording = arguments.replay or arguments.record or folder / RECORDING_FILE
    report.show(
        console,
        outcome,
        {
            **({"report": str(folder / REPORT_FILE)} if outcome.verdict else {}),
            "verdict": str(folder / "verdict.json"),
            "verdicts": str(folder / "verdicts.jsonl"),
            "recording": str(recording),
            "metrics": f"{folder / METRICS_FILE}; during the run: {outcome.metrics_url}",
            "logs": str(folder / "logs"),
        },
    )
    wrong = outcome.wrong()
    console.print()
    if wrong:
        console.print(f"[bold red]Wrong[/]: {wrong}.")
        return _WRONG
    if outcome.verdict:
        named = outcome.verdict.causes[0]
        console.print(f"[bold green]Right[/]: it names {named}; the fault was {outcome.fault}.")
    else:
        console.print("[bold green]Right[/]: there was no fault, and there is no verdict.")
    return _RIGHT


def _given(arguments: argparse.Namespace) -> list[str]:
    """The options about the cluster and its fault that differ from their defaults."""
    usual = _parser().parse_args([])
    names = (
        "fault", "target", "loss", "pods", "calls", "hub_loss", "nodes", "seconds", "record",
    )  # fmt: skip
    given = [name for name in names if getattr(arguments, name) != getattr(usual, name)]
    return [f"--{name.replace('_', '-')}" for name in given]


def main() -> None:
    """Run the demo and exit with its status."""
    arguments = _parser().parse_args()
    console = Console(highlight=False)
    if arguments.replay is not None and (ignored := _given(arguments)):
        complain("script/demo", f"--replay shows what was recorded; ignored: {', '.join(ignored)}")
    own_folders = _missing_folders(arguments.out)
    interrupt_once("\nscript/demo: interrupted, cleaning up …")
    try:
        status = _demo(arguments, console)
    except FaultError as error:
        complain("script/demo", error)
        status = _USAGE
    except (LabError, PipelineError, RecordingError, NatsError, OSError) as error:
        complain("script/demo", str(error) or repr(error))
        status = _FAILED
    except KeyboardInterrupt:
        print("script/demo: interrupted; everything it started has been stopped", file=sys.stderr)
        status = _INTERRUPTED
    finally:
        _give_to_sudo_user([*own_folders, *_output_paths(arguments)])
    sys.exit(status)
