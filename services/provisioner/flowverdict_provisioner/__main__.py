import sys

from flowverdict_provisioner.command import run


def main() -> None:
    """The command `flowverdict-provisioner`."""
    sys.exit(run())


if __name__ == "__main__":
    main()
