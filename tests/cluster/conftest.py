"""Run by `script/cluster test` only: these tests need a cluster."""

import os
from collections.abc import Iterator

import pytest

from tests.cluster.installation import Installation

collect_ignore_glob = [] if "FLOWVERDICT_CLUSTER" in os.environ else ["test_*.py"]


@pytest.fixture(scope="session")
def installation() -> Iterator[Installation]:
    """Flowverdict's pipeline on the cluster, applied and ready, with the shop beside it."""
    found = Installation(os.environ["FLOWVERDICT_CLUSTER"])
    found.apply()
    yield found
    found.delete()
