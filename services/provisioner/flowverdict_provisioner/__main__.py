import sys

from flowverdict_provisioner.command import run


def main() -> None:
    """Entry point of the `flowverdict-provisioner` command."""
    sys.exit(run())


if __name__ == "__main__":
    main()
