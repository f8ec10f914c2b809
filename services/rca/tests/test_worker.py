"""The RCA worker as a process: enriched messages in, verdicts out, whatever happens to it."""

import contextlib
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from datetime import datetime
from pathlib import Path

import pytest
from nats.aio.client import Client
from nats.errors import Error as NatsError
from nats.js import JetStreamContext

from conftest import NatsServer, enriched_batch, eventually, flow_row, header, until_ready
from flowverdict_contracts import enriched
from flowverdict_contracts.subjects import RCA_STATE_BUCKET, RCA_VERDICTS, SUBJECT_ENRICHED
from flowverdict_contracts.verdicts import Verdict, decode
from flowverdict_lab.pipeline import start_process, stop_process
from flowverdict_runtime.streams import ensure_streams

PODS = ("pod-a@worker0", "pod-b@worker0", "pod-c@worker1", "pod-d@worker1")
T = 1_000_000
RCA = str(Path(sys.executable).with_name("flowverdict-rca"))


class Worker:
    """A worker that can be killed and started again."""

    def __init__(self, server: NatsServer, folder: Path) -> None:
        self._environ = {
            "FLOWVERDICT_NATS_URL": server.url,
            "FLOWVERDICT_LISTEN": "127.0.0.1:0",
            "FLOWVERDICT_CLUSTER": "eu-1",
        }
        self.log = folder / "rca.log"
        self.start()

    def start(self) -> None:
        self.process = start_process([RCA], self.log, self._environ)

    def kill(self) -> None:
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()


@pytest.fixture
def worker(nats_server: NatsServer, tmp_path: Path) -> Iterator[Worker]:
    running = Worker(nats_server, tmp_path)
    yield running
    stop_process(running.process)


async def publish(jetstream: JetStreamContext, second: int, broken: str = "") -> None:
    """One second of everyone calling everyone; a fifth is retransmitted if `broken` takes part."""
    rows = [
        flow_row(src, dst, retransmitted_segments=20 if broken and broken in src + dst else 0)
        for src in PODS
        for dst in PODS
        if src != dst
    ]
    one = header(T + second, second + 1)
    body = enriched.encode(enriched_batch(*rows))
    await jetstream.publish(SUBJECT_ENRICHED, body, headers=one.encode(enriched.SCHEMA))


async def verdicts(jetstream: JetStreamContext) -> list[Verdict]:
    state = (await jetstream.stream_info(RCA_VERDICTS)).state
    return [
        decode((await jetstream.get_msg(RCA_VERDICTS, sequence)).data or b"")
        for sequence in range(1, state.last_seq + 1)
    ]


async def until(jetstream: JetStreamContext, status: str) -> list[Verdict]:
    async def published() -> list[Verdict]:
        found = await verdicts(jetstream)
        return found if any(each.status == status for each in found) else []

    found: list[Verdict] = await eventually(published)
    return found


async def test_an_incident_is_opened_goes_on_and_is_resolved(
    worker: Worker, nats_client: Client
) -> None:
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    for second in range(40):
        await publish(jetstream, second, "pod-c" if 10 <= second < 26 else "")
    found = await until(jetstream, "resolved")
    assert found[0].status == "opened"
    assert {each.status for each in found[1:-1]} == {"ongoing"}
    assert {each.causes[0].name for each in found} == {"default/pod-c"}
    assert len({each.incident_id for each in found}) == 1
    assert {each.cluster for each in found} == {"eu-1"}


async def test_a_worker_killed_again_and_again_publishes_what_it_would_have(
    worker: Worker, nats_client: Client, nats_server: NatsServer
) -> None:
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    for second in range(40):
        await publish(jetstream, second, "pod-c" if 10 <= second < 26 else "")
        if second in (5, 17, 18, 27):
            worker.kill()
            worker.start()
    found = await until(jetstream, "resolved")
    ends = [each.window.end for each in found]
    assert len(ends) == len(set(ends)), "a window was judged twice"
    assert [each.status for each in found] == [
        "opened",
        *["ongoing"] * (len(found) - 2),
        "resolved",
    ]
    assert {each.causes[0].name for each in found} == {"default/pod-c"}
    # One for each pane of two seconds from the opening to the last failing one: none is missing.
    first, last = (datetime.fromisoformat(found[at].window.end) for at in (0, -2))
    assert len(found) - 2 == (last - first).total_seconds() / 2


async def test_nats_away_in_the_middle_of_an_incident_loses_no_verdict(
    worker: Worker, nats_client: Client, nats_server: NatsServer
) -> None:
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    for second in range(20):
        await publish(jetstream, second, "pod-a" if second >= 6 else "")
    await until(jetstream, "opened")
    nats_server.stop()
    await eventually(lambda: not nats_client.is_connected)
    nats_server.start()

    async def answers() -> bool:
        with contextlib.suppress(NatsError, TimeoutError):
            return bool(await jetstream.stream_info(RCA_VERDICTS))
        return False

    await eventually(answers)
    for second in range(20, 40):
        await publish(jetstream, second)
    found = await until(jetstream, "resolved")
    assert len({each.incident_id for each in found}) == 1


async def test_a_node_whose_clock_runs_ahead_does_not_keep_the_others_from_being_judged(
    worker: Worker, nats_client: Client
) -> None:
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    for second in range(40):
        await publish(jetstream, second, "pod-c" if 10 <= second < 26 else "")
        if second == 15:
            ahead = header(4_000_000_000, 1, node="ahead")
            body = enriched.encode(enriched_batch(flow_row("pod-x@w", "pod-y@w")))
            headers = ahead.encode(enriched.SCHEMA)
            await jetstream.publish(SUBJECT_ENRICHED, body, headers=headers)
    found = await until(jetstream, "resolved")
    assert {each.causes[0].name for each in found} == {"default/pod-c"}
    assert "clock of node ahead is" in worker.log.read_text()


@pytest.fixture
async def incident(worker: Worker, nats_client: Client) -> str:
    """The incident that the first worker has open."""
    jetstream = nats_client.jetstream()
    await ensure_streams(jetstream)
    for second in range(10):
        await publish(jetstream, second, "pod-a")
    found = await until(jetstream, "opened")
    assert worker.process.poll() is None
    return found[0].incident_id


@pytest.mark.parametrize("goes_on", [True, False])
async def test_a_worker_that_has_lost_its_state_goes_on_with_the_incident_that_is_open(
    worker: Worker, incident: str, nats_client: Client, goes_on: bool
) -> None:
    jetstream = nats_client.jetstream()
    worker.kill()
    before = await verdicts(jetstream)
    await jetstream.delete_key_value(RCA_STATE_BUCKET)
    worker.start()
    for second in range(10, 40):
        await publish(jetstream, second, "pod-a" if goes_on else "")
    last, enough = ("ongoing", 3) if goes_on else ("resolved", 1)

    async def after_that() -> list[Verdict]:
        found = (await verdicts(jetstream))[len(before) :]
        return found if sum(each.status == last for each in found) >= enough else []

    after: list[Verdict] = await eventually(after_that)
    assert {each.incident_id for each in after} == {incident}
    assert {each.status for each in after} <= {"ongoing", last}
    assert min(each.window.end for each in after) > before[-1].window.end
    assert {each.opened_at for each in after} == {before[0].opened_at}


@pytest.fixture
async def second(
    incident: str,  # it is to be open before
    nats_server: NatsServer,
    tmp_path: Path,
) -> AsyncIterator[Worker]:
    """A second worker, which stands by."""
    (tmp_path / "second").mkdir()
    running = Worker(nats_server, tmp_path / "second")
    await eventually(lambda: "standing by: the RCA worker on" in running.log.read_text())
    yield running
    stop_process(running.process)


async def goes_on_once(jetstream: JetStreamContext, incident: str) -> None:
    """The incident goes on and is resolved, and nothing is said twice."""
    for second in range(10, 40):
        await publish(jetstream, second, "pod-a" if second < 20 else "")
    found = await until(jetstream, "resolved")
    assert {each.incident_id for each in found} == {incident}
    assert [each.status for each in found].count("opened") == 1
    ends = [each.window.end for each in found]
    assert len(ends) == len(set(ends))


async def test_a_second_worker_stands_by_and_takes_over_when_the_first_is_killed(
    worker: Worker, second: Worker, incident: str, nats_client: Client
) -> None:
    assert worker.process.poll() is None
    worker.kill()
    await eventually(lambda: "reading from" in second.log.read_text())
    assert second.log.read_text().count("standing by") == 1
    await goes_on_once(nats_client.jetstream(), incident)


async def test_a_worker_that_had_to_wait_for_nats_is_ready_in_the_end(
    nats_server: NatsServer, tmp_path: Path
) -> None:
    nats_server.stop()
    worker = Worker(nats_server, tmp_path)
    try:
        await eventually(lambda: "waiting" in worker.log.read_text())
        nats_server.start()
        await until_ready(worker.log)
    finally:
        stop_process(worker.process)


async def test_a_worker_that_stops_lets_the_other_take_over_at_once(
    worker: Worker, second: Worker, incident: str, nats_client: Client
) -> None:
    assert stop_process(worker.process) == 0
    await eventually(lambda: "reading from" in second.log.read_text(), 5)
    await goes_on_once(nats_client.jetstream(), incident)


async def test_a_worker_that_did_not_run_for_a_while_stops_when_another_has_taken_over(
    worker: Worker, second: Worker, incident: str, nats_client: Client
) -> None:
    worker.process.send_signal(signal.SIGSTOP)
    await eventually(lambda: "reading from" in second.log.read_text(), 30)
    worker.process.send_signal(signal.SIGCONT)
    await eventually(lambda: worker.process.poll() is not None)
    assert "another RCA worker" in worker.log.read_text()
    assert worker.process.returncode != 0
    await goes_on_once(nats_client.jetstream(), incident)
