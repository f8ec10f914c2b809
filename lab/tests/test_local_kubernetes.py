"""What a cluster on this machine is made of, as far as no cluster is needed to see it."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from flowverdict_lab.interruption import SIGNALS
from flowverdict_lab.kubernetes import command
from flowverdict_lab.kubernetes.build import KUBERNETES, programs
from flowverdict_lab.kubernetes.cluster import Cluster
from flowverdict_lab.kubernetes.images import Image, write_archive
from flowverdict_lab.kubernetes.processes import ProcessError, alive, end, remember, wait_until
from flowverdict_lab.servers import servers

ROOT = Path(__file__).parents[2]


def test_an_archive_of_images_is_what_docker_save_writes(tmp_path: Path) -> None:
    program = tmp_path / "server"
    program.write_bytes(b"\x7fELF")
    write_archive([Image("example.org/server:1", (program,), 1000)], tmp_path / "images.tar")
    with tarfile.open(tmp_path / "images.tar") as archive:
        read = {each.name: archive.extractfile(each) for each in archive.getmembers()}
        content = {name: file.read() for name, file in read.items() if file}
    (image,) = json.loads(content["manifest.json"])
    assert image["RepoTags"] == ["example.org/server:1"]
    config = json.loads(content[image["Config"]])
    assert config["config"]["Entrypoint"] == ["/usr/bin/server"]
    assert config["config"]["User"] == "1000"
    (layer,) = image["Layers"]
    digest = hashlib.sha256(content[layer]).hexdigest()
    assert config["rootfs"]["diff_ids"] == [f"sha256:{digest}"]


def test_servers_are_built_in_the_versions_that_the_manifests_name() -> None:
    compose = (ROOT / "docker-compose.yml").read_text()
    built = {each.image.rpartition("/")[2]: each for each in servers()}
    assert built.keys() == {"nats", "prometheus", "alertmanager", "influxdb", "oauth2-proxy"}
    for name, server in built.items():
        assert name == "oauth2-proxy" or f"image: {server.image}:{server.tag}\n" in compose
        assert "@v" in server.programs[-1].module


def test_a_cluster_is_built_in_the_version_that_is_asked_for() -> None:
    stamped = [each for each in programs("1.34.4") if "gitVersion=v1.34.4" in each.linker]
    assert len(stamped) == 5
    assert KUBERNETES.count(".") == 2


def test_a_process_is_found_again_and_ended_but_never_another_with_its_id(tmp_path: Path) -> None:
    record = tmp_path / "pid"
    process = subprocess.Popen(["sleep", "60"])
    try:
        remember(process.pid, record)
        assert alive(record) == process.pid
        pid, started = record.read_text().split()
        record.write_text(f"{pid} {int(started) - 1}\n")  # as if the id had been used again
        assert alive(record) == 0
        end(record)
        assert process.poll() is None
        remember(process.pid, record)
        end(record, signal.SIGTERM)
        assert process.wait() == -signal.SIGTERM
        assert alive(record) == 0
    finally:
        process.kill()
        process.wait()


def test_a_wait_that_is_in_vain_says_for_what() -> None:
    with pytest.raises(ProcessError, match=r"waited 0 s for the moon"):
        wait_until(lambda: False, 0, "the moon")


def test_a_machine_that_lacks_something_gets_one_line_that_says_what(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flowverdict_lab.kubernetes.command", "up"]
    environ = {**os.environ, "PATH": str(tmp_path), "XDG_CACHE_HOME": "/nowhere"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False)
    assert done.returncode == 3
    (line,) = done.stderr.strip().splitlines()
    assert line.startswith("script/cluster: ")
    assert "is missing" in line or "needs root" in line


def test_nothing_runs_is_a_sentence_and_no_error(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "flowverdict_lab.kubernetes.command"]
    environ = {**os.environ, "XDG_CACHE_HOME": str(tmp_path)}
    for argument, text in (("status", "no cluster"), ("down", "there is no cluster flowverdict")):
        done = subprocess.run(
            [*command, argument], env=environ, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0
        assert text in done.stderr


@pytest.mark.parametrize("number", SIGNALS)
def test_a_cluster_that_is_being_used_is_removed_whatever_ends_the_command(
    number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    removed: list[str] = []
    monkeypatch.setattr("sys.argv", ["flowverdict-cluster", "test"])
    monkeypatch.setattr(Cluster, "running", True)
    monkeypatch.setattr(Cluster, "down", lambda cluster: removed.append(cluster.name))
    monkeypatch.setattr(command, "_load_for_test", lambda *_: os.kill(os.getpid(), number))
    before = [signal.getsignal(each) for each in SIGNALS]
    try:
        assert command.main() == command.INTERRUPTED
    finally:
        for each, handler in zip(SIGNALS, before, strict=True):
            signal.signal(each, handler)
    assert removed == ["test"]
