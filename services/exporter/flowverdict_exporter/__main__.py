import sys

from flowverdict_exporter.server import SERVICE
from flowverdict_runtime import lifecycle


def main() -> None:
    """The command `flowverdict-exporter`."""
    sys.exit(lifecycle.main(SERVICE))


if __name__ == "__main__":
    main()
