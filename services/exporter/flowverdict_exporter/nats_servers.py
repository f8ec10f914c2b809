"""Each NATS server, as it reports itself: NATS has no page for Prometheus."""

import contextlib
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

import msgspec
from nats.aio.client import Client
from nats.aio.msg import Msg
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from flowverdict_runtime.context import Context
from flowverdict_runtime.retry import TRANSIENT_ERRORS

__all__ = ["NatsServers"]

_ASK = "$SYS.REQ.SERVER.PING.STATSZ"
"""Every server answers (docs.nats.io/running-a-nats-service/configuration/sys_accounts). Users have
to be allowed to ask: see deploy/nats/users.conf.
"""
_ASK_EACH_SECONDS = 15.0
_DOWN_AFTER_SECONDS = 40.0
_FORGOTTEN_AFTER_SECONDS = 3600.0
_MOST = 100


class _Server(msgspec.Struct):
    name: str
    id: str


class _Limits(msgspec.Struct):
    max_storage: int = 0


class _Stored(msgspec.Struct):
    storage: int = 0


class _JetStream(msgspec.Struct):
    config: _Limits = msgspec.field(default_factory=_Limits)
    stats: _Stored = msgspec.field(default_factory=_Stored)


class _State(msgspec.Struct):
    start: datetime
    mem: int
    connections: int
    slow_consumers: int
    jetstream: _JetStream | None = None


class _Answer(msgspec.Struct):
    server: _Server
    statsz: _State


_decoder = msgspec.json.Decoder(_Answer)


@dataclass(frozen=True, slots=True)
class _Heard:
    state: _State
    at: float  # on the monotonic clock
    has_name: bool


class NatsServers(Collector):
    """The NATS servers, for a `prometheus_client` registry.

    One that no longer answers is shown as down for an hour; it may have been removed for good. One
    without a name of its own has another one after each start, so it is shown while it answers.
    """

    def __init__(self) -> None:
        self._client: Client | None = None
        self._inbox = ""
        self._heard: dict[str, _Heard] = {}
        self._lock = threading.Lock()

    async def listen(self, client: Client) -> None:
        """Hear, from now on, what the servers answer over this connection."""
        self._client, self._inbox = client, client.new_inbox()
        await client.subscribe(self._inbox, cb=self._hear)

    async def ask(self, context: Context) -> None:
        """Ask all servers how they are, again and again until the service stops."""
        while self._client is not None and not context.stopping.is_set():
            with contextlib.suppress(*TRANSIENT_ERRORS):
                await self._client.publish(_ASK, reply=self._inbox)
            await context.pause(_ASK_EACH_SECONDS)

    async def _hear(self, message: Msg) -> None:
        try:
            answer = _decoder.decode(message.data)
        except (msgspec.DecodeError, UnicodeDecodeError):
            return  # NATS itself answers with nothing if nobody else can
        server = answer.server
        with self._lock:
            self._heard.pop(server.name, None)
            self._heard[server.name] = _Heard(
                answer.statsz, time.monotonic(), server.name != server.id
            )
            if len(self._heard) > _MOST:
                del self._heard[next(iter(self._heard))]

    def collect(self) -> Iterator[Metric]:
        """The metrics, for a scrape."""
        up = _family("up", "Whether a NATS server answers; 0 for an hour after its last answer.")
        started = _family(
            "start_timestamp_seconds", "When a NATS server was started, as a Unix timestamp."
        )
        memory = _family("memory_bytes", "Resident memory of a NATS server.")
        connections = _family("connections", "Clients of a NATS server.")
        slow = CounterMetricFamily(
            "flowverdict_nats_server_slow_consumers",
            "Clients that a NATS server has disconnected because they did not keep up.",
            labels=["server"],
        )
        stored = _family("stored_bytes", "What a NATS server stores of all streams.")
        limit = _family(
            "storage_limit_bytes", "What a NATS server may store; beyond that, it takes no message."
        )
        now = time.monotonic()
        with self._lock:
            self._heard = {
                name: each
                for name, each in self._heard.items()
                if now - each.at
                < (_FORGOTTEN_AFTER_SECONDS if each.has_name else _DOWN_AFTER_SECONDS)
            }
            for name, each in self._heard.items():
                is_up = now - each.at < _DOWN_AFTER_SECONDS
                up.add_metric([name], is_up)
                if not is_up:
                    continue
                state = each.state
                started.add_metric([name], state.start.timestamp())
                memory.add_metric([name], state.mem)
                connections.add_metric([name], state.connections)
                slow.add_metric([name], state.slow_consumers)
                if state.jetstream is not None:
                    stored.add_metric([name], state.jetstream.stats.storage)
                    limit.add_metric([name], state.jetstream.config.max_storage)
        yield from (up, started, memory, connections, slow, stored, limit)


def _family(name: str, what: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"flowverdict_nats_server_{name}", what, labels=["server"])
