"""How much of a stream NATS keeps, as metrics: a stream that is full keeps less than an hour."""

from nats.js.api import StreamInfo
from prometheus_client import Gauge

__all__ = ["note_size"]

_BYTES = Gauge(
    "flowverdict_stream_stored_bytes", "What NATS stores of a stream, on each of its servers.",
    ["stream"],
)  # fmt: skip
_LIMIT = Gauge(
    "flowverdict_stream_limit_bytes",
    "At this size, a stream forgets its oldest messages, however young; 0 if there is no limit.",
    ["stream"],
)
_MESSAGES = Gauge("flowverdict_stream_messages", "Messages that a stream keeps.", ["stream"])
_LAST = Gauge(
    "flowverdict_stream_last_sequence",
    "Number of a stream's last message; messages divided by its rate is how long they are kept.",
    ["stream"],
)


def note_size(info: StreamInfo) -> None:
    """Keep the metrics up to date."""
    stream = str(info.config.name)
    _BYTES.labels(stream).set(info.state.bytes)
    _LIMIT.labels(stream).set(max(0, info.config.max_bytes or 0))
    _MESSAGES.labels(stream).set(info.state.messages)
    _LAST.labels(stream).set(info.state.last_seq)
