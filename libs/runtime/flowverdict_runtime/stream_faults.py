"""What is wrong with a stream that somebody else set up, in words, and what to do about it."""

import contextlib
from collections.abc import Iterator

from nats.js import JetStreamContext
from nats.js.api import RetentionPolicy, StreamConfig
from nats.js.errors import APIError

from flowverdict_contracts.subjects import STREAMS
from flowverdict_runtime.retry import TRANSIENT_ERRORS

__all__ = ["covers", "faults_of", "overlapping", "why_refused"]

_STORED = [subject for config in STREAMS.values() for subject in config.subjects or ()]
_ANY = ">"  # in the last place of a subject: whatever follows

# nats-server, server/jetstream_errors_generated.go
_SUBJECTS_OVERLAP = 10065
_OF_STORAGE = (10023, 10028, 10047, 10122)


def covers(pattern: str, subject: str) -> bool:
    """Whether every subject that `subject` stands for is one that `pattern` stands for, too."""
    wanted, given = subject.split("."), pattern.split(".")
    for at, token in enumerate(given):
        if token == _ANY:
            return len(wanted) > at
        if at >= len(wanted) or wanted[at] == _ANY:
            return False
        if token not in ("*", wanted[at]):
            return False
    return len(wanted) == len(given)


def faults_of(found: StreamConfig, wanted: StreamConfig) -> Iterator[str]:
    """Why a stream that exists cannot be used as the one that is wanted; nothing if it can."""
    name = wanted.name
    advice = f"edit or rename it, or let Flowverdict have a NATS account without a stream {name}"
    if found.mirror:
        yield f"stream {name} is a mirror of {found.mirror.name} and takes no messages: {advice}"
        return
    for subject in wanted.subjects or ():
        if not any(covers(each, subject) for each in found.subjects or ()):
            stored = ", ".join(found.subjects or ()) or "nothing"
            yield f"stream {name} stores {stored}, not {subject}: {advice}"
    if found.sealed or found.no_ack:
        what = "is sealed" if found.sealed else "acknowledges nothing (no_ack)"
        yield f"stream {name} {what}: {advice}"
    goes_to = found.republish.dest or _ANY if found.republish else ""
    if goes_to and any(covers(each, goes_to) or covers(goes_to, each) for each in _STORED):
        yield f"stream {name} publishes what it stores again, on {goes_to} (republish): {advice}"
    if found.retention not in (None, RetentionPolicy.LIMITS):
        retention = str(getattr(found.retention, "value", found.retention))
        yield (
            f"stream {name} has the retention {retention}, which deletes what one reader has read, "
            f"and it has several: {advice}"
        )


async def why_refused(jetstream: JetStreamContext, wanted: StreamConfig, error: APIError) -> str:
    """Why NATS does not create a stream, with what it would need and what there is."""
    text = f"NATS refuses to create stream {wanted.name}: {error.description}"
    if error.err_code == _SUBJECTS_OVERLAP:
        unknown = f"another stream stores {(wanted.subjects or [''])[0]}: see nats stream ls"
        return f"{text}; {await overlapping(jetstream, wanted) or unknown}"
    if "duplicate" in str(error.description):
        return (
            f"{text}; it would be {wanted.duplicate_window:.0f} s, and "
            "FLOWVERDICT_DUPLICATE_WINDOW_SECONDS makes it shorter"
        )
    if error.err_code in _OF_STORAGE or "storage" in str(error.description):
        return (
            f"{text}; it needs {_megabytes(wanted.max_bytes or 0)}{await _there(jetstream)}, and "
            "FLOWVERDICT_STREAM_BYTES makes it smaller"
        )
    return text


async def overlapping(jetstream: JetStreamContext, wanted: StreamConfig) -> str:
    """Which other stream stores the subjects of the one that is wanted; empty if none is found."""
    subject = (wanted.subjects or [""])[0]
    try:
        name = await jetstream.find_stream_name_by_subject(subject)
    except TRANSIENT_ERRORS:
        return ""
    stored = "some of them"
    with contextlib.suppress(*TRANSIENT_ERRORS):  # not every user may look at every stream
        stored = ", ".join((await jetstream.stream_info(name)).config.subjects or ())
    return f"stream {name} already stores {stored}: take {subject} out of it"


async def _there(jetstream: JetStreamContext) -> str:
    try:
        account = await jetstream.account_info()
    except TRANSIENT_ERRORS:
        return ""
    used, limit = account.storage, account.limits.max_storage
    there = "the server's max_file_store" if limit < 0 else f"{_megabytes(limit)} for this account"
    return f"; of {there}, {_megabytes(used)} are used and other streams have reserved more"


def _megabytes(number: int) -> str:
    return f"{number / 1e6:.0f} MB"
