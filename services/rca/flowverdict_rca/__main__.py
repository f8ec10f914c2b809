import sys

from flowverdict_rca.command import run


def main() -> None:
    """The command `flowverdict-rca`."""
    sys.exit(run())


if __name__ == "__main__":
    main()
