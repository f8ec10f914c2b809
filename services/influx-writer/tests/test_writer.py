"""Messages in, points in the store: whatever the store answers, nothing lost and nothing twice."""

import asyncio
from collections.abc import Iterator

import msgspec
import pytest
from nats.aio.client import Client
from prometheus_client import REGISTRY

from conftest import NatsServer, a_verdict, eventually
from flowverdict_contracts import verdicts
from flowverdict_contracts.subjects import (
    FLOWS_ENRICHED,
    INFLUX_WRITER_STATE_BUCKET,
    RCA_VERDICTS,
    SUBJECT_VERDICTS,
)
from flowverdict_contracts.verdicts import TimeWindow
from flowverdict_influx_writer.settings import InfluxWriterSettings
from flowverdict_runtime.context import CannotRun
from flowverdict_runtime.settings import load
from flowverdict_runtime.streams import ensure_streams
from tests.influx_writing import HOLD, all_written, publish, writing
from tests.stand_ins.influx import InfluxStandIn


@pytest.fixture(autouse=True)
def _short_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(HOLD, 0)


@pytest.fixture
def influx() -> Iterator[InfluxStandIn]:
    stand_in = InfluxStandIn()
    stand_in.start()
    yield stand_in
    stand_in.stop()


def settings_for(nats_url: str, influx_url: str, token: str = "secret") -> InfluxWriterSettings:
    environ = {
        "FLOWVERDICT_NATS_URL": nats_url,
        "FLOWVERDICT_INFLUX_URL": influx_url,
        "FLOWVERDICT_INFLUX_TOKEN": token,
    }
    return load(InfluxWriterSettings, environ)


def segments(influx: InfluxStandIn) -> int:
    fields = [dict(f.split("=") for f in each.split(",")) for each in influx.points.values()]
    return sum(int(each["segments_sent"].rstrip("i")) for each in fields)


def rows() -> float:
    return REGISTRY.get_sample_value("flowverdict_influx_rows_total") or 0.0


def lost() -> float:
    return REGISTRY.get_sample_value("flowverdict_influx_lost_messages") or 0.0


def refused(status: str) -> float:
    name, labels = "flowverdict_influx_points_refused_total", {"status": status}
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_flows_and_verdicts_are_written(
    nats_server: NatsServer, nats_client: Client, influx: InfluxStandIn
) -> None:
    async with writing(settings_for(nats_server.url, influx.url)) as context:
        await publish(nats_client, 1, 5)
        await nats_client.jetstream().publish(SUBJECT_VERDICTS, verdicts.encode(a_verdict()))
        await eventually(lambda: len(influx.points) == 6)
        await eventually(lambda: all_written(nats_client))
        assert not context.health.reasons()


async def test_verdicts_from_while_it_was_away_are_written_and_none_that_already_was(
    nats_server: NatsServer, nats_client: Client, influx: InfluxStandIn
) -> None:
    settings, jetstream = settings_for(nats_server.url, influx.url), nats_client.jetstream()
    await ensure_streams(jetstream)

    def handled() -> float:
        labels = {"stream": RCA_VERDICTS}
        return REGISTRY.get_sample_value("flowverdict_messages_handled_total", labels) or 0.0

    async def published(*seconds: int) -> None:
        for second in seconds:
            window = TimeWindow(
                start=f"2026-01-01T00:00:{second:02}Z", end=f"2026-01-01T00:01:{second:02}Z"
            )
            verdict = msgspec.structs.replace(a_verdict(), window=window)
            await jetstream.publish(SUBJECT_VERDICTS, verdicts.encode(verdict))

    before = handled()
    async with writing(settings):
        await published(1, 2, 3)
        await eventually(lambda: len(influx.points) == 3)
        await eventually(lambda: handled() == before + 3)
    await published(4, 5)
    async with writing(settings):
        await eventually(lambda: len(influx.points) == 5)
        await eventually(lambda: handled() == before + 5)
    await jetstream.delete_stream(RCA_VERDICTS)
    await ensure_streams(jetstream)
    await published(6)
    async with writing(settings):
        await eventually(lambda: len(influx.points) == 6)


@pytest.mark.parametrize(
    "answers",
    [
        [(429, {"Retry-After": "1"})],
        [(500, {}), (503, {}), (502, {})],
        [(401, {}), (403, {})],
        [(200, {}), (302, {"Location": "http://127.0.0.1:1/login"})],
        [(429, {"Retry-After": "\xb2"}), (429, {"Retry-After": "soon"})],
        [(502, {"Body": "Fehler \xfc"})],
    ],
)
async def test_a_store_that_refuses_for_now_gets_the_points_later_and_once(
    nats_server: NatsServer,
    nats_client: Client,
    influx: InfluxStandIn,
    answers: list[tuple[int, dict[str, str]]],
) -> None:
    async with writing(settings_for(nats_server.url, influx.url)) as context:
        influx.answers.extend(answers)
        await publish(nats_client, 1, 4)
        await eventually(lambda: len(influx.points) == 4)
        await eventually(lambda: all_written(nats_client))
        assert not context.health.reasons()
    assert segments(influx) == 1 + 2 + 3 + 4


async def test_while_the_store_is_away_nothing_is_lost_and_readyz_says_why(
    nats_server: NatsServer, nats_client: Client, influx: InfluxStandIn
) -> None:
    async with writing(settings_for(nats_server.url, influx.url)) as context:
        await publish(nats_client, 1, 2)
        await eventually(lambda: len(influx.points) == 2)
        influx.stop()
        await publish(nats_client, 3, 100)
        await eventually(
            lambda: "cannot be reached" in context.health.reasons().get("influxdb", "")
        )
        assert not await all_written(nats_client)
        influx.start()
        await eventually(lambda: len(influx.points) == 102)
        await eventually(lambda: all_written(nats_client))
        assert not context.health.reasons()
    assert segments(influx) == sum(range(103))


async def test_a_second_writer_takes_over_and_the_first_stops(
    nats_server: NatsServer, nats_client: Client, influx: InfluxStandIn
) -> None:
    """Each would have a part of every slot."""
    settings = settings_for(nats_server.url, influx.url)

    async def both() -> None:
        async with writing(settings):
            await publish(nats_client, 1, 5)
            await eventually(lambda: all_written(nats_client))
            async with writing(settings):
                await publish(nats_client, 6, 5)
                await eventually(lambda: len(influx.points) == 10)
                await publish(nats_client, 11, 5)
                await eventually(lambda: len(influx.points) == 15)

    with pytest.raises(CannotRun, match="another influx-writer is already running"):
        await both()
    assert segments(influx) == sum(range(16))


async def test_messages_that_never_arrived_are_read_again_though_none_follows(
    nats_server: NatsServer, nats_client: Client, influx: InfluxStandIn
) -> None:
    """As when a connection breaks while NATS writes to it."""
    jetstream, taken = nats_client.jetstream(), 0
    async with writing(settings_for(nats_server.url, influx.url)):
        await publish(nats_client, 1, 1)
        await eventually(lambda: len(influx.points) == 1)
        other = await jetstream.pull_subscribe_bind("influx-writer", FLOWS_ENRICHED)
        number = 1
        while not taken:
            asked = asyncio.create_task(other.fetch(3, timeout=0.5))
            await publish(nats_client, number + 1, 3)
            number += 3
            await asyncio.wait([asked])
            taken = 0 if asked.exception() else len(asked.result())
        await eventually(lambda: segments(influx) == sum(range(number + 1)))
        await eventually(lambda: all_written(nats_client))


async def test_what_was_read_is_written_though_its_bucket_is_removed_meanwhile(
    nats_server: NatsServer,
    nats_client: Client,
    influx: InfluxStandIn,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(HOLD, 2)
    before = rows()
    async with writing(settings_for(nats_server.url, influx.url)):
        await publish(nats_client, 1, 20)
        await eventually(lambda: rows() >= before + 20)
        await nats_client.jetstream().delete_key_value(INFLUX_WRITER_STATE_BUCKET)
        # It is noticed when next the consumer is looked at, and again when the progress is kept.
        await eventually(lambda: len(influx.points) == 20, 90)
        await eventually(lambda: all_written(nats_client))
    assert segments(influx) == sum(range(21))


async def test_what_was_not_written_when_the_service_ended_is_written_by_the_next(
    nats_server: NatsServer, nats_client: Client, influx: InfluxStandIn
) -> None:
    settings = settings_for(nats_server.url, influx.url)
    async with writing(settings) as context:
        await publish(nats_client, 1, 2)
        await eventually(lambda: len(influx.points) == 2)
        influx.stop()
        await publish(nats_client, 3, 5)
        await eventually(lambda: "influxdb" in context.health.reasons())
    influx.start()
    async with writing(settings):
        await eventually(lambda: len(influx.points) == 7)
        await eventually(lambda: all_written(nats_client))
    assert segments(influx) == sum(range(8))


async def test_what_nats_deleted_before_it_was_written_is_counted_also_after_a_restart(
    nats_server: NatsServer, nats_client: Client, influx: InfluxStandIn
) -> None:
    settings, jetstream = settings_for(nats_server.url, influx.url), nats_client.jetstream()
    async with writing(settings):
        await publish(nats_client, 1, 2)
        await eventually(lambda: len(influx.points) == 2)
        assert lost() == 0
        await eventually(lambda: all_written(nats_client))
    await publish(nats_client, 3, 10)
    await jetstream.purge_stream(FLOWS_ENRICHED, keep=3)  # as a stream does that is full
    async with writing(settings):
        await eventually(lambda: len(influx.points) == 5)
        await eventually(lambda: all_written(nats_client))
        assert lost() == 7
    await publish(nats_client, 13, 1)
    async with writing(settings):
        await eventually(lambda: len(influx.points) == 6)
        assert lost() == 7


async def test_what_is_too_large_for_the_store_is_written_in_halves(
    nats_server: NatsServer, nats_client: Client, influx: InfluxStandIn
) -> None:
    influx.most_bytes = 2000
    async with writing(settings_for(nats_server.url, influx.url)):
        await publish(nats_client, 1, 60)
        await eventually(lambda: len(influx.points) == 60)
    assert segments(influx) == sum(range(61))


async def test_a_point_that_the_store_never_takes_is_counted_and_holds_up_no_other(
    nats_server: NatsServer, nats_client: Client, influx: InfluxStandIn
) -> None:
    influx.refuse = "segments_sent=7i,"
    before = refused("400")
    async with writing(settings_for(nats_server.url, influx.url)):
        await publish(nats_client, 1, 20)
        await eventually(lambda: len(influx.points) == 19)
        await eventually(lambda: all_written(nats_client))
    assert segments(influx) == sum(range(21)) - 7
    assert refused("400") - before == 1
