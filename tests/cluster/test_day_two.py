"""What the documents tell an operator to do, done as they tell it.

They take long: `script/cluster test --day` runs them.
"""

import contextlib
import json
import re
import shlex
import subprocess
import time
from pathlib import Path

import pytest
from influxdb_client import InfluxDBClient

from conftest import a_verdict, eventually
from flowverdict_contracts import verdicts
from flowverdict_contracts.subjects import FLOWS_ENRICHED, SUBJECT_VERDICTS
from flowverdict_lab.kubernetes.build import Program, build_programs, cache
from tests.cluster.installation import FOLDER, NAMESPACE, Installation, run
from tests.influxdb_backup import back_up, restore

DOCS = Path(__file__).parents[2] / "docs"
NATS = Program("nats", "github.com/nats-io/natscli@v0.5.1", "./nats")


def commands(page: str, before: str) -> list[list[str]]:
    """Those of the first block of commands after a sentence of a page."""
    block = (DOCS / page).read_text().split(before)[1].split("```\n")[1]
    lines = block.replace("\\\n", "").splitlines()
    parts = [part for line in lines for part in line.partition("#")[0].split("&&")]
    return [shlex.split(part) for part in parts]


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


@pytest.mark.day
@pytest.mark.timeout(900)
async def test_a_password_is_changed_as_documented(installation: Installation) -> None:
    old = installation.password("nats-rca")
    for _, *argv in commands("security.md", "restart whatever uses it:"):
        installation.kubectl(*(str(FOLDER) if each == "deploy/k8s" else each for each in argv))
        if argv[:2] == ["apply", "-k"]:
            await eventually(lambda: installation.password("nats-rca"), 60)
    installation.await_ready(NAMESPACE)
    assert installation.password("nats-rca") not in (old, "")
    await judges_again(installation)


@pytest.mark.day
@pytest.mark.timeout(900)
async def test_what_nats_stored_is_lost_and_everything_goes_on(installation: Installation) -> None:
    sent = "tcp_segments_sent_total"
    before = told(installation, "exporter", 9191, sent)
    assert before > 0
    for _, *argv in commands("operate.md", "NATS has lost its store:"):
        installation.kubectl(*argv)
    await eventually(lambda: installation.pods(NAMESPACE, "app.kubernetes.io/name=nats"), 60)
    installation.await_ready(NAMESPACE)
    await judges_again(installation)
    await eventually(lambda: told(installation, "exporter", 9191, sent) > before, 120)
    async with installation.jetstream() as jetstream:
        assert (await jetstream.stream_info(FLOWS_ENRICHED)).state.messages > 0


def nats_cli(installation: Installation, argv: list[str]) -> str:
    """What `nats` prints, as the administrator of verdicts."""
    with installation.forwarded("nats", 4222) as port:
        password = installation.password("nats-verdicts-admin")
        environ = ["NATS_USER=verdicts-admin", f"NATS_PASSWORD={password}"]
        environ += [f"NATS_URL=nats://127.0.0.1:{port}"]
        return run("env", *environ, str(cache() / "tools" / NATS.path), *argv[1:])


async def verdict_ids(installation: Installation) -> set[str]:
    """Of all verdicts that NATS has stored."""
    return {each.id for incident in await installation.incidents(0) for each in incident.verdicts}


def segments_until(installation: Installation, until: float) -> int:
    """What InfluxDB has: how many segments were sent in the hour before."""
    flux = f"""from(bucket: "flowverdict") |> range(start: {int(until) - 3600}, stop: {int(until)})
        |> filter(fn: (r) => r._measurement == "flow" and r._field == "segments_sent")
        |> group() |> sum()"""
    token = installation.password("influxdb-token")
    with (
        installation.forwarded("influxdb", 8086) as port,
        InfluxDBClient(f"http://127.0.0.1:{port}", token, org="flowverdict") as client,
    ):
        tables = client.query_api().query(flux)
        return sum(row.get_value() for table in tables for row in table.records)


@pytest.mark.day
@pytest.mark.timeout(1200)
async def test_a_backup_is_restored_into_an_empty_cluster(
    installation: Installation, tmp_path: Path
) -> None:
    build_programs([NATS], cache() / "tools", print)
    of_last_year = verdicts.encode(a_verdict(incident_id="feed")).decode()
    nats_cli(installation, ["nats", "publish", SUBJECT_VERDICTS, of_last_year])
    await judges_again(installation)
    await eventually(lambda: segments_until(installation, time.time()) > 0, 120)

    def follow(block: list[list[str]]) -> None:
        for program, *argv in block:
            words = [each.replace("/backup", str(tmp_path)) for each in argv]
            if program == "nats":
                nats_cli(installation, [program, *words])
            elif program == "influx":
                act = {"backup": back_up, "restore": restore}[words[0]]
                with installation.forwarded("influxdb", 8086) as port:
                    token = installation.password("influxdb-token")
                    act(f"http://127.0.0.1:{port}", token, Path(words[-1]))
            elif "port-forward" not in words:
                places = {"deploy/k8s": str(FOLDER), "credentials.json": str(credentials)}
                installation.kubectl(*(places.get(each, each) for each in words))
                if words[:2] == ["apply", "-k"]:
                    installation.await_ready(NAMESPACE)

    credentials = tmp_path / "credentials.json"
    told = await verdict_ids(installation)
    assert any(each.startswith("feed/") for each in told)
    *backup, _ = commands("operate.md", "Flows are kept for\nonly an hour and need no backup.")
    follow(backup)
    secret = installation.get("secret", "-n", NAMESPACE, "flowverdict-credentials")
    meta = {name: secret["metadata"][name] for name in ("name", "namespace")}
    kept = {name: secret[name] for name in ("apiVersion", "kind", "type", "data")}
    credentials.write_text(json.dumps({**kept, "metadata": meta}))
    at = time.time() - 60
    segments, password = segments_until(installation, at), installation.password("nats-rca")
    installation.kubectl("delete", "namespace", NAMESPACE)
    follow(commands("operate.md", "so that everything starts with the old\npasswords:"))
    assert installation.password("nats-rca") == password
    assert segments_until(installation, at) == segments
    assert await verdict_ids(installation) >= told
    await judges_again(installation)
    await eventually(lambda: segments_until(installation, time.time()) > segments, 240)
