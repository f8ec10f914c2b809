"""The users of deploy/nats: each service works with its own, and can do nothing else."""

import asyncio
import contextlib
import json
import re
import sys
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from nats.aio.msg import Msg
from nats.errors import Error as NatsError

from conftest import (
    NatsServer,
    a_verdict,
    enriched_batch,
    eventually,
    flow_row,
    header,
    running_enricher,
    until_ready,
)
from flowverdict_contracts import enriched, subjects, verdicts
from flowverdict_lab import recording
from flowverdict_lab.demo import SHIPPED_RECORDING
from flowverdict_lab.free_port import free_port
from flowverdict_runtime.kept_state import pull_from_sequence, state_bucket
from flowverdict_runtime.stored_messages import stored_messages
from flowverdict_runtime.streams import ensure_streams
from tests.stand_ins.influx import InfluxStandIn
from tests.users import (
    CONF,
    USERS,
    UsersPipeline,
    connected_as,
    give_passwords,
    password_of,
    refused_check,
)


@pytest.fixture
def passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    give_passwords(monkeypatch)


@pytest.fixture
def users_server(tmp_path: Path, passwords: None) -> Iterator[NatsServer]:
    server = NatsServer(tmp_path, "-c", str(CONF))
    server.start()
    yield server
    server.stop()


@pytest.fixture
async def connect(users_server: NatsServer) -> AsyncIterator[Callable[[str], Any]]:
    async with contextlib.AsyncExitStack() as stack:
        yield lambda user: stack.enter_async_context(connected_as(user, users_server.url))


ADMINS = ("admin", "verdicts-admin")
ALLOWED = {
    "collector": {"flows.raw.worker0"},
    "enricher": {"flows.enriched"},
    "exporter": {"$SYS.REQ.SERVER.PING.STATSZ"},
    "influx-writer": set(),
    "rca": {"rca.verdicts"},
    "reader": set(),
    "admin": {"flows.raw.worker0", "flows.enriched"},
    "verdicts-admin": {"rca.verdicts"},
}


@pytest.mark.parametrize("user", USERS)
async def test_a_user_publishes_its_own_subjects_and_no_others(
    connect: Callable[[str], Any], user: str
) -> None:
    client, refused = await connect(user)
    everything = set().union(*ALLOWED.values()) | {
        "$JS.API.STREAM.DELETE.RCA_VERDICTS",
        "$JS.API.STREAM.PURGE.FLOWS_RAW",
        "$JS.API.STREAM.UPDATE.FLOWS_ENRICHED",
        "$JS.API.STREAM.CREATE.OTHER",
        "$JS.API.CONSUMER.DELETE.FLOWS_RAW.enricher",
        "$JS.API.CONSUMER.CREATE.FLOWS_ENRICHED.somebody.rca.verdicts",
        "$SYS.REQ.SERVER.PING",
        "anything.else",
    }
    for subject in everything:
        await client.publish(subject, b"")
        await client.flush()
    of_its_own = ALLOWED[user]
    if user in ADMINS:
        of_its_own = of_its_own | {each for each in everything if each.startswith("$JS.")}
    await eventually(lambda: len(refused) == len(everything - of_its_own))
    assert not [why for why in refused if any(f'"{each.lower()}"' in why for each in of_its_own)]


@pytest.mark.parametrize("user", [user for user in USERS if user not in ("reader", *ADMINS)])
async def test_a_service_hears_only_answers_to_itself(
    connect: Callable[[str], Any], user: str
) -> None:
    client, refused = await connect(user)
    for subject in ("rca.verdicts", "flows.>", ">", "_INBOX.>", "_INBOX_somebody.>"):
        await client.subscribe(subject)
    await client.flush()
    await eventually(lambda: len(refused) == 5)


async def test_an_enricher_that_may_not_hear_the_nodes_says_so_and_enriches(
    tmp_path: Path, passwords: None
) -> None:
    conf = tmp_path / "users.conf"
    conf.write_text(CONF.read_text().replace('"flows.raw.>", "_INBOX_enricher', '"_INBOX_enricher'))
    server = NatsServer(tmp_path, "-c", str(conf))
    server.start()
    user = {
        "FLOWVERDICT_NATS_USER": "enricher",
        "FLOWVERDICT_NATS_PASSWORD": password_of("enricher"),
    }
    try:
        with running_enricher(server.url, {}, tmp_path / "enricher.log", **user) as log:
            await until_ready(log)
            refused = "NATS does not allow what this service needs"
            await eventually(lambda: refused in log.read_text())
    finally:
        server.stop()


async def test_a_reader_reads_what_is_stored_and_what_comes(
    connect: Callable[[str], Any],
) -> None:
    enricher, _ = await connect("enricher")
    collector, _ = await connect("collector")
    jetstream = enricher.jetstream()
    await ensure_streams(jetstream, [subjects.FLOWS_RAW, subjects.FLOWS_ENRICHED])
    reader, refused = await connect("reader")
    heard: list[str] = []

    async def hear(message: Msg) -> None:
        heard.append(message.subject)

    for subject in (subjects.SUBJECT_RAW_ALL, subjects.SUBJECT_ENRICHED):
        await reader.subscribe(subject, cb=hear)
    await reader.flush()
    batch = enriched_batch(flow_row("pod-a@n1", "pod-b@n1"))
    head = header().encode(enriched.SCHEMA)
    await jetstream.publish(subjects.SUBJECT_ENRICHED, enriched.encode(batch), headers=head)
    await collector.jetstream().publish("flows.raw.n1", b"")
    await eventually(lambda: set(heard) == {"flows.raw.n1", subjects.SUBJECT_ENRICHED})
    read = [each async for each in stored_messages(reader.jetstream(), subjects.FLOWS_ENRICHED)]
    assert [each.headers["Nats-Msg-Id"] for each in read] == [head["Nats-Msg-Id"]]
    assert not refused


CONSUMERS = {
    "FLOWS_RAW": "enricher",
    "FLOWS_ENRICHED": "rca",
    "RCA_VERDICTS": "influx-writer",
}


@pytest.mark.parametrize("user", ["reader", "collector"])
@pytest.mark.parametrize(
    "subject",
    [
        "$JS.API.CONSUMER.CREATE.{stream}",
        "$JS.API.CONSUMER.CREATE.{stream}.somebody",
        "$JS.API.CONSUMER.DURABLE.CREATE.{stream}.somebody",
        "$JS.API.CONSUMER.DURABLE.CREATE.{stream}.{consumer}",
        "$JS.API.CONSUMER.DELETE.{stream}.{consumer}",
        "$JS.API.CONSUMER.PAUSE.{stream}.{consumer}",
        "$JS.API.CONSUMER.MSG.NEXT.{stream}.{consumer}",
        "$JS.API.STREAM.MSG.DELETE.{stream}",
        "$JS.API.STREAM.PURGE.{stream}",
        "$JS.API.STREAM.UPDATE.{stream}",
        "$JS.API.STREAM.SNAPSHOT.{stream}",
        "$JS.API.DIRECT.GET.{stream}",
        "$JS.ACK.{stream}.{consumer}.1.1.1.1.0",
    ],
)
async def test_neither_people_nor_collectors_change_a_stream_or_its_consumers(
    connect: Callable[[str], Any], user: str, subject: str
) -> None:
    client, refused = await connect(user)
    for stream, consumer in CONSUMERS.items():
        await client.publish(subject.format(stream=stream, consumer=consumer), b"{}")
    await client.flush()
    await eventually(lambda: len(refused) == len(CONSUMERS))


@pytest.mark.parametrize("user", ["reader", "collector"])
async def test_an_answer_to_people_or_collectors_gets_into_no_stream(
    connect: Callable[[str], Any], user: str
) -> None:
    """NATS lets a client have the answer to a request sent to any subject."""
    rca, _ = await connect("rca")
    enricher, _ = await connect("enricher")
    await ensure_streams(rca.jetstream(), [subjects.RCA_VERDICTS])
    await ensure_streams(enricher.jetstream(), [subjects.FLOWS_RAW, subjects.FLOWS_ENRICHED])
    await rca.jetstream().publish(subjects.SUBJECT_VERDICTS, verdicts.encode(a_verdict()))
    client, refused = await connect(user)
    answered: list[bytes] = []

    async def answer(message: Msg) -> None:
        answered.append(message.data)

    inbox = client.new_inbox()
    await client.subscribe(inbox, cb=answer)
    requests = {"$JS.API.INFO": b"", "$JS.API.STREAM.INFO.FLOWS_RAW": b""}
    if user == "collector":
        requests["flows.raw.n1"] = b""
    else:
        requests["$JS.API.STREAM.MSG.GET.RCA_VERDICTS"] = b'{"seq": 1}'
    for subject, body in requests.items():
        for reply in (subjects.SUBJECT_VERDICTS, subjects.SUBJECT_ENRICHED, "flows.raw.n2", inbox):
            await client.publish(subject, body, reply=reply)
    await client.flush()
    await eventually(lambda: len(answered) == len(requests))
    # What was asked for before the answers to the inbox has arrived wherever it was to go.
    reader, _ = await connect("reader")
    stored = {
        stream: [each async for each in stored_messages(reader.jetstream(), stream)]
        for stream in subjects.STREAMS
    }
    (verdict,) = stored[subjects.RCA_VERDICTS]
    assert verdicts.decode(verdict.data) == a_verdict()
    assert not stored[subjects.FLOWS_ENRICHED]
    assert {each.subject for each in stored[subjects.FLOWS_RAW]} <= {"flows.raw.n1"}
    assert not refused


NOT_RCA = [user for user in USERS if user not in ("rca", *ADMINS)]
FORGED = ("rca.verdicts", "$KV.rca_state.state")


@pytest.mark.parametrize("user", NOT_RCA)
async def test_nobody_but_rca_gets_anything_into_the_verdicts_or_into_what_it_keeps(
    connect: Callable[[str], Any], user: str
) -> None:
    """Neither as a message, nor as the answer to a request, nor by a consumer's delivery."""
    rca, _ = await connect("rca")
    flows, _ = await connect("admin")
    await ensure_streams(flows.jetstream(), [subjects.FLOWS_RAW, subjects.FLOWS_ENRICHED])
    await flows.jetstream().publish(subjects.SUBJECT_ENRICHED, b"flows")
    await flows.jetstream().publish("flows.raw.n1", b"flows")
    await ensure_streams(rca.jetstream(), [subjects.RCA_VERDICTS])
    await rca.jetstream().publish(subjects.SUBJECT_VERDICTS, verdicts.encode(a_verdict()))
    state = await state_bucket(rca.jetstream(), subjects.RCA_STATE_BUCKET, 1)
    await state.put("state", b"rca's")
    client, _ = await connect(user)
    for stream in (*subjects.STREAMS, "KV_rca_state"):
        for deliver_to in FORGED:
            config = {
                "durable_name": user,
                "deliver_subject": deliver_to,
                "deliver_policy": "all",
                "ack_policy": "none",
            }
            body = json.dumps({"stream_name": stream, "config": config}).encode()
            for kind in ("CONSUMER.CREATE", "CONSUMER.DURABLE.CREATE"):
                await client.publish(f"$JS.API.{kind}.{stream}.{user}", body)
    for subject in publishes(user):
        for body in (b"forged", b'{"seq": 1}', b'{"batch": 5, "no_wait": true}'):
            for reply in FORGED:
                await client.publish(subject, body, reply=reply)
    for subject in FORGED:
        await client.publish(subject, b"forged")
    await client.flush()
    # What was asked for before this answer has arrived wherever it was to go.
    with contextlib.suppress(NatsError):
        await client.request("$JS.API.INFO", timeout=5)
    admin, _ = await connect("verdicts-admin")
    stored = [each async for each in stored_messages(admin.jetstream(), subjects.RCA_VERDICTS)]
    assert [verdicts.decode(each.data) for each in stored] == [a_verdict()]
    assert (await state.get("state")).value == b"rca's"
    assert (await state.get("state")).revision == 1


def publishes(user: str) -> list[str]:
    """The subjects that users.conf allows a user to publish on, wildcards filled in."""
    text = CONF.read_text().partition(f"user: {user},")[2].partition("subscribe:")[0]
    return [
        each.replace("*", subjects.FLOWS_ENRICHED).replace(">", "1.1.1.1.1.1")
        for each in re.findall(r'"([^"]+)"', text)
    ]


async def test_a_server_soon_forgets_what_a_service_has_asked_for(
    tmp_path: Path, passwords: None
) -> None:
    port = free_port()
    server = NatsServer(tmp_path, "-c", str(CONF), "-m", str(port))
    server.start()

    def remembered() -> int:
        url = f"http://127.0.0.1:{port}/accountz?acc=FLOWVERDICT"
        with urllib.request.urlopen(url, timeout=10) as answer:
            return len(json.load(answer)["account_detail"].get("responses") or {})

    try:
        async with connected_as("exporter", server.url) as (client, _):
            jetstream = client.jetstream()
            await ensure_streams(jetstream, [subjects.FLOWS_ENRICHED])
            arguments = (jetstream, subjects.FLOWS_ENRICHED, "exporter", 1, 100)
            pull = await pull_from_sequence(*arguments)
            for _ in range(200):
                with contextlib.suppress(TimeoutError):
                    await pull.fetch(1, timeout=0.005)

            async def forgotten() -> bool:
                with contextlib.suppress(TimeoutError):
                    await pull.fetch(1, timeout=0.5)
                return await asyncio.to_thread(remembered) < 50

            await eventually(forgotten)
    finally:
        server.stop()


async def test_an_admin_changes_and_backs_up_a_stream(connect: Callable[[str], Any]) -> None:
    rca, _ = await connect("rca")
    await ensure_streams(rca.jetstream(), [subjects.RCA_VERDICTS])
    await rca.jetstream().publish(subjects.SUBJECT_VERDICTS, verdicts.encode(a_verdict()))
    admin, refused = await connect("verdicts-admin")
    jetstream = admin.jetstream(timeout=5)
    config = (await jetstream.stream_info(subjects.RCA_VERDICTS)).config
    await jetstream.update_stream(config.evolve(max_bytes=100_000_000))
    changed = await jetstream.stream_info(subjects.RCA_VERDICTS)
    assert changed.config.max_bytes == 100_000_000
    # What `nats stream backup` asks for: the stream in pieces, each of which is answered.
    pieces: list[Msg] = []

    async def piece(message: Msg) -> None:
        pieces.append(message)
        await message.respond(b"")

    inbox = admin.new_inbox()
    await admin.subscribe(inbox, cb=piece)
    ask = json.dumps({"deliver_subject": inbox}).encode()
    answer = await admin.request("$JS.API.STREAM.SNAPSHOT.RCA_VERDICTS", ask, timeout=5)
    assert json.loads(answer.data)["state"]["messages"] == 1
    await eventually(lambda: pieces and not pieces[-1].data)  # the last is empty
    assert sum(len(each.data) for each in pieces) > 500
    assert not refused


async def test_the_python_of_the_documents_hears_verdicts_as_reader(
    connect: Callable[[str], Any], users_server: NatsServer
) -> None:
    rca, _ = await connect("rca")
    jetstream = rca.jetstream()
    await ensure_streams(jetstream, [subjects.RCA_VERDICTS])
    await jetstream.publish(subjects.SUBJECT_VERDICTS, verdicts.encode(a_verdict()))
    page = (Path(__file__).parents[1] / "docs/verdicts.md").read_text()
    (program,) = re.findall(r"```python\n(.*?)```", page, re.DOTALL)
    environ = {
        "FLOWVERDICT_NATS_URL": users_server.url,
        "FLOWVERDICT_NATS_USER": "reader",
        "FLOWVERDICT_NATS_PASSWORD": password_of("reader"),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, env=environ, stdout=asyncio.subprocess.PIPE
    )
    try:
        assert process.stdout is not None
        line = await asyncio.wait_for(process.stdout.readline(), 30)
        assert line.decode() == f"opened {a_verdict().summary}\n"
    finally:
        process.kill()
        await process.wait()


@pytest.mark.parametrize("who", [{}, {"USER": "reader", "PASSWORD": "reader"}])
async def test_nobody_comes_in_without_a_password(
    connect: Callable[[str], Any], users_server: NatsServer, who: dict[str, str]
) -> None:
    await connect("reader")  # the server is there, then
    given = {f"FLOWVERDICT_NATS_{name}": value for name, value in who.items()}
    said = await refused_check(users_server.url, **given)
    assert "authorization violation" in said.lower()
    assert "FLOWVERDICT_NATS_PASSWORD" in said


async def test_a_service_with_a_wrong_password_says_so_and_comes_in_once_it_is_right(
    passwords: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("NATS_PASSWORD_RCA", "pnotyetchanged")
    server = NatsServer(tmp_path, "-c", str(CONF))
    server.start()
    pipeline = UsersPipeline(tmp_path, "{}", collector=False)
    pipeline.logs.mkdir()
    try:
        pipeline.start("rca", {"FLOWVERDICT_NATS_URL": server.url})
        await eventually(lambda: "authorization violation" in pipeline.log_tail("rca").lower())
        monkeypatch.setenv("NATS_PASSWORD_RCA", password_of("rca"))
        server.stop()
        server.start()
        await eventually(lambda: pipeline.ready("rca"))
    finally:
        pipeline.close()
        server.stop()


async def test_the_pipeline_comes_to_its_verdict_with_these_users(
    passwords: None, tmp_path: Path
) -> None:
    about, messages = recording.read(SHIPPED_RECORDING)
    store = InfluxStandIn()
    store.start()
    arguments = ("-c", str(CONF))
    try:
        with UsersPipeline(
            tmp_path, about.inventory, collector=False, nats_arguments=arguments
        ) as pipeline:
            pipeline.ports["influx_writer"] = free_port()
            influx = {"FLOWVERDICT_INFLUX_URL": store.url, "FLOWVERDICT_INFLUX_TOKEN": "secret"}
            pipeline.start("influx_writer", influx)
            heard: list[verdicts.Verdict] = []

            async def hear(message: Msg) -> None:
                heard.append(verdicts.decode(message.data))

            async with (
                connected_as("reader", pipeline.nats_url) as (reader, _),
                connected_as("collector", pipeline.nats_url) as (collector, _),
            ):
                await reader.subscribe(subjects.SUBJECT_VERDICTS, cb=hear)
                await reader.flush()
                await recording.replay(collector.jetstream(timeout=10), messages)
                await eventually(lambda: any(each.status == "opened" for each in heard), 60)
                assert any(
                    str(each.causes[0]) == "pod default/pod-a" for each in heard if each.causes
                )
                await eventually(
                    lambda: re.search(
                        r'handled_total\{stream="RCA_VERDICTS"\} [1-9]',
                        pipeline.page("exporter", "/metrics"),
                    )
                )
                await eventually(lambda: any("verdict" in tags for tags, _ in store.points))
            errors = "".join(pipeline.log_tail(name) for name in pipeline.services)
            assert "ermission" not in errors
    finally:
        store.stop()
