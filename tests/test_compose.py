"""docker-compose.yml: complete in itself, with the least rights, and the versions of deploy/k8s."""

import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nats
import pytest
import yaml

from conftest import eventually, load_program
from flowverdict_collector.settings import CollectorSettings
from flowverdict_doctor.settings import DoctorSettings
from flowverdict_enricher.settings import EnricherSettings
from flowverdict_exporter.settings import ExporterSettings
from flowverdict_influx_writer.settings import InfluxWriterSettings
from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process, stop_process
from flowverdict_provisioner.settings import ProvisionerSettings
from flowverdict_rca.settings import RcaSettings
from flowverdict_runtime.settings import load

ROOT = Path(__file__).parents[1]
SET_UP_INFLUXDB = ROOT / "deploy/k8s/components/influxdb/set_up_influxdb.py"
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "docker-compose.yml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
SETTINGS: dict[str, Any] = {
    "collector": CollectorSettings,
    "doctor": DoctorSettings,
    "enricher": EnricherSettings,
    "exporter": ExporterSettings,
    "influx-writer": InfluxWriterSettings,
    "provisioner": ProvisionerSettings,
    "rca": RcaSettings,
}


def test_networks_volumes_and_files_that_are_named_exist() -> None:
    for name, service in SERVICES.items():
        assert set(service.get("networks", [])) <= set(COMPOSE["networks"]), name
        assert set(service.get("depends_on", [])) <= set(SERVICES), name
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            if source.startswith("./"):
                assert (ROOT / source).exists(), source
                assert volume.endswith(":ro"), volume
            elif not source.startswith("/"):
                assert source in COMPOSE["volumes"], source


def test_images_are_those_of_kubernetes() -> None:
    pinned = {
        image["name"]: image["newTag"]
        for file in (ROOT / "deploy/k8s").rglob("kustomization.yaml")
        for image in yaml.safe_load(file.read_text()).get("images", [])
        if "newTag" in image
    }
    for service in SERVICES.values():
        name, tag = service["image"].split(":")
        if name != "docker.io/tecnativa/docker-socket-proxy":
            assert pinned[name] == tag, name


@pytest.mark.parametrize("name", sorted(SETTINGS))
def test_every_setting_is_one_and_its_value_is_taken(name: str, tmp_path: Path) -> None:
    password = tmp_path / "password"
    password.write_text("psecret")
    known = {f"FLOWVERDICT_{each.upper()}" for each in SETTINGS[name].__dataclass_fields__}
    environ = {}
    for variable, value in SERVICES[name]["environment"].items():
        assert variable.removesuffix("_FILE") in known, variable
        given = re.sub(r"\$\{\w+:-(.*)\}", r"\1", value)
        environ[variable] = str(password) if variable.endswith("_FILE") else given
    load(SETTINGS[name], environ)


def test_nothing_listens_wider_than_this_host() -> None:
    for service in SERVICES.values():
        for port in service.get("ports", []):
            assert port.startswith("127.0.0.1:"), port


def test_only_what_needs_a_capability_has_it_and_no_password_stands_here() -> None:
    added = {name: each["cap_add"] for name, each in SERVICES.items() if "cap_add" in each}
    assert added == {"collector": ["BPF", "PERFMON"], "chaos": ["NET_ADMIN"]}
    for name, service in SERVICES.items():
        assert "privileged" not in service
        if service["image"].startswith("ghcr.io/flowverdict/"):
            assert service["cap_drop"] == ["ALL"], name
            assert service["read_only"] is True, name
            assert "no-new-privileges:true" in service["security_opt"], name
        for variable, value in service.get("environment", {}).items():
            if re.search("PASSWORD|TOKEN", variable):
                assert re.search("_FILE$", variable), variable
                assert value.startswith("/run/credentials/"), variable


def test_every_password_that_is_read_is_made() -> None:
    text = (ROOT / "docker-compose.yml").read_text()
    (made,) = SERVICES["credentials"]["command"]
    names = set(re.search(r"for name in (.*?); do", made, re.DOTALL)[1].split()) - {"\\"}  # type: ignore[index]
    by_the_job = {f"influxdb-{each}" for each in load_program(SET_UP_INFLUXDB).TOKENS.values()}
    read = set(re.findall(r"/run/credentials/([a-z-]+)", text)) - {"nats-"}
    assert read <= names | by_the_job
    users = re.findall(r"user: ([\w-]+)", (ROOT / "deploy/nats/users.conf").read_text())
    assert {f"nats-{user}" for user in users} == {n for n in names if n.startswith("nats-")}


def _as_run(command: str, folder: Path) -> list[str]:
    """What a container's shell runs, with this folder in the place of its volumes."""
    script = command.replace("$$", "$")
    for volume in ("/run/credentials", "/etc/nats"):
        script = script.replace(volume, str(folder / Path(volume).name))
    return ["/bin/sh", "-ec", script]


async def test_nats_starts_with_the_passwords_that_are_made_and_knows_each_service(
    tmp_path: Path,
) -> None:
    (credentials := tmp_path / "credentials").mkdir()
    (conf := tmp_path / "nats").mkdir()
    for file in (ROOT / "deploy/nats").glob("*.conf"):
        (conf / file.name).write_text(file.read_text().replace("/data", str(tmp_path / "data")))
    (make,), (start,) = SERVICES["credentials"]["command"], SERVICES["nats"]["command"]
    subprocess.run(_as_run(make, tmp_path), check=True)
    port, log = free_port(), tmp_path / "nats.log"
    server = f"{Path(sys.executable).with_name('nats-server')} -a 127.0.0.1 -p {port}"
    start = start.replace("exec nats-server", f"exec {server} -m {free_port()}")
    process = start_process(_as_run(start, tmp_path), log)
    try:
        await eventually(lambda: "Server is ready" in log.read_text() or process.poll() is not None)
        assert process.poll() is None, log.read_text()
        for name, service in SERVICES.items():
            if user := service.get("environment", {}).get("FLOWVERDICT_NATS_USER"):
                password = service["environment"]["FLOWVERDICT_NATS_PASSWORD_FILE"]
                client = await nats.connect(
                    f"nats://127.0.0.1:{port}",
                    user=user,
                    password=(credentials / Path(password).name).read_text(),
                    allow_reconnect=False,
                )
                assert client.is_connected, name
                await client.close()
    finally:
        stop_process(process)


def test_docker_is_asked_through_a_proxy_that_only_reads() -> None:
    with_socket = [n for n, each in SERVICES.items() if "docker.sock" in str(each.get("volumes"))]
    assert with_socket == ["docker-api"]
    assert SERVICES["docker-api"]["environment"]["POST"] == "0"
    assert SERVICES["docker-api"]["networks"] == ["docker-api"]
    assert COMPOSE["networks"]["docker-api"] == {"internal": True}


def test_the_second_file_replaces_the_capabilities_that_an_old_engine_does_not_know() -> None:
    text = (ROOT / "docker-compose.sys-admin.yml").read_text()
    assert re.findall(r"cap_add: (.*)", text) == ["!override [SYS_ADMIN]"]
    assert [each for each in SERVICES if "BPF" in SERVICES[each].get("cap_add", [])] == [
        "collector"
    ]
