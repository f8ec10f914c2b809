"""`script/bench faults`: how often the lab's faults get the right verdict.

Runs `script/demo --fault …` again and again. Each run is noted in a file as soon as it ends, and a
later call goes on from there: all faults, twenty times each, take about nineteen hours.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from bench.table import markdown
from flowverdict_lab.faults import FAULTS

_TIMES = 20
_RIGHT, _WRONG = 0, 1


@dataclass(frozen=True, slots=True)
class _Ended:
    """A run that came to its end.

    Attributes:
        fault: its name, as `script/demo --fault` takes it.
        right: whether the verdict was.
        said: the demo's last sentence: what was named, and what would have been right.
        seconds: how long it took.
    """

    fault: str
    right: bool
    said: str
    seconds: float


def _run(fault: str) -> _Ended | None:
    """None if the demo could not run; it has said why."""
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        argv = ["script/demo", "--fault", fault, "--out", f"{folder}/demo"]
        done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode not in (_RIGHT, _WRONG):
        return None
    said = " ".join(done.stdout.rstrip().rpartition("\n\n")[2].split())
    return _Ended(fault, done.returncode == _RIGHT, said, round(time.monotonic() - began, 1))


def _known(file: Path) -> list[_Ended]:
    if not file.exists():
        return []
    return [_Ended(**json.loads(line)) for line in file.read_text().splitlines()]


def _row(ended: Sequence[_Ended], fault: str) -> dict[str, object]:
    of_fault = [each for each in ended if each.fault == fault]
    return {"fault": fault, "runs": len(of_fault), "right": sum(each.right for each in of_fault)}


def main() -> int:
    """Run what the command line asks for; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="script/bench faults", description="How often the lab's faults get the right verdict."
    )
    parser.add_argument("faults", nargs="*", metavar="FAULT", help="default: all of script/demo's")
    parser.add_argument(
        "--times", type=int, default=_TIMES, metavar="N", help=f"runs of each (default: {_TIMES})"
    )
    parser.add_argument(
        "--results",
        type=Path,
        default=Path("out/faults.jsonl"),
        metavar="FILE",
        help="where each run is noted, and what was run before (default: out/faults.jsonl)",
    )
    arguments = parser.parse_args()
    chosen = arguments.faults or list(FAULTS)
    if unknown := set(chosen) - set(FAULTS):
        parser.error(f"no such fault: {', '.join(sorted(unknown))}; there are: {', '.join(FAULTS)}")
    file: Path = arguments.results
    file.parent.mkdir(parents=True, exist_ok=True)
    ended = _known(file)
    # Each fault once, then each once more: whenever this is stopped, all have been run as often.
    for round_number in range(arguments.times):
        for fault in chosen:
            if sum(each.fault == fault for each in ended) > round_number:
                continue
            run = _run(fault)
            if run is None:
                return 1
            ended.append(run)
            with file.open("a") as notes:
                notes.write(json.dumps(asdict(run)) + "\n")
            print(f"{fault}: {run.said}", file=sys.stderr, flush=True)
    print(markdown([_row(ended, fault) for fault in chosen]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
