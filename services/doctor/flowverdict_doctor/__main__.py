import sys

from flowverdict_doctor.command import run


def main() -> None:
    """Entry point of the `flowverdict-doctor` command."""
    sys.exit(run())


if __name__ == "__main__":
    main()
