import contextlib
import functools
import sys
from dataclasses import replace
from pathlib import Path

from flowverdict_collector.loader import Loader
from flowverdict_collector.pins import unpin
from flowverdict_collector.privileges import drop_capabilities
from flowverdict_collector.server import SERVICE, run
from flowverdict_collector.settings import CollectorSettings
from flowverdict_runtime.lifecycle import parser_of, reporting, run_service
from flowverdict_runtime.settings import load


def _unpin() -> int:
    settings = load(CollectorSettings)
    directory = Path(settings.pin_directory or "/sys/fs/bpf")
    what = "detached and freed what was" if unpin(directory, settings.node) else "nothing is"
    print(f"{what} pinned in {directory} for node {settings.node}")
    return 0


def main() -> None:
    """The command `flowverdict-collector`."""
    parser = parser_of(SERVICE)
    parser.add_argument(
        "--unpin",
        action="store_true",
        help="detach and free what the last collector left pinned in the kernel, and exit",
    )
    arguments = parser.parse_args()
    if arguments.unpin:
        sys.exit(reporting(SERVICE, _unpin))
    if arguments.check:
        sys.exit(run_service(SERVICE, check=True))
    with contextlib.closing(Loader()) as loader:
        drop_capabilities()
        service = replace(SERVICE, run=functools.partial(run, loader=loader))
        sys.exit(run_service(service, check=False))


if __name__ == "__main__":
    main()
