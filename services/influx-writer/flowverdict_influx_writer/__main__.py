import sys

from flowverdict_influx_writer.server import SERVICE
from flowverdict_runtime import lifecycle


def main() -> None:
    """The command `flowverdict-influx-writer`."""
    sys.exit(lifecycle.main(SERVICE))


if __name__ == "__main__":
    main()
