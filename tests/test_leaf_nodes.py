"""Many clusters' verdicts on one NATS, by the configuration of deploy/nats/multi-cluster."""

import asyncio
from pathlib import Path

import nats
import pytest
from nats.aio.msg import Msg

from conftest import a_verdict, eventually
from flowverdict_contracts import verdicts
from flowverdict_contracts.subjects import SUBJECT_VERDICTS, raw_subject
from flowverdict_lab.pipeline import free_port, start_process, stop_process
from flowverdict_runtime.connection import ensure_streams

SERVER = str(Path(".venv/bin/nats-server").absolute())
FOLDER = Path(__file__).parents[1] / "deploy/nats/multi-cluster"


async def test_a_clusters_verdicts_reach_the_hub_under_its_name_and_nothing_else_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub_port, leaf_port, leaf_nodes = free_port(), free_port(), free_port()
    for name in ("CLUSTER_A_PASSWORD", "CLUSTER_B_PASSWORD", "READER_PASSWORD"):
        monkeypatch.setenv(name, "psecret")
    monkeypatch.setenv("HUB_URL", f"nats-leaf://cluster-a:psecret@127.0.0.1:{leaf_nodes}")
    hub_conf = (FOLDER / "hub.conf").read_text().replace("7422", str(leaf_nodes))
    (tmp_path / "hub.conf").write_text(hub_conf)
    hub = start_process(
        [SERVER, "-c", str(tmp_path / "hub.conf"), "-a", "127.0.0.1", "-p", str(hub_port)],
        tmp_path / "hub.log",
    )
    argv = [SERVER, "-js", "-sd", str(tmp_path / "data"), "-c", str(FOLDER / "leaf.conf")]
    leaf = start_process([*argv, "-a", "127.0.0.1", "-p", str(leaf_port)], tmp_path / "leaf.log")
    heard: list[Msg] = []

    async def hear(message: Msg) -> None:
        heard.append(message)

    async def quiet(_: Exception) -> None:
        pass

    try:
        reader = await nats.connect(
            f"nats://reader:psecret@127.0.0.1:{hub_port}", error_cb=quiet, reconnect_time_wait=0.1
        )
        cluster = await nats.connect(
            f"nats://127.0.0.1:{leaf_port}", error_cb=quiet, reconnect_time_wait=0.1
        )
        await reader.subscribe("*.rca.verdicts", cb=hear)
        jetstream = cluster.jetstream()
        await ensure_streams(jetstream)
        leaked: list[Msg] = []

        async def leak(message: Msg) -> None:
            leaked.append(message)

        await cluster.subscribe("injected", cb=leak)

        async def published() -> bool:
            await jetstream.publish(raw_subject("n1"), b"")
            await jetstream.publish(SUBJECT_VERDICTS, verdicts.encode(a_verdict()))
            await asyncio.sleep(0)
            return bool(heard)

        await eventually(published)
        assert {each.subject for each in heard} == {"cluster-a.rca.verdicts"}
        assert verdicts.decode(heard[0].data) == a_verdict()
        await reader.publish("injected", b"")
        await reader.flush()
        await cluster.flush()
        assert not leaked
        await reader.close()
        await cluster.close()
    finally:
        stop_process(leaf)
        stop_process(hub)
