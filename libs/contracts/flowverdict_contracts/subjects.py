"""NATS JetStream streams and the subjects in them."""

import re

from nats.js.api import DiscardPolicy, RetentionPolicy, StorageType, StreamConfig

__all__ = [
    "EXPORTER_STATE_BUCKET",
    "FAIL_RATIO_KEY",
    "FLOWS_ENRICHED",
    "FLOWS_RAW",
    "INFLUX_WRITER_STATE_BUCKET",
    "RCA_STATE_BUCKET",
    "RCA_VERDICTS",
    "STREAMS",
    "SUBJECT_ENRICHED",
    "SUBJECT_RAW_ALL",
    "SUBJECT_VERDICTS",
    "raw_subject",
    "stream_of",
]

FLOWS_RAW = "FLOWS_RAW"
FLOWS_ENRICHED = "FLOWS_ENRICHED"
RCA_VERDICTS = "RCA_VERDICTS"
EXPORTER_STATE_BUCKET = "exporter_state"
INFLUX_WRITER_STATE_BUCKET = "influx_writer_state"
RCA_STATE_BUCKET = "rca_state"
FAIL_RATIO_KEY = "fail_ratio"
"""Key in the bucket: the threshold in force, as decimal text, for tools that show ratios."""

SUBJECT_RAW_ALL = "flows.raw.>"
SUBJECT_ENRICHED = "flows.enriched"
SUBJECT_VERDICTS = "rca.verdicts"

_HOUR = 3600.0
_GIB = 1 << 30


def raw_subject(node: str) -> str:
    """The subject that the collector of `node` publishes on.

    A node's name may contain dots (`ip-10-0-0-1.ec2.internal`); they are kept, as further
    tokens under `flows.raw`.

    Raises:
        ValueError: if the name cannot be part of a NATS subject.
    """
    if not re.fullmatch(r"[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*", node):
        raise ValueError(f"node name {node!r} may have only letters, digits, -, _ and single dots")
    return f"flows.raw.{node}"


def _stream(name: str, subject: str, max_age_seconds: float, max_bytes: int) -> StreamConfig:
    return StreamConfig(
        name=name,
        subjects=[subject],
        retention=RetentionPolicy.LIMITS,
        storage=StorageType.FILE,
        discard=DiscardPolicy.OLD,
        max_age=max_age_seconds,
        max_bytes=max_bytes,
        # Recognise a duplicate for as long as the message can be redelivered.
        duplicate_window=min(max_age_seconds, _HOUR),
    )


STREAMS: dict[str, StreamConfig] = {
    str(config.name): config
    for config in (
        _stream(FLOWS_RAW, SUBJECT_RAW_ALL, _HOUR, _GIB),
        _stream(FLOWS_ENRICHED, SUBJECT_ENRICHED, _HOUR, _GIB),
        _stream(RCA_VERDICTS, SUBJECT_VERDICTS, 30 * 24 * _HOUR, _GIB // 4),
    )
}
"""Stream name to configuration. Flows are kept an hour, verdicts thirty days.

NATS reserves the bytes when a stream is created, so the limits fit a small disk. Operators with
more traffic can edit the stream, and the services leave it as it is.
"""


def stream_of(subject: str) -> str:
    """The stream that stores `subject`.

    Raises:
        KeyError: if none does.
    """
    for name, config in STREAMS.items():
        for pattern in config.subjects or ():
            if subject == pattern or subject.startswith(pattern.removesuffix(">")):
                return name
    raise KeyError(subject)
