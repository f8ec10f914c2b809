"""What the documents tell an operator to do, done as they tell it.

They take long: `script/cluster test --day` runs them.
"""

import base64
import contextlib
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest

from conftest import eventually
from flowverdict_contracts.subjects import FLOWS_ENRICHED
from tests.cluster.installation import FOLDER, NAMESPACE, Installation

DOCS = Path(__file__).parents[2] / "docs"


def commands(page: str, before: str) -> list[list[str]]:
    """Those of the first block of commands after a sentence of a page, without `kubectl`."""
    block = (DOCS / page).read_text().split(before)[1].split("```\n")[1]
    lines = block.replace("\\\n", "").splitlines()
    return [shlex.split(line)[1:] for line in lines]


def told(installation: Installation, service: str, port: int, metric: str) -> float:
    """The sum of a metric's series, 0 while the service is away."""
    with contextlib.suppress(ValueError, subprocess.CalledProcessError, KeyError, AssertionError):
        page = installation.page(service, port)
        found = re.findall(rf"^{metric}(?:{{.*}})? (\S+)$", page, re.MULTILINE)
        return sum(map(float, found))
    return 0.0


async def judges_again(installation: Installation) -> None:
    """Wait until a window that ended after now has been judged."""
    now, metric = time.time(), "flowverdict_rca_watermark_timestamp_seconds"
    await eventually(lambda: told(installation, "rca", 9194, metric) > now, 240)


def password(installation: Installation, key: str) -> str:
    data = installation.get("secret", "-n", NAMESPACE, "flowverdict-credentials").get("data", {})
    return base64.b64decode(data.get(key, "")).decode()


@pytest.mark.day
@pytest.mark.timeout(900)
async def test_a_password_is_changed_as_documented(installation: Installation) -> None:
    old = password(installation, "nats-rca")
    for argv in commands("security.md", "restart whatever uses it:"):
        installation.kubectl(*(str(FOLDER) if each == "deploy/k8s" else each for each in argv))
        if argv[:2] == ["apply", "-k"]:
            await eventually(lambda: password(installation, "nats-rca"), 60)
    installation.await_ready(NAMESPACE)
    assert password(installation, "nats-rca") not in (old, "")
    await judges_again(installation)


@pytest.mark.day
@pytest.mark.timeout(900)
async def test_what_nats_stored_is_lost_and_everything_goes_on(installation: Installation) -> None:
    sent = "tcp_segments_sent_total"
    before = told(installation, "exporter", 9191, sent)
    assert before > 0
    for argv in commands("operate.md", "NATS has lost its store:"):
        installation.kubectl(*argv)
    await eventually(lambda: installation.pods(NAMESPACE, "app.kubernetes.io/name=nats"), 60)
    installation.await_ready(NAMESPACE)
    await judges_again(installation)
    await eventually(lambda: told(installation, "exporter", 9191, sent) > before, 120)
    async with installation.jetstream() as jetstream:
        assert (await jetstream.stream_info(FLOWS_ENRICHED)).state.messages > 0
