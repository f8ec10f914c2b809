import sys

from flowverdict_tail.command import run


def main() -> None:
    """The command `flowverdict-tail`."""
    sys.exit(run())


if __name__ == "__main__":
    main()
