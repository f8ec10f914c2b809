"""The influx-writer with a real InfluxDB: whatever happens, nothing is lost and nothing twice."""

import asyncio
import contextlib
import math
import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from pathlib import Path
from random import Random

import pytest
from influxdb_client.client.write_api import SYNCHRONOUS
from nats.aio.client import Client
from prometheus_client import REGISTRY

from conftest import NatsServer, enriched_batch, eventually, flow_row, header
from flowverdict_contracts import enriched
from flowverdict_contracts.subjects import FLOWS_ENRICHED, SUBJECT_ENRICHED
from flowverdict_influx_writer import store_size
from flowverdict_influx_writer.check import check_database
from flowverdict_influx_writer.settings import InfluxWriterSettings
from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process, stop_process
from flowverdict_runtime.context import Context
from flowverdict_runtime.settings import load
from flowverdict_runtime.streams import ensure_streams
from tests import influx_writing
from tests.influx_writing import HOLD, all_written
from tests.real_influxdb import InfluxDB
from tests.skips import needs_influxdb

pytestmark = needs_influxdb
DAY = 86_400


@pytest.fixture(autouse=True)
def _short_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HOLD, 0)


@pytest.fixture
def influxdb(tmp_path: Path) -> Iterator[InfluxDB]:
    with InfluxDB(tmp_path) as database:
        done = database.set_up(tmp_path)
        assert done.returncode == 0, done.stderr
        yield database


@pytest.fixture
def token_file(influxdb: InfluxDB, tmp_path: Path) -> Path:
    return tmp_path / "influxdb-write-token"


@pytest.fixture
def environ(
    nats_server: NatsServer,
    influxdb: InfluxDB,
    token_file: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The influx-writer's settings, as the manifests give them."""
    monkeypatch.setenv("FLOWVERDICT_NATS_URL", nats_server.url)
    monkeypatch.setenv("FLOWVERDICT_INFLUX_URL", influxdb.url)
    monkeypatch.setenv("FLOWVERDICT_INFLUX_TOKEN_FILE", str(token_file))


@contextlib.asynccontextmanager
async def writing() -> AsyncIterator[Context]:
    async with influx_writing.writing(load(InfluxWriterSettings)) as context:
        yield context


async def publish(client: Client, first: int, count: int, second: float | None = None) -> None:
    await influx_writing.publish(client, first, count, time.time() if second is None else second)


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(f"flowverdict_influx_{name}_total", labels) or 0.0


async def waits_because(context: Context, why: str) -> None:
    await eventually(lambda: why in context.health.reasons().get("influxdb", ""))


@pytest.mark.usefixtures("environ")
async def test_what_is_published_while_it_is_killed_and_restarted_is_there_once(
    nats_client: Client, influxdb: InfluxDB
) -> None:
    async with writing():
        await publish(nats_client, 1, 20)
        await eventually(lambda: all_written(nats_client))
        for first in (21, 41):
            influxdb.kill()
            await publish(nats_client, first, 20)
            influxdb.start()
        await eventually(lambda: all_written(nats_client))
    # The same messages once more, as after a lost acknowledgement, change nothing.
    await nats_client.jetstream().delete_consumer(FLOWS_ENRICHED, "influx-writer")
    async with writing():
        await eventually(lambda: all_written(nats_client))
    assert sorted(influxdb.field("segments_sent")) == list(range(1, 61))


@pytest.mark.usefixtures("environ")
async def test_what_is_published_while_the_writer_is_killed_again_and_again_is_there_once(
    nats_client: Client, influxdb: InfluxDB, tmp_path: Path
) -> None:
    program = (
        "from flowverdict_influx_writer import __main__, writing; "
        "writing._HOLD_SECONDS = 0.4; __main__.main()"
    )
    environ = {"FLOWVERDICT_LISTEN": f"127.0.0.1:{free_port()}"}
    count, random = 400, Random(1)

    async def publish_slowly() -> None:
        for number in range(1, count + 1):
            # Twenty seconds in turns, so that slots have many messages, and late ones.
            await publish(nats_client, number, 1, time.time() - 10 * number + number % 20)
            await asyncio.sleep(0.02)

    publishing = asyncio.create_task(publish_slowly())
    deaths = 0
    while not publishing.done():
        log = tmp_path / f"writer-{deaths}.log"
        process = start_process([sys.executable, "-c", program], log, environ)
        await asyncio.sleep(random.uniform(1.0, 2.5))
        process.kill()
        process.wait()
        deaths += 1
    await publishing
    process = start_process([sys.executable, "-c", program], tmp_path / "writer.log", environ)
    try:
        await eventually(lambda: all_written(nats_client), 60)
    finally:
        stop_process(process)
    assert deaths >= 3
    assert sum(influxdb.field("segments_sent")) == sum(range(count + 1))


@pytest.mark.usefixtures("environ")
async def test_names_with_every_character_come_back_as_they_were(
    nats_client: Client, influxdb: InfluxDB
) -> None:
    name = 'we"ird, =na\\me'
    async with writing():
        await ensure_streams(nats_client.jetstream())
        batch = enriched_batch(flow_row("pod-x", "pod-y") | {"src_workload": name})
        headers = header(time.time()).encode(enriched.SCHEMA)
        jetstream = nats_client.jetstream()
        await jetstream.publish(SUBJECT_ENRICHED, enriched.encode(batch), headers=headers)
        await eventually(lambda: all_written(nats_client))
    found = influxdb.query('from(bucket: "flowverdict") |> range(start: -1h, stop: 1h)')
    assert {row["src_workload"] for row in found} == {name}


@pytest.mark.usefixtures("environ")
async def test_points_that_it_refuses_are_counted_as_refused_and_only_those(
    nats_client: Client, influxdb: InfluxDB
) -> None:
    refused, written = counted("points_refused", status="422"), counted("points")
    async with writing():
        await publish(nats_client, 1, 3)
        await publish(nats_client, 4, 2, second=time.time() - 40 * DAY)  # it keeps 30 days
        await eventually(lambda: all_written(nats_client))
    assert sorted(influxdb.field("segments_sent")) == [1, 2, 3]
    assert counted("points_refused", status="422") - refused == 2
    assert counted("points") - written == 3


@pytest.mark.usefixtures("environ")
async def test_a_field_of_another_type_costs_its_own_points_only(
    nats_client: Client, influxdb: InfluxDB
) -> None:
    refused, written = counted("points_refused", status="422"), counted("points")
    with influxdb.client() as client, client.write_api(SYNCHRONOUS) as api:
        # The type of a field is that of its first point of the day.
        api.write("flowverdict", record=f"flow segments_sent=1.5 {time.time_ns()}")
    async with writing():
        await publish(nats_client, 1, 3)
        await publish(nats_client, 4, 2, second=time.time() - 5 * DAY)
        await eventually(lambda: all_written(nats_client))
    assert sorted(influxdb.field("segments_sent")) == [4, 5]
    assert counted("points_refused", status="422") - refused == 3
    assert counted("points") - written == 2


@pytest.mark.usefixtures("environ")
async def test_a_token_that_stays_refused_ends_the_service_and_the_next_start_reads_the_new_one(
    nats_client: Client, influxdb: InfluxDB, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flowverdict_influx_writer.database._TOKEN_PATIENCE_SECONDS", 1)
    async with writing() as context:
        await publish(nats_client, 1, 2)
        await eventually(lambda: all_written(nats_client))
        with influxdb.client() as client:
            buckets = client.buckets_api()
            buckets.delete_bucket(buckets.find_bucket_by_name("flowverdict"))
        await publish(nats_client, 3, 3)
        await waits_because(context, "returned 404: no such organisation or bucket")
        assert influxdb.set_up(tmp_path).returncode == 0  # another bucket, another token
        await eventually(context.stopping.is_set)
        assert "returned 401: it does not accept the token" in context.failure
        assert not await all_written(nats_client)
    async with writing():
        await eventually(lambda: all_written(nats_client))
    assert sorted(influxdb.field("segments_sent")) == [3, 4, 5]


@dataclass(frozen=True)
class Wrong:
    """A setting that is wrong, and what is said about it."""

    token: str = ""
    variable: str = ""
    why: str = "returned 404: no such organisation or bucket"


@pytest.mark.usefixtures("environ")
@pytest.mark.parametrize(
    "wrong",
    [
        Wrong("another", why="returned 401: it does not accept the token"),
        Wrong("read", why="returned 403: the token does not allow writing"),
        Wrong(variable="FLOWVERDICT_INFLUX_ORG"),
        Wrong(variable="FLOWVERDICT_INFLUX_BUCKET"),
    ],
    ids=["token", "token that can only read", "organisation", "bucket"],
)
async def test_check_and_readyz_say_which_setting_is_wrong(
    nats_client: Client, influxdb: InfluxDB, token_file: Path, wrong: Wrong,
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    assert check_database(load(InfluxWriterSettings)) == 0
    assert "the token allows writing to the bucket flowverdict" in capsys.readouterr().out
    if wrong.token:
        token_file.write_text(influxdb.token("read") if wrong.token == "read" else wrong.token)
    else:
        monkeypatch.setenv(wrong.variable, "another")
    assert check_database(load(InfluxWriterSettings)) == 1
    output = capsys.readouterr().out
    assert output.startswith("broken   InfluxDB at ")
    assert wrong.why in output
    async with writing() as context:
        await publish(nats_client, 1, 1)
        await waits_because(context, wrong.why)
    assert not await all_written(nats_client)


@pytest.mark.usefixtures("environ")
def test_check_says_that_there_is_none(
    influxdb: InfluxDB, capsys: pytest.CaptureFixture[str]
) -> None:
    influxdb.stop()
    assert check_database(load(InfluxWriterSettings)) == 1
    assert "Connection refused; check FLOWVERDICT_INFLUX_URL" in capsys.readouterr().out


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[tuple[str, ...]]:
    """A prefix for commands that see a disk of 16 MB at the database's folder."""
    if os.geteuid() != 0 or shutil.which("unshare") is None:
        pytest.skip("only root can mount a disk, and unshare (util-linux) keeps it to itself")
    script = f"mount -t tmpfs -o size=16m disk {tmp_path / 'influxdb'} && echo && exec sleep 600"
    argv = ["unshare", "--mount", "sh", "-c", script]
    (tmp_path / "influxdb").mkdir()
    with subprocess.Popen(argv, stdout=subprocess.PIPE) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == b"\n"
        yield ("nsenter", "-t", str(holder.pid), "-m")
        holder.kill()


async def test_a_full_disk_loses_nothing_once_there_is_room_and_influxdb_has_been_restarted(
    nats_server: NatsServer,
    nats_client: Client,
    tmp_path: Path,
    disk: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with InfluxDB(tmp_path, disk) as influxdb:
        assert influxdb.set_up(tmp_path).returncode == 0
        monkeypatch.setenv("FLOWVERDICT_NATS_URL", nats_server.url)
        monkeypatch.setenv("FLOWVERDICT_INFLUX_URL", influxdb.url)
        monkeypatch.setenv("FLOWVERDICT_INFLUX_TOKEN_FILE", str(tmp_path / "influxdb-write-token"))
        async with writing() as context:
            await publish(nats_client, 1, 5)
            await eventually(lambda: len(influxdb.field("segments_sent")) == 5)
            filler = tmp_path / "influxdb" / "filler"
            fill = [*disk, "sh", "-c", f"cat /dev/zero > {filler}"]
            subprocess.run(fill, stderr=subprocess.DEVNULL, check=False)
            await publish(nats_client, 6, 300)
            await waits_because(context, "no space left on device")
            assert not await all_written(nats_client)
            subprocess.run([*disk, "rm", str(filler)], check=True)
            influxdb.kill()  # after a failed write to its log, it fails all writes
            influxdb.start()
            await eventually(lambda: all_written(nats_client))
        assert sorted(influxdb.field("segments_sent")) == list(range(1, 306))


@pytest.mark.usefixtures("environ")
async def test_what_influxdb_has_stored_is_a_metric_and_none_while_it_does_not_say(
    nats_client: Client, influxdb: InfluxDB, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stored() -> float:
        return REGISTRY.get_sample_value("flowverdict_influx_stored_bytes") or 0.0

    monkeypatch.setattr(store_size, "_EVERY_SECONDS", 0.2)
    monkeypatch.setenv("FLOWVERDICT_INFLUX_VOLUME_BYTES", "1000000")
    async with writing():
        await publish(nats_client, 1, 20)
        await eventually(lambda: stored() > 0, 30)  # InfluxDB measures every ten seconds
        influxdb.stop()
        await eventually(lambda: math.isnan(stored()))
    assert REGISTRY.get_sample_value("flowverdict_influx_volume_bytes") == 1_000_000
