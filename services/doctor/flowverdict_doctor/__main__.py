import sys

from flowverdict_doctor.command import run


def main() -> None:
    """The command `flowverdict-doctor`."""
    sys.exit(run())


if __name__ == "__main__":
    main()
