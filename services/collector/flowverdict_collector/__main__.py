import sys

from flowverdict_collector.server import SERVICE
from flowverdict_runtime import lifecycle


def main() -> None:
    """The command `flowverdict-collector`."""
    sys.exit(lifecycle.main(SERVICE))


if __name__ == "__main__":
    main()
