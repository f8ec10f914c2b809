"""Many clusters' verdicts on one NATS, by the configuration of deploy/nats/multi-cluster."""

import asyncio
import contextlib
import os
import shutil
import ssl
import subprocess
from pathlib import Path

import nats
import pytest
import yaml
from nats.aio.msg import Msg

from conftest import a_verdict, eventually
from flowverdict_contracts import verdicts
from flowverdict_contracts.subjects import FLOWS_RAW, RCA_VERDICTS, SUBJECT_VERDICTS, raw_subject
from flowverdict_lab.free_port import free_port
from flowverdict_lab.pipeline import start_process, stop_process
from flowverdict_runtime.streams import ensure_streams
from tests.users import CONF, certificates, connected_as, give_passwords

SERVER = str(Path(".venv/bin/nats-server").absolute())
FOLDER = Path(__file__).parents[1] / "deploy/nats/multi-cluster"


async def test_a_clusters_verdicts_reach_the_hub_under_its_name_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_port, leaf_port, leaf_nodes = free_port(), free_port(), free_port()
    for name in ("CLUSTER_A_PASSWORD", "CLUSTER_B_PASSWORD", "READER_PASSWORD"):
        monkeypatch.setenv(name, "psecret")
    certificates(tmp_path / "tls")
    monkeypatch.setenv("HUB_URL", f"tls://cluster-a:psecret@127.0.0.1:{leaf_nodes}")
    monkeypatch.setenv("HUB_CA", str(tmp_path / "tls/ca.crt"))
    hub_conf = (FOLDER / "hub.conf").read_text().replace("7422", str(leaf_nodes))
    (tmp_path / "hub.conf").write_text(hub_conf.replace("/etc/nats-tls", str(tmp_path / "tls")))
    hub = start_process(
        [SERVER, "-c", str(tmp_path / "hub.conf"), "-a", "127.0.0.1", "-p", str(hub_port)],
        tmp_path / "hub.log",
    )
    give_passwords(monkeypatch)
    (tmp_path / "cluster.conf").write_text(
        "".join(
            f"include {os.path.relpath(each, tmp_path)}\n" for each in (CONF, FOLDER / "leaf.conf")
        )
    )
    argv = [SERVER, "-js", "-sd", str(tmp_path / "data"), "-c", str(tmp_path / "cluster.conf")]
    leaf = start_process([*argv, "-a", "127.0.0.1", "-p", str(leaf_port)], tmp_path / "leaf.log")
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    async def quiet(_: Exception) -> None:
        pass

    stack = contextlib.AsyncExitStack()
    try:
        reader = await nats.connect(
            f"tls://reader:psecret@127.0.0.1:{hub_port}",
            tls=ssl.create_default_context(cafile=str(tmp_path / "tls/ca.crt")),
            error_cb=quiet,
            reconnect_time_wait=0.1,
        )
        await reader.subscribe("*.rca.verdicts", cb=hear)
        local = {
            user: await stack.enter_async_context(
                connected_as(user, f"nats://127.0.0.1:{leaf_port}")
            )
            for user in ("collector", "rca", "reader")
        }
        collector, rca, people = (client for client, _ in local.values())
        await ensure_streams(rca.jetstream(), [RCA_VERDICTS])
        await ensure_streams(collector.jetstream(), [FLOWS_RAW])
        leaked: list[Msg] = []

        async def leak(message: Msg) -> None:
            leaked.append(message)

        await people.subscribe("_INBOX.injected", cb=leak)

        async def published() -> bool:
            await collector.jetstream().publish(raw_subject("n1"), b"")
            await rca.jetstream().publish(SUBJECT_VERDICTS, verdicts.encode(a_verdict()))
            await asyncio.sleep(0)
            return bool(heard)

        await eventually(published)
        assert {each.subject for each in heard} == {"cluster-a.rca.verdicts"}
        assert verdicts.decode(heard[0].data) == a_verdict()
        await reader.publish("_INBOX.injected", b"")
        before = heard.copy()
        await reader.publish("cluster-a.rca.verdicts", b"forged")
        await reader.flush()
        await people.flush()
        assert not leaked
        assert heard == before
        await reader.close()
    finally:
        await stack.aclose()
        stop_process(leaf)
        stop_process(hub)


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is missing")
def test_the_component_gives_a_clusters_nats_the_hub(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kustomization = {
        "resources": [os.path.relpath(FOLDER.parents[1] / "k8s", tmp_path.resolve())],
        "components": [os.path.relpath(FOLDER, tmp_path.resolve())],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(kustomization))
    built = subprocess.check_output(["kubectl", "kustomize", str(tmp_path)])
    objects = list(yaml.safe_load_all(built))
    (config,) = (each["data"] for each in objects if "leaf.conf" in (each.get("data") or {}))
    (nats,) = (
        each["spec"]["template"]["spec"]["containers"][0]
        for each in objects
        if each["kind"] == "StatefulSet" and each["metadata"]["name"] == "nats"
    )
    folder = tmp_path / "nats"
    folder.mkdir()
    for name, text in config.items():
        (folder / name).write_text(text)
    give_passwords(monkeypatch)
    certificates(tmp_path / "tls")
    assert {"HUB_URL", "HUB_CA"} <= {each["name"] for each in nats["env"]}
    monkeypatch.setenv("HUB_URL", "tls://cluster-a:psecret@hub.example.org:7422")
    monkeypatch.setenv("HUB_CA", str(tmp_path / "tls/ca.crt"))
    given = Path(nats["args"][nats["args"].index("--config") + 1])
    argv = [SERVER, "-t", "--config", str(folder / given.name)]
    checked = subprocess.run(argv, capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stderr
