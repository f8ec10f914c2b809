"""The Job that sets InfluxDB up, with a real InfluxDB and an API that stands in for Kubernetes'."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from influxdb_client.client.write_api import SYNCHRONOUS
from influxdb_client.rest import ApiException

from conftest import load_program
from tests.influxdb_backup import back_up, restore
from tests.real_influxdb import ADMIN_TOKEN, PASSWORD, PROGRAM, InfluxDB
from tests.skips import needs_influxdb
from tests.stand_ins.kubernetes import KubernetesStandIn

pytestmark = needs_influxdb
SECRET = "/api/v1/namespaces/flowverdict/secrets/flowverdict-influxdb"
FROM_BUCKET = 'from(bucket: "flowverdict") |> range(start: -1h)'


@pytest.fixture
def influxdb(tmp_path: Path) -> Iterator[InfluxDB]:
    with InfluxDB(tmp_path) as database:
        yield database


@pytest.fixture
def api() -> Iterator[KubernetesStandIn]:
    stand_in = KubernetesStandIn()
    stand_in.start()
    stand_in.add("/api/v1/namespaces/flowverdict", {"kind": "Namespace"})
    yield stand_in
    stand_in.stop()


def tokens(folder: Path) -> dict[str, str]:
    return {each: (folder / f"influxdb-{each}-token").read_text() for each in ("write", "read")}


def write(influxdb: InfluxDB, token: str, bucket: str = "flowverdict") -> None:
    with influxdb.client(token) as client, client.write_api(SYNCHRONOUS) as api:
        api.write(bucket, record="m f=1i")


def test_a_backup_has_data_and_tokens_of_another_influxdb(
    influxdb: InfluxDB, tmp_path: Path
) -> None:
    influxdb.set_up(tmp_path)
    before = tokens(tmp_path)
    write(influxdb, before["write"])
    back_up(influxdb.url, ADMIN_TOKEN, tmp_path / "backup")
    (tmp_path / "new").mkdir()
    with InfluxDB(tmp_path / "new") as new:
        new.set_up(tmp_path / "new")
        assert tokens(tmp_path / "new") != before
        restore(new.url, ADMIN_TOKEN, tmp_path / "backup")
        assert new.set_up(tmp_path / "new").returncode == 0
        assert tokens(tmp_path / "new") == before
        write(new, before["write"])
        assert len(new.query(FROM_BUCKET, before["read"])) == 2


def test_each_token_can_do_one_thing_with_one_bucket(influxdb: InfluxDB, tmp_path: Path) -> None:
    done = influxdb.set_up(tmp_path)
    assert done.returncode == 0, done.stderr
    made = tokens(tmp_path)
    assert not any(each in done.stdout for each in (*made.values(), ADMIN_TOKEN, PASSWORD))
    write(influxdb, made["write"])
    assert [row["_value"] for row in influxdb.query(FROM_BUCKET, made["read"])] == [1]
    with influxdb.client() as client:
        client.buckets_api().create_bucket(bucket_name="other", org="flowverdict")
        (rule,) = client.buckets_api().find_bucket_by_name("flowverdict").retention_rules
    assert rule.every_seconds == 30 * 86_400
    for token, bucket in ((made["read"], "flowverdict"), (made["write"], "other")):
        with pytest.raises(ApiException) as refused:
            write(influxdb, token, bucket)
        assert refused.value.status in (403, 404)
    with pytest.raises(ApiException):
        influxdb.query(FROM_BUCKET, made["write"])
    for token in made.values():
        with influxdb.client(token) as client:
            assert not client.organizations_api().find_organizations()
            assert not client.authorizations_api().find_authorizations()


def test_what_exists_is_kept(influxdb: InfluxDB, tmp_path: Path) -> None:
    influxdb.set_up(tmp_path)
    first = tokens(tmp_path)
    write(influxdb, first["write"])
    again = influxdb.set_up(tmp_path)
    assert again.stdout.count("kept") == 3
    assert tokens(tmp_path) == first
    assert len(influxdb.query(FROM_BUCKET)) == 1


@pytest.mark.parametrize("steps", [1, 2, 3])
def test_a_set_up_that_was_killed_is_completed_by_the_next(
    influxdb: InfluxDB, tmp_path: Path, steps: int
) -> None:
    database = load_program(PROGRAM).InfluxDB(influxdb.url, ADMIN_TOKEN)
    database.set_up(PASSWORD, 30)
    if steps > 1:
        with influxdb.client() as client:
            buckets = client.buckets_api()
            buckets.delete_bucket(buckets.find_bucket_by_name("flowverdict"))
    if steps > 2:
        database.token("write", [database.bucket("flowverdict", 30)])
    influxdb.kill()
    influxdb.start()
    assert influxdb.set_up(tmp_path).returncode == 0
    write(influxdb, tokens(tmp_path)["write"])
    assert len(influxdb.query(FROM_BUCKET, tokens(tmp_path)["read"])) == 1


def test_an_influxdb_that_comes_late_is_waited_for(influxdb: InfluxDB, tmp_path: Path) -> None:
    influxdb.stop()
    done = influxdb.set_up(tmp_path, WAIT_SECONDS="0")
    assert done.returncode == 1
    assert "does not answer (ConnectionError)" in done.stderr
    influxdb.start()
    assert influxdb.set_up(tmp_path).returncode == 0


def test_an_influxdb_with_another_administrator_is_left_alone(
    influxdb: InfluxDB, tmp_path: Path
) -> None:
    influxdb.set_up(tmp_path)
    done = influxdb.set_up(tmp_path, INFLUXDB_ADMIN_TOKEN="another")
    assert done.returncode == 1
    assert "it was set up with another token than flowverdict-credentials has" in done.stderr


def test_the_secret_is_created_and_follows_what_influxdb_lost(
    influxdb: InfluxDB, api: KubernetesStandIn, tmp_path: Path
) -> None:
    cluster = {"KUBECONFIG": str(api.kubeconfig(tmp_path)), "OUTPUT_FOLDER": ""}
    assert influxdb.set_up(tmp_path, **cluster).returncode == 0
    first = api.secret(SECRET)
    write(influxdb, first["write-token"])
    with influxdb.client() as client:
        buckets = client.buckets_api()
        buckets.delete_bucket(buckets.find_bucket_by_name("flowverdict"))
    done = influxdb.set_up(tmp_path, **cluster)
    assert done.returncode == 0, done.stderr
    assert api.secret(SECRET)["write-token"] != first["write-token"]
    write(influxdb, api.secret(SECRET)["write-token"])
    api.refuse["PATCH"] = 403
    done = influxdb.set_up(tmp_path, **cluster)
    assert done.stderr.startswith("secret flowverdict-influxdb: 403")
    assert done.returncode == 1
