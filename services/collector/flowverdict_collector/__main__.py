import sys
from pathlib import Path

from flowverdict_collector.pins import unpin
from flowverdict_collector.server import SERVICE
from flowverdict_collector.settings import CollectorSettings
from flowverdict_runtime.context import CannotRun
from flowverdict_runtime.lifecycle import CANNOT_RUN, INVALID_SETTINGS, parser_of, run_service
from flowverdict_runtime.settings import SettingsError, load


def _unpin() -> int:
    try:
        settings = load(CollectorSettings)
        directory = Path(settings.pin_directory or "/sys/fs/bpf")
        was_pinned = unpin(directory, settings.node)
    except (SettingsError, CannotRun) as error:
        print(f"flowverdict-collector: {error}", file=sys.stderr)
        return INVALID_SETTINGS if isinstance(error, SettingsError) else CANNOT_RUN
    what = "detached and freed what was" if was_pinned else "nothing is"
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
    sys.exit(_unpin() if arguments.unpin else run_service(SERVICE, arguments.check))


if __name__ == "__main__":
    main()
