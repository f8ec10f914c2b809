import sys

from flowverdict_enricher.server import SERVICE
from flowverdict_runtime import service


def main() -> None:
    """The command `flowverdict-enricher`."""
    sys.exit(service.main(SERVICE))


if __name__ == "__main__":
    main()
